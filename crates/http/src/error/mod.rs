//! What can go wrong, typed.

mod wire;

pub use wire::{NoAnswer, Silence};
pub(crate) use wire::{
    broken_body, late, no_answer, no_stream_answer, silent, silent_before_answer,
};
