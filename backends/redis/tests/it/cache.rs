//! The suite of cache tiers over Redis, and what it does when the server goes.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_redis::{RedisCacheTier, RedisConfig};
use trunkline_resilience::cache::{AnyCacheTier, CacheTier, Selector, TierEntry};
use trunkline_testing::Scope;
use trunkline_testing::cache::TierHarness;
use trunkline_testing::servers::{self, Launch, REDIS};

use crate::place::{config, config_named, soon};

struct Redis;

impl TierHarness for Redis {
    async fn open(&self, scope: &Scope) -> Option<AnyCacheTier> {
        let config = config_named(scope.unique())?;
        Some(AnyCacheTier::new(RedisCacheTier::new(config).unwrap()))
    }

    fn system(&self) -> &'static str {
        "redis"
    }
}

mod redis {
    trunkline_testing::cache_tier_conformance!(super::Redis);
}

fn entry(text: &str, ttl: Duration) -> TierEntry {
    TierEntry::new(text.as_bytes(), ttl)
}

const HOUR: Duration = Duration::from_secs(3600);

/// Keys of one prefix that the server knows.
async fn keys(config: &RedisConfig) -> Vec<String> {
    let client = ::redis::Client::open(servers::shared(&REDIS).unwrap()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{}*", config.key_prefix);
    let mut keys: Vec<String> = ::redis::cmd("KEYS")
        .arg(pattern)
        .query_async(&mut connection)
        .await
        .unwrap();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn more_than_one_step_takes_is_removed_whole_and_leaves_nothing() {
    let Some(config) = config("cache") else {
        return;
    };
    let tier = RedisCacheTier::new(config.clone()).unwrap();
    for number in 0..450 {
        let entry = entry("x", HOUR).with_tags(["all"]);
        soon(tier.put(&format!("k{number}"), entry)).await.unwrap();
    }
    soon(tier.put("other", entry("y", HOUR))).await.unwrap();
    let gone = soon(tier.remove(&Selector::Prefix("k1".to_owned()))).await;
    assert_eq!(gone.unwrap(), 111);
    let gone = soon(tier.remove(&Selector::Tag("all".to_owned()))).await;
    assert_eq!(gone.unwrap(), 339);
    assert!(soon(tier.get("other")).await.unwrap().is_some());
    let gone = soon(tier.remove(&Selector::Prefix(String::new()))).await;
    assert_eq!(gone.unwrap(), 1);
    assert_eq!(keys(&config).await, Vec::<String>::new());
}

#[tokio::test]
async fn names_of_what_has_run_out_do_not_pile_up() {
    let Some(config) = config("cache") else {
        return;
    };
    let tier = RedisCacheTier::new(config.clone()).unwrap();
    let brief = Duration::from_millis(1);
    for number in 0..300 {
        let entry = entry("x", brief).with_tags(["all"]);
        soon(tier.put(&format!("k{number}"), entry)).await.unwrap();
    }
    soon(tier.put("last", entry("y", brief))).await.unwrap();
    // The indexes run out with what is in them.
    soon(async {
        while !keys(&config).await.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn while_the_server_is_away_it_fails_at_once_and_after_that_it_works() {
    let Some(mut server) = servers::own_launched(Launch::new(&REDIS)) else {
        return;
    };
    let config = RedisConfig::from_url(&server.url()).unwrap();
    let tier = RedisCacheTier::new(config.with_heartbeat(Duration::from_secs(1))).unwrap();
    soon(tier.put("a", entry("one", HOUR))).await.unwrap();
    server.kill().unwrap();
    // The connection is noticed to be lost, and then nobody waits.
    let failed = soon(async {
        loop {
            let began = Instant::now();
            match tier.get("a").await {
                Err(error) if error.to_string().contains("cannot be reached") => {
                    break (error, began.elapsed());
                }
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!(failed.0.kind(), ErrorKind::Unavailable);
    server.restart().unwrap();
    soon(async {
        while tier.put("b", entry("two", HOUR)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let found = soon(tier.get("b")).await.unwrap();
    assert_eq!(found.as_deref(), Some(&b"two"[..]));
}
