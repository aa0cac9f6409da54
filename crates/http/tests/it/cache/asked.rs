//! What is kept for a time that the caller gives.

use super::*;

#[tokio::test]
async fn a_ttl_keeps_what_says_nothing_and_clears_by_key_prefix_and_tag() {
    let shop = Shop::with(|request| ok(&[], &request.uri().to_string())).await;
    let client = shop
        .builder(|_| {})
        .cache(shop.memory())
        .endpoint("GET /products/{product_id}", {
            let mut config = trunkline_http::EndpointConfig::default();
            config.cache.ttl = Some(Duration::from_secs(600));
            config.cache.key = Some("product:{product_id}".to_owned());
            config.cache.tags = Some(vec!["products".to_owned(), "of:{product_id}".to_owned()]);
            config
        })
        .build()
        .unwrap();
    let warm = async || {
        for path in ["/products/1", "/products/12", "/products/123"] {
            get(&client, path).await;
            assert_eq!(get(&client, path).await.1, HIT);
        }
    };
    warm().await;
    assert_eq!(
        get(&client, "/products/1?x=2").await.1,
        HIT,
        "the key says what matters"
    );
    assert_eq!(get(&client, "/users/1").await.1, None);
    shop.after(599);
    assert_eq!(get(&client, "/products/1").await.1, HIT);
    shop.after(1);
    assert_eq!(get(&client, "/products/1").await.1, MISS);

    for (clear, left) in [
        (Clear::from("product:12"), [HIT, MISS, HIT]),
        (Clear::Prefix("product:12".to_owned()), [HIT, MISS, MISS]),
        (Clear::Tag("of:123".to_owned()), [HIT, HIT, MISS]),
        (Clear::Tag("products".to_owned()), [MISS, MISS, MISS]),
        (Clear::All, [MISS, MISS, MISS]),
        (Clear::from("product:"), [HIT, HIT, HIT]),
    ] {
        warm().await;
        let cleared = client.clear_cache(clear.clone()).await.unwrap();
        let misses = left.iter().filter(|status| **status == MISS).count();
        assert_eq!(usize::try_from(cleared).unwrap(), misses, "{clear:?}");
        for (path, left) in ["/products/1", "/products/12", "/products/123"]
            .iter()
            .zip(left)
        {
            assert_eq!(get(&client, path).await.1, left, "{clear:?} {path}");
        }
    }
}

#[tokio::test]
async fn only_what_it_varies_on_makes_a_difference() {
    let shop = Shop::with(|request| ok(&[], request.uri().query().unwrap_or_default())).await;
    let client = shop.client(|cache| {
        cache.ttl = Some(Duration::from_secs(300));
        cache.vary_on = Some(vec!["category".to_owned(), "limit".to_owned()]);
    });
    assert_eq!(
        get(&client, "/products?category=a&limit=1&trace=1").await.1,
        MISS
    );
    assert_eq!(
        get(&client, "/products?trace=2&limit=1&category=a").await.1,
        HIT
    );
    assert_eq!(get(&client, "/products?category=b&limit=1").await.1, MISS);
    assert_eq!(
        get(&client, "/products?category=a%26limit%3D1").await.1,
        MISS
    );
    assert_eq!(get(&client, "/products?category=a").await.1, MISS);
}

#[tokio::test]
async fn a_key_without_one_of_its_parts_keeps_nothing() {
    let shop = Shop::new([ok(&[], "hello")]).await;
    let client = shop.client(|cache| {
        cache.ttl = Some(Duration::from_secs(300));
        cache.key = Some("product:{prduct_id}".to_owned());
    });
    for path in ["/products/1", "/products/1", "/products/2"] {
        assert_eq!(get(&client, path).await.1, None);
    }
    assert_eq!(shop.requests(), 3);
}

