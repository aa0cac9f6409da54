//! What can go wrong, typed.

mod mismatch;
mod service;
mod wire;

pub use mismatch::{FieldMismatch, Mismatch};
pub(crate) use service::Attempts;
pub use service::{ServiceError, StatusError};
pub(crate) use wire::{
    Moved, broken_body, late, no_answer, no_stream_answer, silent, silent_before_answer, slow_head,
};
pub use wire::{NoAnswer, Silence, SlowHead};
