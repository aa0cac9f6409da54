//! What is past its time, and what has no room.

use super::*;

#[tokio::test]
async fn what_is_stale_is_used_while_a_new_one_comes() {
    let words = "max-age=10, stale-while-revalidate=30";
    let answer = |body| ok(&[("cache-control", words)], body);
    let shop = Shop::new([answer("one"), answer("two")]).await;
    let client = shop.client(|_| {});
    get(&client, "/a").await;
    shop.after(20);
    assert_eq!(get(&client, "/a").await, ("one".to_owned(), STALE));
    crate::rig::eventually("it was renewed", || shop.requests() == 2).await;
    in_time(async {
        while Box::pin(get(&client, "/a")).await != ("two".to_owned(), HIT) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(shop.requests(), 2, "once, however many asked");
    shop.after(41);
    assert_eq!(get(&client, "/a").await.1, MISS, "too old");
}

#[tokio::test]
async fn what_is_stale_stands_in_for_a_failure_for_as_long_as_it_may() {
    let failed = (503, Vec::new(), String::new());
    for (words, configured, after, stale) in [
        ("max-age=10, stale-if-error=60", None, 69, true),
        ("max-age=10, stale-if-error=60", None, 70, false),
        ("max-age=10", None, 11, false),
        ("max-age=10", Some(60), 69, true),
        ("max-age=10, must-revalidate", Some(60), 11, false),
        ("max-age=10, no-cache, stale-if-error=60", None, 1, false),
    ] {
        let first = ok(&[("cache-control", words), ("etag", "\"a\"")], "one");
        let shop = Shop::new([first, failed.clone()]).await;
        let client = shop.client(|cache| {
            cache.stale_if_error = configured.map(Duration::from_secs);
        });
        get(&client, "/a").await;
        shop.after(after);
        let response = client.get("/a").await.unwrap();
        assert_eq!(response.cache_status() == STALE, stale, "{words} {after}");
        assert_eq!(response.status(), if stale { 200 } else { 503 });
        shop.server.stop().await;
        let gone = client.get("/a").await;
        assert_eq!(gone.is_ok(), stale, "no answer at all");
    }
}

#[tokio::test]
async fn a_fallback_takes_the_last_known_answer() {
    let shop = Shop::new([max_age(1, "one"), (500, Vec::new(), String::new())]).await;
    let mut config = HttpClientConfig::new(shop.server.url());
    config.retry.enabled = Some(false);
    config.fallback.cache = Some(true);
    config.fallback.value = Some(serde_json::json!("nothing"));
    let client = EnhancedHttpClient::builder()
        .config(config)
        .cache(shop.memory());
    let client = client.build().unwrap();
    get(&client, "/a").await;
    shop.after(100_000);
    let response = client.get("/a").await.unwrap();
    assert_eq!(response.fallback(), Some(Fallback::Cache));
    assert_eq!(response.text().await.unwrap(), "one");
    let other = client.get("/b").await.unwrap();
    assert_eq!(
        other.fallback(),
        Some(Fallback::Value),
        "nothing is known of it"
    );
    shop.server.stop().await;
    assert_eq!(
        client.get("/a").await.unwrap().fallback(),
        Some(Fallback::Cache)
    );
}

#[tokio::test]
async fn memory_is_bounded_and_measured() {
    let body = "x".repeat(10_000);
    let shop = Shop::new([max_age(60, &body)]).await;
    let metrics = Metrics::new();
    let memory = ResponseCache::builder()
        .max_size(ByteSize::kib(256))
        .clock(Arc::new(shop.clock.clone()))
        .metrics(&metrics)
        .build();
    let client = shop.builder(|_| {}).metrics(&metrics).cache(memory.clone());
    let client = client.build().unwrap();
    for number in 0..100 {
        get(&client, &format!("/{number}")).await;
    }
    get(&client, "/99").await;
    let stats = memory.stats();
    assert!(stats.bytes <= 256 * 1024, "{stats:?}");
    assert!(stats.entries >= 10 && stats.evictions >= 60, "{stats:?}");
    let text = metrics.render(Format::Prometheus).unwrap();
    for line in [
        "trunkline_http_cache_requests_total{service=\"shop\",outcome=\"miss\"} 100".to_owned(),
        "trunkline_http_cache_requests_total{service=\"shop\",outcome=\"hit\"} 1".to_owned(),
        format!("trunkline_http_cache_evictions_total {}", stats.evictions),
        format!("trunkline_http_cache_bytes {}", stats.bytes),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn a_large_answer_passes_and_one_just_within_the_limit_is_kept() {
    let shop = Shop::with(|request| {
        let length = request.uri().path().trim_start_matches('/');
        let length: usize = length.parse().unwrap();
        max_age(60, &"x".repeat(length))
    })
    .await;
    let client = shop.client(|_| {});
    for (length, second) in [(1 << 20, HIT), ((1 << 20) + 1, MISS)] {
        let path = format!("/{length}");
        get(&client, &path).await;
        let (body, status) = get(&client, &path).await;
        assert_eq!((body.len(), status), (length, second));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_kept() {
    let server = Server::scripted(|number, mut raw| async move {
        raw.request().await;
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\n";
        raw.write(head).await;
        raw.write(if number == 0 { "half" } else { "0123456789" })
            .await;
        if number > 0 {
            raw.until_closed().await;
        }
    })
    .await;
    let client = crate::rig::enhanced(server.url());
    let response = client.get("/a").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    assert_eq!(get(&client, "/a").await.0, "0123456789");
    assert_eq!(get(&client, "/a").await, ("0123456789".to_owned(), HIT));
}

#[tokio::test]
async fn a_question_about_the_head_is_answered_by_what_get_got() {
    let shop = Shop::new([max_age(60, "hello")]).await;
    let client = shop.client(|_| {});
    get(&client, "/a").await;
    let head = client.request(Method::HEAD, "/a").await.unwrap();
    assert_eq!(
        (head.cache_status(), head.header("content-length")),
        (HIT, Some("5"))
    );
    assert_eq!(head.text().await.unwrap(), "");
    let other = client.request(Method::HEAD, "/b").await.unwrap();
    assert_eq!(other.status(), 200);
    assert_eq!(
        get(&client, "/b").await,
        ("hello".to_owned(), MISS),
        "a head is no answer"
    );
}

#[tokio::test]
async fn a_huge_age_breaks_nothing() {
    let age = ("age", "18446744073709551615");
    let shop = Shop::new([ok(&[("cache-control", "max-age=60"), age], "hello")]).await;
    let client = shop.client(|_| {});
    for _ in 0..2 {
        assert_eq!(get(&client, "/a").await, ("hello".to_owned(), MISS));
    }
}

#[tokio::test]
async fn what_is_stale_stands_in_for_an_answer_that_breaks_off() {
    let server = Server::scripted(|number, mut raw| async move {
        raw.request().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=0, stale-if-error=60\r\n";
        let body = match number {
            0 => "content-length: 3\r\n\r\none",
            _ => "content-length: 9\r\n\r\ntwo",
        };
        raw.write(format!("{head}connection: close\r\n{body}"))
            .await;
    })
    .await;
    let mut config = HttpClientConfig::new(server.url());
    config.retry.enabled = Some(false);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    get(&client, "/a").await;
    assert_eq!(get(&client, "/a").await, ("one".to_owned(), STALE));
    assert_eq!(server.count.requests(), 2);
}
