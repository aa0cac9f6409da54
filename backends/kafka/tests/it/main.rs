//! The broker on a real server.
#![allow(clippy::unwrap_used, reason = "test code")]

mod access;
mod commits;
mod conformance;
mod crashes;
mod delays;
mod place;
mod recovery;
mod removing;
mod topics;
mod transactions;
