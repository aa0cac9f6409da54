//! A service under proof: its instances, each a process, and the calls to it.

mod calls;
mod process;

pub(super) use calls::{Call, Calls};
pub(super) use process::Process;
