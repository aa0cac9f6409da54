//! The inbox suite over Redis.

use trunkline_messaging::inbox::{AnyInbox, InboxStore};
use trunkline_redis::RedisInbox;
use trunkline_testing::Scope;
use trunkline_testing::inbox::InboxHarness;

use crate::place::config_named;

struct Redis;

impl InboxHarness for Redis {
    async fn open(&self, scope: &Scope) -> Option<AnyInbox> {
        Some(
            RedisInbox::new(config_named(scope.unique())?)
                .unwrap()
                .erase(),
        )
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn system(&self) -> &'static str {
        "redis"
    }
}

mod redis {
    trunkline_testing::inbox_conformance!(super::Redis);
}
