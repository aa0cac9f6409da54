//! What can go wrong, typed.

mod service;
mod wire;

pub use service::{ServiceError, StatusError};
pub use wire::{NoAnswer, Silence};
pub(crate) use wire::{
    broken_body, late, no_answer, no_stream_answer, silent, silent_before_answer,
};
