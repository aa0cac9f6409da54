//! Tower layers around handlers.
//!
//! [`MicroserviceApp`](crate::MicroserviceApp) puts them on in this order, outermost first; keep it when you put them
//! on your own router (of axum's `Router::layer` calls the last one is the outermost):
//!
//! 1. [`ContextLayer`]: reads the request's context and opens its scope. Everything below finds it.
//! 2. [`ObserveLayer`]: the log line and the metrics of a request. Outside the next ones, so that it sees their answers.
//! 3. [`CatchPanicLayer`]: a panic is a 500.
//! 4. [`InFlightLayer`]: so many requests at once. Outside the deadline, so that refusing costs nothing.
//!    [`LoadShedLayer`] beside it, on routes that want it, finds the number by itself; [`RateLimitLayer`] outside both
//!    counts by client.
//! 5. [`BodyLimitLayer`]: bodies no larger than that.
//! 6. [`DeadlineLayer`]: the handler is dropped when nobody waits for it any more.
//! 7. [`IdempotencyLayer`], on the routes that want it: inside the deadline, which answers the client in time while the
//!    handler is done to its end.

mod body_limit;
mod context;
mod deadline;
mod idempotency;
mod in_flight;
mod observe;
mod panic;
mod rate_limit;
mod shed;

pub use body_limit::{BodyLimitLayer, BodyLimitService};
pub use context::{ContextLayer, ContextService, HeaderCarrier};
pub use deadline::{DeadlineLayer, DeadlineService};
pub use idempotency::{IdempotencyLayer, IdempotencyService};
pub use in_flight::{InFlightLayer, InFlightService};
pub(crate) use observe::TemplateOf;
pub use observe::{ObserveLayer, ObserveService, RouteTemplate};
pub use panic::{CatchPanicLayer, CatchPanicService};
pub use rate_limit::{RateLimitLayer, RateLimitService};
pub use shed::{LoadShedLayer, LoadShedService};