///
#[tokio::test]
async fn x_36_errors_are_kept_where_asked_and_briefly() {
    let minutes = Duration::from_secs(600);
    for (status, on_error, kept) in [
        (404, false, false),
        (404, true, true),
        (500, true, true),
        (401, true, false),
        (403, true, false),
        (429, true, false),
        (302, true, false),
    ] {
        let shop = Shop::new([(status, Vec::new(), String::new())]).await;
        let client = shop.client(|cache| {
            cache.ttl = Some(minutes);
            cache.cache_on_error = Some(on_error);
        });
        get(&client, "/a").await;
        shop.after(9);
        let second = get(&client, "/a").await.1;
        assert_eq!(second == HIT, kept, "{status} {on_error}");
        shop.after(1);
        assert_ne!(get(&client, "/a").await.1, HIT, "{status}");
    }
}

#[tokio::test]
async fn a_call_has_the_last_word() {
    let next = AtomicUsize::new(1);
    let shop = Shop::with(move |_| ok(&[], &next.fetch_add(1, Ordering::SeqCst).to_string())).await;
    let client = shop.client(|_| {});
    let five = Duration::from_secs(300);
    let ask = |refresh: bool| {
        let request = client
            .get("/a")
            .cache_ttl(five)
            .cache_key("product:123")
            .cache_tag("t");
        if refresh {
            request.force_refresh()
        } else {
            request
        }
    };
    let text = async |request: trunkline_http::RequestBuilder<'_>| {
        request.await.unwrap().text().await.unwrap()
    };
    assert_eq!(text(ask(false)).await, "1");
    assert_eq!(text(ask(false)).await, "1");
    assert_eq!(text(ask(true)).await, "2", "asked anew");
    assert_eq!(text(ask(false)).await, "2", "and kept");
    assert_eq!(text(ask(false).no_cache()).await, "3");
    assert_eq!(text(ask(false)).await, "2");
    client.clear_cache("product:123").await.unwrap();
    assert_eq!(text(ask(false)).await, "4");
    client
        .clear_cache(Clear::Tag("t".to_owned()))
        .await
        .unwrap();
    assert_eq!(text(ask(false)).await, "5");
}

#[tokio::test]
async fn no_store_wins_over_a_ttl_unless_told_otherwise() {
    let never = ok(&[("cache-control", "no-store")], "hello");
    let shop = Shop::new([never]).await;
    for (respect, second) in [(None, MISS), (Some(true), MISS), (Some(false), HIT)] {
        let client = shop.client(|cache| {
            cache.ttl = Some(Duration::from_secs(60));
            cache.respect_no_store = respect;
        });
        get(&client, "/a").await;
        assert_eq!(get(&client, "/a").await.1, second, "{respect:?}");
    }
}

