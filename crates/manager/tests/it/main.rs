//! Integration tests of the manager.

#![allow(clippy::unwrap_used, reason = "test code")]

mod alone;
mod callbacks;
#[cfg(feature = "http")]
mod calls;
#[cfg(feature = "full")]
mod capabilities;
#[cfg(feature = "http")]
mod clients;
mod components;
mod config;
mod conveniences;
#[cfg(feature = "embedded")]
mod embedded;
mod global;
mod guest;
mod health;
#[cfg(feature = "server")]
mod instances;
mod lifecycle;
mod lifespan;
mod logs;
#[cfg(feature = "embedded")]
mod prefix;
mod recovery;
mod reload;
mod scripted;
#[cfg(feature = "server")]
mod sdk;
mod signals;
#[cfg(feature = "server")]
mod web;
