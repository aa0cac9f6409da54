//! What processes share.

use super::*;

#[tokio::test]
async fn processes_share_a_tier_and_clear_it_together() {
    let shop = Shop::new([ok(&[("vary", "x-a"), ("x-b", "1"), ("x-b", "2")], "hello")]).await;
    let tier = MemoryTier::new(1 << 20);
    let process = || {
        let memory = ResponseCache::builder().tier(tier.clone());
        let memory = memory.clock(Arc::new(shop.clock.clone())).build();
        let builder = shop.builder(|cache| {
            cache.ttl = Some(Duration::from_secs(60));
            cache.tags = Some(vec!["all".to_owned()]);
        });
        builder.cache(memory).build().unwrap()
    };
    let (one, two) = (process(), process());
    assert_eq!(get(&one, "/a").await.1, MISS);
    let response = two.get("/a").await.unwrap();
    assert_eq!(response.cache_status(), HIT);
    assert_eq!(response.headers().get_all("x-b").iter().count(), 2);
    assert_eq!(response.text().await.unwrap(), "hello");
    let varied = two.get("/a").header("x-a", "1").await.unwrap();
    assert_eq!(varied.cache_status(), MISS, "what it depends on went along");
    for clear in [
        Clear::from("GET /a"),
        Clear::Prefix("GET /".to_owned()),
        Clear::Tag("all".to_owned()),
        Clear::All,
    ] {
        get(&one, "/a").await;
        one.clear_cache(clear.clone()).await.unwrap();
        assert_eq!(get(&process(), "/a").await.1, MISS, "{clear:?}");
    }
    one.delete("/a").await.unwrap();
    assert_eq!(get(&process(), "/a").await.1, MISS, "changed");
}

/// A tier that does not answer, or fails.
#[derive(Clone, Copy)]
struct Broken {
    hangs: bool,
}

impl Broken {
    async fn fail<T>(self) -> Result<T> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "gone"))
    }
}

impl CacheTier for Broken {
    async fn get(&self, _: &str) -> Result<Option<Arc<[u8]>>> {
        self.fail().await
    }

    async fn put(&self, _: &str, _: TierEntry) -> Result<()> {
        self.fail().await
    }

    async fn remove(&self, _: &Selector) -> Result<u64> {
        self.fail().await
    }
}

#[tokio::test]
async fn calls_go_on_without_a_tier_that_fails() {
    for hangs in [false, true] {
        let shop = Shop::new([max_age(60, "hello")]).await;
        let memory = ResponseCache::builder().tier(Broken { hangs });
        let memory = memory.tier_timeout(Duration::from_millis(5));
        let memory = memory.clock(Arc::new(shop.clock.clone())).build();
        let client = shop.builder(|cache| cache.enabled = Some(true));
        let client = client.cache(memory).build().unwrap();
        assert_eq!(get(&client, "/a").await.1, MISS);
        assert_eq!(get(&client, "/a").await.1, HIT);
        client.delete("/a").await.unwrap();
        assert_eq!(get(&client, "/a").await.1, MISS, "cleared here");
        if !hangs {
            assert!(
                client.clear_cache(Clear::All).await.is_err(),
                "others were not told"
            );
            assert_eq!(get(&client, "/a").await.1, MISS);
        }
    }
}
