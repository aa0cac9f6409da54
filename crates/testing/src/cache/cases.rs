//! Every case, as a plain function over two handles of any tier.
#![allow(clippy::missing_panics_doc, reason = "a case fails by panicking")]

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use trunkline_core::Result;
use trunkline_resilience::cache::{AnyCacheTier, CacheTier, Selector, TierEntry};

use crate::Scope;

const HOUR: Duration = Duration::from_secs(3600);

/// A key or tag that no other scope has; what is the scope's stands first, so that prefixes stay within it.
fn name(scope: &Scope, what: &str) -> String {
    format!("{}/{what}", scope.unique())
}

async fn done<T>(scope: &Scope, work: impl Future<Output = Result<T>>) -> T {
    let answer = scope.within("an answer", work).await;
    answer.unwrap_or_else(|error| panic!("{}: {}", scope.case(), error.report()))
}

async fn put(tier: &AnyCacheTier, scope: &Scope, key: &str, value: &str, tags: &[&str]) {
    let tags = tags.iter().map(|tag| name(scope, tag));
    let entry = TierEntry::new(value.as_bytes(), HOUR).with_tags(tags);
    done(scope, tier.put(&name(scope, key), entry)).await;
}

async fn get(tier: &AnyCacheTier, scope: &Scope, key: &str) -> Option<String> {
    let value = done(scope, tier.get(&name(scope, key))).await;
    value.map(|value| String::from_utf8_lossy(&value).into_owned())
}

async fn kept(tier: &AnyCacheTier, scope: &Scope, keys: &[&str]) -> Vec<bool> {
    let mut kept = Vec::new();
    for key in keys {
        kept.push(get(tier, scope, key).await.is_some());
    }
    kept
}

