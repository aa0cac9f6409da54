//! Programs of others that are compared with, or spoken to.

pub(crate) mod go;
pub(crate) mod python;
pub(crate) mod rust;
mod sources;
