//! How services talk to each other in Rust: one library, one configuration, one binary.
