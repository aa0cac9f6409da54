//! Those who ask for the same at once.

use super::*;

/// A server whose answers wait until they may go.
async fn gate(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Shop, Arc<Semaphore>) {
    let (gate, number) = (Arc::new(Semaphore::new(0)), AtomicUsize::new(0));
    let clock = whole_seconds();
    let (open, answer) = (Arc::clone(&gate), Arc::new((answer, number)));
    let server = Server::start(move |_| {
        let (gate, answer) = (Arc::clone(&open), Arc::clone(&answer));
        async move {
            let number = answer.1.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            let (status, headers, body) = (answer.0)(number);
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Full::new(Bytes::from(body))).unwrap()
        }
    })
    .await;
    let shop = Shop {
        server,
        clock,
        seen: Arc::default(),
    };
    (shop, gate)
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_a_change_is_not_kept_after_it() {
    for clear in [false, true] {
        let (shop, gate) = gate(|number| max_age(60, &number.to_string())).await;
        let client = shop.client(|cache| cache.enabled = Some(true));
        gate.add_permits(1);
        get(&client, "/other").await;
        let early = spawn({
            let client = client.clone();
            async move { get(&client, "/a").await }
        });
        crate::rig::eventually("the first is there", || shop.requests() == 2).await;
        if clear {
            client
                .clear_cache(Clear::Prefix("GET /a".to_owned()))
                .await
                .unwrap();
        } else {
            let change = client.delete("/a").send();
            gate.add_permits(2);
            // Which of the two the gate lets through first does not matter: both are through before it is looked.
            in_time(change).await.unwrap();
        }
        gate.add_permits(2);
        let (body, _) = in_time(early).await.unwrap();
        let (after, status) = get(&client, "/a").await;
        assert!(
            status == MISS || clear && after != body || status == HIT && !clear,
            "{status:?}"
        );
        if clear {
            assert_ne!(after, body, "what was asked for before is not kept");
        }
    }
}

#[tokio::test]
async fn those_who_ask_together_make_one_call() {
    let (shop, gate) = gate(|_| max_age(60, "hello")).await;
    let client = shop.client(|cache| cache.enabled = Some(true));
    let ask = || {
        spawn({
            let client = client.clone();
            async move { get(&client, "/a").await }
        })
    };
    let all: Vec<_> = (0..20).map(|_| ask()).collect();
    crate::rig::eventually("one has asked", || shop.requests() == 1).await;
    gate.add_permits(100);
    let mut missed = 0;
    for one in all {
        let (body, status) = in_time(one).await.unwrap();
        assert_eq!(body, "hello");
        missed += usize::from(status == MISS);
    }
    assert_eq!((missed, shop.requests()), (1, 1));
}

#[tokio::test]
async fn who_gives_up_hands_the_call_over() {
    let (shop, gate) = gate(|_| max_age(60, "hello")).await;
    let client = shop.client(|cache| cache.enabled = Some(true));
    let ask = || {
        spawn({
            let client = client.clone();
            async move { get(&client, "/a").await }
        })
    };
    let leader = ask();
    crate::rig::eventually("one has asked", || shop.requests() == 1).await;
    let followers: Vec<_> = (0..5).map(|_| ask()).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    crate::rig::eventually("the next has asked", || shop.requests() == 2).await;
    gate.add_permits(100);
    for one in followers {
        assert_eq!(in_time(one).await.unwrap().0, "hello");
    }
    assert_eq!(shop.requests(), 2);
}

#[tokio::test]
async fn a_failure_is_that_of_those_who_waited_and_of_nobody_else() {
    let (shop, gate) = gate(|number| match number {
        0 => (503, Vec::new(), "busy".to_owned()),
        _ => max_age(60, "hello"),
    })
    .await;
    let client = shop.client(|cache| cache.enabled = Some(true));
    let ask = || {
        spawn({
            let client = client.clone();
            async move { client.get("/a").await.unwrap().status().as_u16() }
        })
    };
    let all: Vec<_> = (0..5).map(|_| ask()).collect();
    crate::rig::eventually("one has asked", || shop.requests() == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(100);
    for one in all {
        assert_eq!(in_time(one).await.unwrap(), 503);
    }
    assert_eq!(shop.requests(), 1);
    assert_eq!(get(&client, "/a").await, ("hello".to_owned(), MISS));
}

#[tokio::test]
async fn what_cannot_be_shared_is_asked_for_by_each_at_once() {
    let (shop, gate) =
        gate(|number| ok(&[("cache-control", "no-store")], &number.to_string())).await;
    let client = shop.client(|cache| cache.enabled = Some(true));
    let ask = || {
        spawn({
            let client = client.clone();
            async move { get(&client, "/a").await.0 }
        })
    };
    let first = ask();
    crate::rig::eventually("one has asked", || shop.requests() == 1).await;
    let others: Vec<_> = (0..3).map(|_| ask()).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    let mut bodies = vec![in_time(first).await.unwrap()];
    // All at once, not one behind the other: nothing has been answered to them yet.
    crate::rig::eventually("all have asked", || shop.requests() == 4).await;
    gate.add_permits(100);
    for one in others {
        bodies.push(in_time(one).await.unwrap());
    }
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), 4, "nobody has the answer of another");
}
