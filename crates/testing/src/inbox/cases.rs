//! Every case, as a plain function over any inbox.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use trunkline_core::{ErrorKind, Result};
use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore};

use super::OpenInbox;
use crate::Scope;
use crate::live::{self, Missing};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1500);

fn request(scope: &Scope, key: &str) -> ClaimRequest {
    ClaimRequest::new(scope.name("mail"), key)
}

async fn claim(inbox: &AnyInbox, scope: &Scope, request: ClaimRequest) -> Claim {
    scope
        .within("a claim", inbox.claim(request))
        .await
        .expect("the inbox answers")
}

async fn granted(inbox: &AnyInbox, scope: &Scope, request: ClaimRequest) -> ClaimToken {
    match claim(inbox, scope, request).await {
        Claim::Granted(token) => token,
        other => panic!("{}: expected a grant, got {other:?}", scope.case()),
    }
}

async fn complete(inbox: &AnyInbox, scope: &Scope, token: ClaimToken, result: &'static str) {
    scope
        .within("completing", inbox.complete(token, result.into(), HOUR))
        .await
        .expect("the claim is completed");
}

fn conflict(outcome: Result<()>) {
    let error = outcome.expect_err("the claim was lost");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
}

/// Of many who claim a key at once, exactly one gets it.
pub async fn a_key_is_granted_once(inbox: &AnyInbox, scope: &Scope) {
    for round in 0..10 {
        let key = format!("key-{round}");
        let claims = (0..32).map(|_| claim(inbox, scope, request(scope, &key)));
        let answers = join_all(claims).await;
        let grants = answers.iter().filter(|a| matches!(a, Claim::Granted(_)));
        assert_eq!(grants.count(), 1, "{answers:?}");
        let waiting = |a: &&Claim| matches!(a, Claim::InProgress { .. });
        assert_eq!(answers.iter().filter(waiting).count(), 31);
    }
}

/// A claimed key is in progress, for no longer than its lease.
pub async fn a_claimed_key_is_in_progress(inbox: &AnyInbox, scope: &Scope) {
    granted(inbox, scope, request(scope, "k").with_lease(HOUR)).await;
    let answer = claim(inbox, scope, request(scope, "k")).await;
    let Claim::InProgress { retry_after } = answer else {
        panic!("expected to be told to wait: {answer:?}");
    };
    assert!(retry_after <= HOUR, "{retry_after:?}");
    assert!(retry_after > HOUR / 2, "{retry_after:?}");
}

/// A done key tells its result, every time.
pub async fn a_done_key_tells_its_result(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k")).await;
    complete(inbox, scope, token, "result").await;
    for _ in 0..2 {
        let answer = claim(inbox, scope, request(scope, "k")).await;
        assert_eq!(answer, Claim::Done("result".into()));
    }
}

/// A key that was given back can be claimed again at once; giving it back twice does nothing.
pub async fn a_released_key_can_be_claimed_again(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k")).await;
    inbox.release(token.clone()).await.expect("released");
    let second = granted(inbox, scope, request(scope, "k")).await;
    inbox.release(token).await.expect("nothing happens");
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert!(matches!(answer, Claim::InProgress { .. }), "{answer:?}");
    complete(inbox, scope, second, "done").await;
}

/// A key whose owner says nothing can be claimed again after its lease.
pub async fn a_lease_that_runs_out_frees_the_key(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k").with_lease(SHORT)).await;
    let second = wait_for_grant(inbox, scope, "k").await;
    conflict(inbox.complete(token.clone(), "late".into(), HOUR).await);
    conflict(inbox.extend(&token, HOUR).await);
    inbox.release(token).await.expect("nothing happens");
    complete(inbox, scope, second, "second").await;
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert_eq!(answer, Claim::Done("second".into()));
}

async fn wait_for_grant(inbox: &AnyInbox, scope: &Scope, key: &str) -> ClaimToken {
    let patient = async {
        loop {
            match claim(inbox, scope, request(scope, key)).await {
                Claim::Granted(token) => return token,
                Claim::InProgress { retry_after } => tokio::time::sleep(retry_after).await,
                other => panic!("{}: unexpected {other:?}", scope.case()),
            }
        }
    };
    scope.within("the lease's end", patient).await
}

