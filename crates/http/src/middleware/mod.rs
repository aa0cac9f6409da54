//! Middleware: an `async fn(request, next) -> response` around calls or around their attempts.
//!
//! Around a *call* ([`EnhancedHttpClient::middleware`](crate::EnhancedHttpClient::middleware)) it sees the call once,
//! outside the whole policy, however many attempts it takes: the place for logs, for answers of one's own, for what is
//! the same in every attempt. Around an *attempt*
//! ([`attempt_middleware`](crate::EnhancedHttpClient::attempt_middleware)) it sees each one with its number, inside the
//! retry, the breaker and the attempt's time limit, after the context was written into the headers: the place for tokens
//! that expire and for signatures. What fails in it there counts as a failed attempt.
//!
//! In both places the first one added is the outermost. A capturing `async` closure fits as well as a function; what it
//! captures is cloned for each call, so let it be cheap to clone (an `Arc`). For state that borrows, or for middleware
//! of others, there is [`layer`](crate::EnhancedHttpClient::layer): both share one order.

mod around;
mod next;
mod request;

pub(crate) use around::{Hook, Hooks, around_call, hook};
pub use next::Next;
pub(crate) use request::About;
pub use request::ServiceRequest;

use crate::error::ServiceError;
use crate::response::Response;

/// What a middleware answers.
pub type MiddlewareResult = Result<Response, ServiceError>;
