//! The in-memory inbox does everything an inbox promises.

use trunkline_core::size::ByteSize;
use trunkline_messaging::inbox::{AnyInbox, MemoryInbox};
use trunkline_testing::Scope;
use trunkline_testing::inbox::InboxHarness;

struct Memory;

impl InboxHarness for Memory {
    async fn open(&self, _: &Scope) -> Option<AnyInbox> {
        Some(AnyInbox::new(MemoryInbox::default()))
    }

    async fn open_limited(&self, _: &Scope, max_keys: usize) -> Option<AnyInbox> {
        let inbox = MemoryInbox::new(max_keys, ByteSize::mib(1));
        Some(AnyInbox::new(inbox))
    }
}

mod suite {
    trunkline_testing::inbox_conformance!(super::Memory);
}