/// An extended claim holds beyond its first lease.
pub async fn an_extended_claim_holds(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k").with_lease(SHORT)).await;
    inbox.extend(&token, HOUR).await.expect("extended");
    tokio::time::sleep(SHORT * 2).await;
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert!(matches!(answer, Claim::InProgress { .. }), "{answer:?}");
    complete(inbox, scope, token.clone(), "done").await;
    conflict(inbox.extend(&token, HOUR).await);
}

/// Who lost a claim cannot complete it, whatever the other did meanwhile.
pub async fn a_lost_claim_cannot_complete(inbox: &AnyInbox, scope: &Scope) {
    let lost = granted(inbox, scope, request(scope, "k").with_lease(SHORT)).await;
    let winner = wait_for_grant(inbox, scope, "k").await;
    complete(inbox, scope, winner, "winner").await;
    conflict(inbox.complete(lost, "loser".into(), HOUR).await);
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert_eq!(answer, Claim::Done("winner".into()));
}

/// Completing may be repeated when nobody knows whether it went through; the first result stays.
pub async fn completing_twice_is_one_completion(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k")).await;
    complete(inbox, scope, token.clone(), "first").await;
    complete(inbox, scope, token, "second").await;
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert_eq!(answer, Claim::Done("first".into()));
}

/// A key with another input is a mismatch, while it is worked on and afterwards.
pub async fn another_input_is_a_mismatch(inbox: &AnyInbox, scope: &Scope) {
    let one = || request(scope, "k").with_fingerprint("one");
    let two = || request(scope, "k").with_fingerprint("two");
    let token = granted(inbox, scope, one()).await;
    assert_eq!(claim(inbox, scope, two()).await, Claim::Mismatch);
    complete(inbox, scope, token, "result").await;
    assert_eq!(claim(inbox, scope, two()).await, Claim::Mismatch);
    let answer = claim(inbox, scope, one()).await;
    assert_eq!(answer, Claim::Done("result".into()));
}

/// Without fingerprints there is nothing to compare.
pub async fn without_fingerprint_nothing_mismatches(inbox: &AnyInbox, scope: &Scope) {
    let marked = || request(scope, "k").with_fingerprint("one");
    let token = granted(inbox, scope, marked()).await;
    complete(inbox, scope, token, "result").await;
    let answer = claim(inbox, scope, request(scope, "k")).await;
    assert_eq!(answer, Claim::Done("result".into()));
    let token = granted(inbox, scope, request(scope, "l")).await;
    complete(inbox, scope, token, "result").await;
    let marked = request(scope, "l").with_fingerprint("one");
    let answer = claim(inbox, scope, marked).await;
    assert_eq!(answer, Claim::Done("result".into()));
}

/// The same key in two scopes is two keys, however the two are written together.
pub async fn scopes_are_apart(inbox: &AnyInbox, scope: &Scope) {
    let unique = scope.unique();
    for (who, key) in [("a", "bc"), ("ab", "c"), ("a:b", "c"), ("a", "b:c")] {
        let request = ClaimRequest::new(format!("{unique}{who}"), key);
        granted(inbox, scope, request).await;
    }
}

/// A done key is forgotten when it was kept long enough.
pub async fn a_done_key_is_forgotten_after_its_time(inbox: &AnyInbox, scope: &Scope) {
    let token = granted(inbox, scope, request(scope, "k")).await;
    let outcome = inbox.complete(token, "result".into(), SHORT).await;
    outcome.expect("completed");
    let forgotten = async {
        while !matches!(
            claim(inbox, scope, request(scope, "k")).await,
            Claim::Granted(_)
        ) {
            tokio::time::sleep(SHORT / 4).await;
        }
    };
    scope.within("forgetting", forgotten).await;
}

/// Each claim of a key has a higher generation than the one before.
pub async fn generations_grow(inbox: &AnyInbox, scope: &Scope) {
    let mut last = None;
    for _ in 0..5 {
        let token = granted(inbox, scope, request(scope, "k")).await;
        assert!(last.is_none_or(|before| before < token.generation));
        last = Some(token.generation);
        inbox.release(token).await.expect("released");
    }
}

