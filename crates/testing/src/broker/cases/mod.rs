//! Every case, as a plain function over any broker.

pub mod browsing;
pub mod delivery;
pub mod flow;
pub mod forwarding;
pub mod groups;
pub mod lifecycle;
pub mod limits;
pub mod queues;
pub mod replay;
pub mod routing;
pub mod scheduling;
pub mod settling;
pub mod sharing;
