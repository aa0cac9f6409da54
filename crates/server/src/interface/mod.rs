//! What the server halves that `#[service_interface]` generates are made of.
//!
//! The attribute writes for each method a route whose handler takes an [`Input`] apart into the method's parameters,
//! calls the implementation and answers by [`answer`]. Refusals and errors are problem documents.

mod fields;
mod give;
mod input;
mod route;

pub use axum::Router;
pub use axum::response::Response;
pub use give::{Give, answer};
pub use input::{Input, Readable};
pub use route::route;
