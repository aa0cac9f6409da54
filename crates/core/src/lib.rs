//! Shared vocabulary of Trunkline: errors, context, metadata, lifecycle, health, names. No I/O.
