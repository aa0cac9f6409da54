//! Real servers for tests: declared, installed, started, killed, restarted.
//!
//! A mock proves nothing about a broker, so tests that need one use the real thing on loopback, with
//! temporary data and free ports. Systems are constants ([`REDIS`]); [`SYSTEMS`] lists them, and
//! `cargo xtask servers` works on that list.
//!
//! A test asks for what it needs:
//!
//! - [`shared`]: the URL of a server for many tests. `cargo xtask test` starts it once and hands it
//!   over in `TRUNKLINE_TEST_<SYSTEM>_URL`; without that it is started once for each test process.
//! - [`own`]: a [`Server`] for one test, which may kill, restart and pause it.
//! - [`tool`]: the path of a program.
//!
//! A crate of this workspace whose tests need one names it in its manifest, so that
//! `cargo xtask test` installs and starts it:
//!
//! ```toml
//! [package.metadata.trunkline]
//! servers = ["redis", "promtool"]
//! ```
//!
//! Each returns `None`, after a `SKIP` line on standard error, if the program is not installed. With
//! `TRUNKLINE_REQUIRE_LIVE=redis,promtool` (or `all`) that is a failure.
//!
//! ```no_run
//! use trunkline_testing::servers::{self, REDIS, redis};
//!
//! let Some(mut server) = servers::own(&REDIS) else { return };
//! redis::call(server.address(), &["SET", "key", "value"]).expect("a running server answers");
//! server.kill().expect("a process can be killed");
//! server.restart().expect("it starts again on its data");
//! let value = redis::call(server.address(), &["GET", "key"]).expect("a running server answers");
//! assert_eq!(value.as_deref(), Some("value"));
//! ```
//!
//! # Guarantees
//!
//! - A server counts as ready when it answers *and* the kernel says that the listener is ours:
//!   otherwise a server of somebody else on the same port would be tested (Linux; elsewhere only the
//!   answer counts).
//! - Ports lie below the kernel's own range, so a restart finds its port free; a port taken
//!   in between means another attempt with another port.
//! - Nothing stays behind: servers die with the process that started them (Linux, with `setpriv`),
//!   and directories left by killed processes are removed by the next run.
//!
//! # A new system
//!
//! One file with one [`System`] constant (how the command looks, what it must answer to be ready),
//! its [`Program`], and one line in [`SYSTEMS`]. Other crates may declare systems of their own: the
//! functions here take any.

mod boot;
mod bounded;
mod built;
pub mod consul;
mod directory;
mod environment;
mod error;
pub mod etcd;
mod install;
mod jars;
pub mod kafka;
mod keeper;
pub mod knot;
pub mod kubernetes;
mod listener;
mod live;
pub mod nats;
mod older;
mod port;
mod process;
mod program;
pub mod rabbitmq;
pub mod redis;
mod server;
mod standing;
mod system;
mod wait;

pub use boot::Ending;
pub use consul::CONSUL;
pub use error::ServerError;
pub use etcd::ETCD;
pub use install::{Installed, install};
pub use kafka::KAFKA;
pub use knot::KNOT;
pub use kubernetes::KUBERNETES;
pub use live::{own, own_launched, shared, tool};
pub use nats::NATS;
pub use program::{
    CONSUL_AGENT, ETCD_SERVER, KAFKA_SERVER, KCAT, KNOT_SERVER, KUBERNETES_SERVER, NATS_SERVER,
    NODE, NPM, PROMTOOL, Program, RABBITMQ_SERVER, REDIS_SERVER, TOOLS, VIRTUALENV,
};
pub use rabbitmq::RABBITMQ;
pub use redis::REDIS;
pub use server::{Launch, Server};
pub use standing::{Standing, cache_directory};
pub use system::{Site, System};

/// Every system that can be started.
pub static SYSTEMS: &[&System] = &[
    &REDIS,
    &RABBITMQ,
    &NATS,
    &CONSUL,
    &ETCD,
    &KAFKA,
    &KNOT,
    &KUBERNETES,
];

/// The system of this name.
#[must_use]
pub fn system(name: &str) -> Option<&'static System> {
    SYSTEMS.iter().copied().find(|system| system.name == name)
}

/// The variable in which the URL of a running `system` is handed to tests.
#[must_use]
pub fn url_variable(system: &System) -> String {
    environment::url_variable(system.name)
}
