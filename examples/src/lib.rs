//! Runnable examples; each asserts its own result.
//!
//! `cargo run -p trunkline-examples --example messaging`. All need nothing installed and end by themselves.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use tokio::time::Instant;
use trunkline::core::Lifecycle as _;
use trunkline::server::{MicroserviceApp, ServerConfig};

/// A service on a free port of this machine, for an example to call.
#[derive(Debug)]
pub struct Served {
    app: MicroserviceApp,
    address: SocketAddr,
}

/// Serves a router until [`Served::stop`].
///
/// # Errors
/// When it cannot listen.
pub async fn serve(router: Router) -> anyhow::Result<Served> {
    let app = MicroserviceApp::builder("example-service")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .router(router)
        .build()?;
    app.start().await?;
    let address = app.local_addr().context("it listens nowhere")?;
    Ok(Served { app, address })
}

impl Served {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets requests under way finish, and stops.
    ///
    /// # Errors
    /// When a request had to be cut off.
    pub async fn stop(self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        Ok(self.app.shutdown(deadline).await?)
    }
}
