//! The inbox suite over the embedded inbox, and what a restart must not forget.

use std::time::Duration;

use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, InboxStore};
use trunkline_sqlite::EmbeddedInbox;
use trunkline_testing::Scope;
use trunkline_testing::inbox::InboxHarness;

use crate::directory::named;

struct Embedded;

impl InboxHarness for Embedded {
    async fn open(&self, scope: &Scope) -> Option<AnyInbox> {
        Some(EmbeddedInbox::new(named(scope.unique())).erase())
    }

    async fn open_limited(&self, scope: &Scope, max_keys: usize) -> Option<AnyInbox> {
        let directory = named(&format!("{}-limited", scope.unique()));
        Some(
            EmbeddedInbox::new(directory)
                .with_max_keys(max_keys as u64)
                .erase(),
        )
    }

    fn is_shared(&self) -> bool {
        true
    }
}

mod embedded {
    trunkline_testing::inbox_conformance!(super::Embedded);
}

#[tokio::test]
async fn what_was_done_is_known_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let request = || ClaimRequest::new("charges", "key-1").with_fingerprint("body");
    let inbox = EmbeddedInbox::new(directory.path());
    let Claim::Granted(token) = inbox.claim(request()).await.unwrap() else {
        panic!("nobody did it before")
    };
    inbox
        .complete(token, "charged".into(), Duration::from_secs(60))
        .await
        .unwrap();
    inbox.shutdown();
    let again = EmbeddedInbox::new(directory.path());
    assert_eq!(
        again.claim(request()).await.unwrap(),
        Claim::Done("charged".into())
    );
}
