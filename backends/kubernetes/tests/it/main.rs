//! Discovery by Kubernetes, on a real API server.
#![allow(clippy::unwrap_used, reason = "test code")]

mod access;
mod conformance;
mod outages;
mod slices;
mod watches;
mod world;