/// Keys are any text, results any bytes, none at all included.
pub async fn odd_names_and_results_are_kept(inbox: &AnyInbox, scope: &Scope) {
    let long = "x".repeat(1000);
    let results = [
        Bytes::new(),
        Bytes::from_static(&[0, 255]),
        Bytes::from(vec![7; 100_000]),
    ];
    for (key, result) in ["", "ä ' \" % \0 \n", &long].into_iter().zip(results) {
        let token = granted(inbox, scope, request(scope, key)).await;
        let outcome = inbox.complete(token, result.clone(), HOUR).await;
        outcome.expect("completed");
        let answer = claim(inbox, scope, request(scope, key)).await;
        assert!(answer == Claim::Done(result), "the result differs");
    }
}

/// A claim whose future is dropped stands for its lease at most.
pub async fn a_dropped_claim_is_free_after_its_lease(inbox: &AnyInbox, scope: &Scope) {
    for polls in 0..5_u32 {
        let key = polls.to_string();
        {
            let mut future = Box::pin(inbox.claim(request(scope, &key).with_lease(SHORT)));
            for _ in 0..polls {
                if futures_util::poll!(future.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        let token = wait_for_grant(inbox, scope, &key).await;
        complete(inbox, scope, token, "done").await;
    }
}

/// A thousand keys at once each keep their own result.
pub async fn many_keys_at_once_do_not_mix(inbox: &AnyInbox, scope: &Scope) {
    let work = (0..1000).map(|number: u32| async move {
        let key = number.to_string();
        let token = granted(inbox, scope, request(scope, &key)).await;
        let result = Bytes::from(key.clone());
        let outcome = inbox.complete(token, result.clone(), HOUR).await;
        outcome.expect("completed");
        let answer = claim(inbox, scope, request(scope, &key)).await;
        assert_eq!(answer, Claim::Done(result));
    });
    join_all(work).await;
}

const ROOM: usize = 10;

async fn small(harness: &dyn OpenInbox, scope: &Scope) -> Option<AnyInbox> {
    let inbox = harness.open_limited_boxed(scope, ROOM).await;
    if inbox.is_none() {
        live::skip(scope, Missing::Capability("limits"));
    }
    inbox
}

/// A full inbox forgets the oldest done key for a new one.
pub async fn a_full_inbox_forgets_the_oldest_done_key(harness: &dyn OpenInbox, scope: &Scope) {
    let Some(inbox) = small(harness, scope).await else {
        return;
    };
    for number in 0..=ROOM {
        let token = granted(&inbox, scope, request(scope, &number.to_string())).await;
        complete(&inbox, scope, token, "done").await;
        // Stores that count whole milliseconds know which one is older.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let newest = claim(&inbox, scope, request(scope, &ROOM.to_string())).await;
    assert_eq!(newest, Claim::Done("done".into()));
    granted(&inbox, scope, request(scope, "0")).await;
}

/// A full inbox never forgets a key that is being worked on; it refuses a new one instead.
pub async fn a_full_inbox_keeps_claims(harness: &dyn OpenInbox, scope: &Scope) {
    let Some(inbox) = small(harness, scope).await else {
        return;
    };
    let mut tokens = Vec::new();
    for number in 0..ROOM {
        let request = request(scope, &number.to_string()).with_lease(HOUR);
        tokens.push(granted(&inbox, scope, request).await);
    }
    let error = inbox
        .claim(request(scope, "more"))
        .await
        .expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
    for token in tokens {
        complete(&inbox, scope, token, "done").await;
    }
    granted(&inbox, scope, request(scope, "more")).await;
}

/// What one handle claims another sees.
pub async fn handles_share_claims(harness: &dyn OpenInbox, scope: &Scope) {
    if !harness.is_shared_dyn() {
        live::skip(scope, Missing::Capability("sharing"));
        return;
    }
    let open = || async {
        let inbox = harness.open_boxed(scope).await;
        inbox.expect("it was there a moment ago")
    };
    let (here, there) = (open().await, open().await);
    let claims = (0..32).map(|number| {
        let inbox = if number % 2 == 0 { &here } else { &there };
        claim(inbox, scope, request(scope, "k"))
    });
    let answers = join_all(claims).await;
    let mut grants = answers.into_iter().filter_map(|answer| match answer {
        Claim::Granted(token) => Some(token),
        _ => None,
    });
    let token = grants.next().expect("one of them got it");
    assert_eq!(grants.next(), None, "only one of them");
    complete(&here, scope, token, "done").await;
    let answer = claim(&there, scope, request(scope, "k")).await;
    assert_eq!(answer, Claim::Done("done".into()));
}
