//! What is spoken on a connection.

mod h1;
mod h2;

pub(crate) use h1::{Driver, H1, Unanswered};
pub(crate) use h2::{H2, MOST_STREAMS};
