//! What can go wrong, typed.

mod service;
mod wire;

pub use service::{ServiceError, StatusError};
pub(crate) use wire::{
    Moved, broken_body, late, no_answer, no_stream_answer, silent, silent_before_answer, slow_head,
};
pub use wire::{NoAnswer, Silence, SlowHead};