/// Servers forget to say `Vary`: who asks is told by headers that nobody knows beforehand.
#[tokio::test]
async fn callers_that_a_header_of_their_own_tells_apart_share_no_answer() {
    let whose = |request: &Request<Incoming>| {
        let header = |name| {
            request
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        let tenant = header("x-tenant")
            .or(header("x-auth-token"))
            .unwrap_or("nobody");
        ok(&[("cache-control", "max-age=60")], tenant)
    };
    let shop = Shop::with(whose).await;
    let unasked = shop.client(|_| {});
    let for_a_time = shop.client(|cache| cache.ttl = Some(Duration::from_secs(60)));
    let by_key = shop.client(|cache| {
        cache.ttl = Some(Duration::from_secs(60));
        cache.key = Some("list".to_owned());
    });
    for client in [unasked, for_a_time, by_key] {
        for name in ["x-tenant", "x-auth-token"] {
            for status in [MISS, HIT] {
                for who in ["alice", "bob"] {
                    let response = client.get("/a").header(name, who).await.unwrap();
                    assert_eq!(response.cache_status(), status, "{name} {who}");
                    assert_eq!(response.text().await.unwrap(), who, "{name}");
                }
            }
        }
    }
    // Who has named what an answer depends on has named it all.
    let chosen = shop.client(|cache| {
        cache.ttl = Some(Duration::from_secs(60));
        cache.vary_on = Some(vec!["header:x-tenant".to_owned()]);
    });
    for (tenant, nonce, status) in [("a", "1", MISS), ("a", "2", HIT), ("b", "2", MISS)] {
        let request = client_with_nonce(&chosen, tenant, nonce).await;
        assert_eq!(request, (tenant.to_owned(), status), "{nonce}");
    }
}

async fn client_with_nonce(
    client: &EnhancedHttpClient,
    tenant: &str,
    nonce: &str,
) -> (String, Option<CacheStatus>) {
    let request = client.get("/a").header("x-tenant", tenant);
    let response = request.header("x-nonce", nonce).await.unwrap();
    let status = response.cache_status();
    (response.text().await.unwrap(), status)
}

#[tokio::test]
async fn versions_of_a_service_have_answers_of_their_own() {
    use trunkline_resilience::versions::VersionPlace;
    for by in [
        VersionPlace::Header,
        VersionPlace::Query,
        VersionPlace::Path,
    ] {
        let shop = Shop::with(|request| {
            let header = request.headers().get("api-version");
            let header = header.map_or("none", |value| value.to_str().unwrap());
            ok(&[], &format!("{header} {}", request.uri()))
        })
        .await;
        let mut config = HttpClientConfig::new(shop.server.url());
        config.versions.order = Some(vec!["2".to_owned(), "1".to_owned()]);
        config.versions.by = Some(by);
        config.versions.name = (by != VersionPlace::Path).then(|| "api-version".to_owned());
        config.cache.ttl = Some(Duration::from_secs(60));
        config.cache.key = Some("a".to_owned());
        let client = EnhancedHttpClient::builder().config(config);
        let client = client.cache(shop.memory()).build().unwrap();
        let mut answers = Vec::new();
        for status in [MISS, HIT] {
            for version in ["1", "2"] {
                let response = client.get("/a").version(version).await.unwrap();
                assert_eq!(response.cache_status(), status, "{by:?} {version}");
                answers.push(response.text().await.unwrap());
            }
        }
        assert_ne!(answers[0], answers[1]);
        assert_eq!(answers[..2], answers[2..]);
        assert_eq!(client.clear_cache("a").await.unwrap(), 2, "one key, both");
    }
}

#[tokio::test]
async fn who_adds_to_attempts_says_for_how_long_answers_are_kept() {
    let shop = Shop::new([max_age(60, "hello")]).await;
    let minute = Some(Duration::from_secs(60));
    for (enabled, ttl, second) in [
        (None, None, None),
        (Some(true), None, None),
        (None, minute, HIT),
    ] {
        let client = shop.client(|cache| {
            cache.enabled = enabled;
            cache.ttl = ttl;
        });
        let client = client.attempt_middleware(async |mut request: ServiceRequest, next: Next| {
            request.bearer("somebody's")?;
            next.run(request).await
        });
        get(&client, "/a").await;
        assert_eq!(get(&client, "/a").await.1, second, "{enabled:?} {ttl:?}");
    }
}

#[tokio::test]
async fn who_changes_something_clears_it_though_it_asks_for_no_cache_itself() {
    let shop = Shop::new([max_age(60, "hello")]).await;
    let client = shop.client(|cache| cache.ttl = None);
    get(&client, "/a").await;
    assert_eq!(get(&client, "/a").await.1, HIT);
    in_time(client.put("/a").no_cache().send()).await.unwrap();
    assert_eq!(get(&client, "/a").await.1, MISS, "after no_cache()");
    let mut config = HttpClientConfig::new(shop.server.url());
    config.cache.enabled = Some(false);
    let quiet = EnhancedHttpClient::builder()
        .config(config)
        .service("shop")
        .cache(client.cache().unwrap().clone())
        .build()
        .unwrap();
    assert_eq!(get(&client, "/a").await.1, HIT);
    in_time(quiet.put("/a").send()).await.unwrap();
    assert_eq!(
        get(&client, "/a").await.1,
        MISS,
        "without a cache of its own"
    );
}
