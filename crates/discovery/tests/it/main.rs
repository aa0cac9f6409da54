#![allow(clippy::unwrap_used, reason = "test code")]

mod balance;
mod ejection;
