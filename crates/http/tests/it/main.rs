//! The HTTP client against real sockets.

#![allow(clippy::unwrap_used, reason = "test code")]

mod blame;
#[cfg(feature = "cache")]
mod cache;
mod client;
#[cfg(feature = "compression")]
mod coding;
mod deadline;
mod departed;
mod ending;
mod events;
mod fallback;
#[cfg(feature = "graphql")]
mod graphql;
mod grpc_probe;
mod hedge;
mod http2;
mod instance_circuits;
mod instances;
mod limits;
mod middleware;
mod policy;
mod pool;
mod probe;
mod proxy;
mod redirect;
mod repeat;
mod rig;
mod rotation;
mod sdk;
mod settled;
mod streaming;
mod tls;
mod upload;
mod versions;
mod wire;
