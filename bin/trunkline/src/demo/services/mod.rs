//! The services of the demo, each written as its users would write theirs.
//!
//! Read them in this order: [`users`] is the smallest service there is, [`payments`] keeps its own data and does a thing
//! once, [`orders`] calls both and keeps events, [`notifications`] handles messages.

pub(crate) mod notifications;
pub(crate) mod orders;
pub(crate) mod payments;
pub(crate) mod users;
