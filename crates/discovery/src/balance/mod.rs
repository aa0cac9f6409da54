//! Choosing one instance of many.
//!
//! The rules of [`BalanceStrategy`](crate::BalanceStrategy), the load each instance has, and passive ejection: an
//! instance that keeps failing, or that cannot be connected to, is taken out for a while. Everything that costs more
//! than a few loads from memory happens when the set of instances changes, never when one is picked.

mod draw;
mod ejection;
mod latency;
mod load;
mod maglev;
mod outlier;
mod pick;
mod rotation;
mod schedule;
mod sticky;
mod subset;

pub(crate) use ejection::EjectionState;
pub(crate) use load::{Load, Member};
pub use pick::{NoInstance, NoInstanceReason, PickRequest, Picked};
pub(crate) use rotation::{Rotation, is_among, spilled};
pub(crate) use sticky::{Homes, Sticky};
pub(crate) use subset::subset;