/// What is put is got, byte for byte, and nothing else is.
pub async fn what_is_put_is_got_as_it_was([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    assert_eq!(get(tier, scope, "a").await, None);
    put(tier, scope, "a", "one", &[]).await;
    assert_eq!(get(tier, scope, "a").await.as_deref(), Some("one"));
    assert_eq!(get(tier, scope, "A").await, None);
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let key = name(scope, "bytes");
    done(scope, tier.put(&key, TierEntry::new(bytes.clone(), HOUR))).await;
    assert_eq!(done(scope, tier.get(&key)).await.as_deref(), Some(&*bytes));
    put(tier, scope, "empty", "", &[]).await;
    assert_eq!(get(tier, scope, "empty").await.as_deref(), Some(""));
}

/// A second put leaves nothing of the first: neither its value nor its time nor its tags.
pub async fn a_later_put_replaces_value_time_and_tags(
    [tier, _]: &[AnyCacheTier; 2],
    scope: &Scope,
) {
    let key = name(scope, "a");
    let brief = TierEntry::new(*b"one", Duration::from_millis(300)).with_tags([name(scope, "old")]);
    done(scope, tier.put(&key, brief)).await;
    put(tier, scope, "a", "two", &["new"]).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(get(tier, scope, "a").await.as_deref(), Some("two"));
    done(scope, tier.remove(&Selector::Tag(name(scope, "old")))).await;
    assert_eq!(get(tier, scope, "a").await.as_deref(), Some("two"));
    done(scope, tier.remove(&Selector::Tag(name(scope, "new")))).await;
    assert_eq!(get(tier, scope, "a").await, None);
}

/// What has had its time is not returned.
pub async fn what_has_run_out_is_gone([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    let key = name(scope, "a");
    done(
        scope,
        tier.put(&key, TierEntry::new(*b"one", Duration::from_millis(200))),
    )
    .await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(get(tier, scope, "a").await, None);
}

/// Removing one key leaves those that only begin like it.
pub async fn one_key_is_removed_alone([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    for key in ["a", "ab", "b"] {
        put(tier, scope, key, key, &[]).await;
    }
    let chosen = Selector::Key(name(scope, "a"));
    assert_eq!(done(scope, tier.remove(&chosen)).await, 1);
    assert_eq!(
        kept(tier, scope, &["a", "ab", "b"]).await,
        [false, true, true]
    );
}

/// A prefix is text: what elsewhere stands for any letter stands for itself.
pub async fn a_prefix_removes_what_begins_so([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    let keys = ["p:1", "p:12", "q:1", "*", "p*1", "p?"];
    for key in keys {
        put(tier, scope, key, key, &[]).await;
    }
    done(scope, tier.remove(&Selector::Prefix(name(scope, "p*")))).await;
    assert_eq!(
        kept(tier, scope, &keys).await,
        [true, true, true, true, false, true]
    );
    let chosen = Selector::Prefix(name(scope, "p:1"));
    assert_eq!(done(scope, tier.remove(&chosen)).await, 2);
    assert_eq!(
        kept(tier, scope, &keys).await,
        [false, false, true, true, false, true]
    );
}

/// A tag takes all that have it, and what it took no longer counts.
pub async fn a_tag_removes_what_has_it([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    put(tier, scope, "a", "1", &["red", "round"]).await;
    put(tier, scope, "b", "2", &["red"]).await;
    put(tier, scope, "c", "3", &["round"]).await;
    put(tier, scope, "d", "4", &["redder"]).await;
    let chosen = Selector::Tag(name(scope, "red"));
    assert_eq!(done(scope, tier.remove(&chosen)).await, 2);
    assert_eq!(
        kept(tier, scope, &["a", "b", "c", "d"]).await,
        [false, false, true, true]
    );
    put(tier, scope, "a", "1", &[]).await;
    done(scope, tier.remove(&Selector::Tag(name(scope, "red")))).await;
    assert_eq!(kept(tier, scope, &["a"]).await, [true]);
}

/// Nothing to remove is nothing wrong.
pub async fn removing_nothing_is_no_error([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    for selector in [
        Selector::Key(name(scope, "none")),
        Selector::Prefix(name(scope, "none")),
        Selector::Tag(name(scope, "none")),
    ] {
        assert_eq!(done(scope, tier.remove(&selector)).await, 0, "{selector:?}");
    }
}

/// Two handles see the same, removals included.
pub async fn handles_share_what_is_kept([one, two]: &[AnyCacheTier; 2], scope: &Scope) {
    put(one, scope, "a", "one", &["t"]).await;
    assert_eq!(get(two, scope, "a").await.as_deref(), Some("one"));
    put(two, scope, "a", "two", &["t"]).await;
    assert_eq!(get(one, scope, "a").await.as_deref(), Some("two"));
    done(scope, two.remove(&Selector::Tag(name(scope, "t")))).await;
    assert_eq!(get(one, scope, "a").await, None);
}

/// Keys and tags are any text.
pub async fn odd_keys_tags_and_values_are_kept([tier, _]: &[AnyCacheTier; 2], scope: &Scope) {
    let long = "x".repeat(2000);
    for odd in ["", " ", "a\nb", "a\0b", "[a-z]", "\\", "ключ", "{a}", &long] {
        put(tier, scope, odd, odd, &[odd]).await;
        assert_eq!(get(tier, scope, odd).await.as_deref(), Some(odd), "{odd:?}");
        let chosen = Selector::Tag(name(scope, odd));
        assert_eq!(done(scope, tier.remove(&chosen)).await, 1, "{odd:?}");
    }
}

/// Those who put and get at once get what was put under their key.
pub async fn many_at_once_do_not_mix(tiers: &[AnyCacheTier; 2], scope: &Scope) {
    let work = (0..200).map(|number| {
        let tier = &tiers[number % 2];
        async move {
            let text = format!("{number}");
            put(tier, scope, &text, &text, &["all"]).await;
            get(tier, scope, &text).await == Some(text)
        }
    });
    assert!(join_all(work).await.into_iter().all(|right| right));
    let chosen = Selector::Tag(name(scope, "all"));
    assert_eq!(done(scope, tiers[0].remove(&chosen)).await, 200);
}

/// A put that is given up has put all of it or nothing, and the tier goes on.
pub async fn what_is_dropped_midway_leaves_all_or_nothing(
    [tier, other]: &[AnyCacheTier; 2],
    scope: &Scope,
) {
    let key = name(scope, "a");
    for _ in 0..20 {
        let entry = TierEntry::new(vec![7; 50_000], HOUR).with_tags([name(scope, "t")]);
        // One poll, then dropped.
        drop(tier.put(&key, entry).now_or_never());
        let value = done(scope, other.get(&key)).await;
        assert!(value.is_none_or(|value| value.len() == 50_000));
        drop(tier.get(&key).now_or_never());
    }
    put(tier, scope, "b", "still there", &[]).await;
    assert_eq!(get(other, scope, "b").await.as_deref(), Some("still there"));
}
