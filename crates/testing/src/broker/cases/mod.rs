//! Every case, as a plain function over any broker.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

pub mod browsing;
pub mod delivery;
pub mod flow;
pub mod forwarding;
pub mod groups;
pub mod lag;
pub mod lifecycle;
pub mod limits;
pub mod queues;
pub mod replay;
pub mod routing;
pub mod scheduling;
pub mod settling;
pub mod sharing;
