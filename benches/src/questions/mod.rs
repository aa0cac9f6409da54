//! Benchmarks: one file each, with one [`Entry`], and one line here.

mod breaker;

use crate::entry::Entry;

/// All benchmarks, in the order they are run.
pub static ALL: &[&Entry] = &[&breaker::ENTRY];
