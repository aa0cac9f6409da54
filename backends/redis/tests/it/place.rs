//! A part of the shared server for each test, and waiting with a limit.

use std::future::Future;
use std::time::Duration;

use trunkline_core::Id;
use trunkline_redis::RedisConfig;
use trunkline_testing::servers::{self, REDIS};

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Settings of a part of the shared server; the same name is the same part.
pub(crate) fn config_named(name: &str) -> Option<RedisConfig> {
    let config = RedisConfig::from_url(&servers::shared(&REDIS)?).unwrap();
    Some(config.with_key_prefix(format!("{{{name}}}:")))
}

/// Settings of a part of the shared server that nobody else has.
pub(crate) fn config(what: &str) -> Option<RedisConfig> {
    config_named(&format!("{what}-{}", Id::new()))
}

/// What must happen in time.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(SOON, future).await {
            Ok(value) => value,
            Err(_) => panic!("it did not happen in time: {place}"),
        }
    }
}
