//! Proofs: one file each, with one [`Entry`], and one line here.

mod servers;

use crate::entry::Entry;

/// All proofs, in the order they are run.
pub static ALL: &[&Entry] = &[&servers::ENTRY];
