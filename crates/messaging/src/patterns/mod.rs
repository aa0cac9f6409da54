//! Ways of talking, built on publisher and router alone, so that they work on every broker.
//!
//! *Publish and subscribe*: several handlers of one topic, each with a group of its own, each get every message.
//! *Competing consumers*: several processes with the same handler and group share the messages. Both are what
//! [`Router::subscribe`](crate::Router::subscribe) does; requests and the event bus of seed 003 are here.

mod event_bus;
mod request;

pub use event_bus::{Envelope, EventBus};
pub use request::Requester;
