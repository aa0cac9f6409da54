#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::disallowed_methods,
    missing_docs
)]
use std::time::Instant;
use trunkline_messaging::memory::*;
use trunkline_messaging::*;
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    for (name, batch, pubs, erased) in [
        ("single", 1usize, 1usize, true),
        ("single static", 1, 1, false),
        ("batch100", 100, 1, true),
        ("2 pubs batch100", 100, 2, true),
        ("64 pubs single", 1, 64, true),
    ] {
        let mb = MemoryBroker::default();
        let b: AnyBroker = mb.clone().erase();
        b.connect().await.unwrap();
        let t = TopicName::new("order.created").unwrap();
        let mut s = b
            .subscribe(
                Subscribe::topics(t.clone())
                    .with_group("g")
                    .with_prefetch(1000),
            )
            .await
            .unwrap();
        let n = 2_000_000usize;
        let payload = bytes::Bytes::from(vec![7u8; 256]);
        let st = Instant::now();
        let mut hs = vec![];
        for _ in 0..pubs {
            let b = b.clone();
            let mb = mb.clone();
            let t = t.clone();
            let payload = payload.clone();
            hs.push(tokio::spawn(async move {
                let per = n / pubs;
                let mut i = 0;
                while i < per {
                    if batch == 1 {
                        let p = Publish::new(
                            Destination::Topic(t.clone()),
                            Message::new(payload.clone()),
                        );
                        if erased {
                            b.publish(p).await.unwrap();
                        } else {
                            mb.publish(p).await.unwrap();
                        }
                        i += 1;
                        if i % 64 == 0 {
                            tokio::task::yield_now().await;
                        }
                    } else {
                        let v = (0..batch)
                            .map(|_| {
                                Publish::new(
                                    Destination::Topic(t.clone()),
                                    Message::new(payload.clone()),
                                )
                            })
                            .collect();
                        for r in b.publish_batch(v).await {
                            r.unwrap();
                        }
                        i += batch;
                        tokio::task::yield_now().await;
                    }
                }
            }));
        }
        let c = tokio::spawn(async move {
            for _ in 0..(n / pubs * pubs) {
                let d = s.next().await.unwrap();
                d.ack().await.unwrap();
            }
        });
        for h in hs {
            h.await.unwrap();
        }
        let pt = st.elapsed();
        c.await.unwrap();
        println!(
            "{name}: publish {:.0} k/s, end to end {:.0} k/s",
            n as f64 / pt.as_secs_f64() / 1e3,
            n as f64 / st.elapsed().as_secs_f64() / 1e3
        );
    }
    // publish only, single thread
    let mut c = MemoryConfig::default();
    c.max_messages = 10_000_000;
    c.max_bytes = trunkline_core::size::ByteSize::mib(8000);
    let b = MemoryBroker::new(c).unwrap();
    b.connect().await.unwrap();
    let t = TopicName::new("a").unwrap();
    let mut s = b
        .subscribe(
            Subscribe::topics(t.clone())
                .with_group("g")
                .with_prefetch(1000),
        )
        .await
        .unwrap();
    let n = 1_000_000;
    let st = Instant::now();
    let ms: Vec<_> = (0..n)
        .map(|_| {
            Publish::new(
                Destination::Topic(t.clone()),
                Message::new(bytes::Bytes::from_static(b"x")),
            )
        })
        .collect();
    println!("make {:.0} ns", st.elapsed().as_nanos() as f64 / n as f64);
    let st = Instant::now();
    for p in ms {
        b.publish(p).await.unwrap();
    }
    println!(
        "publish {:.0} ns",
        st.elapsed().as_nanos() as f64 / n as f64
    );
    let st = Instant::now();
    for _ in 0..n {
        let d = s.next().await.unwrap();
        d.ack().await.unwrap();
    }
    println!(
        "take+ack {:.0} ns",
        st.elapsed().as_nanos() as f64 / n as f64
    );
}
