//! Addresses of both families, of which one cannot be asked for.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::UdpSocket;
use trunkline_discovery::{Resolver, ServiceName};
use trunkline_dns::{DnsConfig, DnsRegistry};
use trunkline_testing::servers::knot::{Change, Data};
use trunkline_testing::servers::{self, KNOT};

use crate::zone::{a, below_zone, quick, update};

const AAAA: u16 = 28;

/// Passes questions on, and answers those about one kind of records by a failure.
struct Failing {
    address: SocketAddr,
    kind: Arc<AtomicU16>,
    passing: tokio::task::JoinHandle<()>,
}

impl Failing {
    async fn before(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let kind = Arc::<AtomicU16>::default();
        let fails = Arc::clone(&kind);
        let passing = trunkline_core::task::spawn("failing DNS", async move {
            let mut piece = [0; 4096];
            loop {
                let (length, client) = socket.recv_from(&mut piece).await.unwrap();
                let question = &piece[..length];
                let answer = if kind_of(question) == fails.load(Ordering::SeqCst) {
                    let mut answer = question.to_vec();
                    answer[2] |= 0x80;
                    // The server failed.
                    answer[3] = 2;
                    answer
                } else {
                    let passed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    passed.send_to(question, server).await.unwrap();
                    let mut answer = vec![0; 4096];
                    let length = passed.recv(&mut answer).await.unwrap();
                    answer.truncate(length);
                    answer
                };
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        Self {
            address,
            kind,
            passing,
        }
    }

    fn fail(&self, kind: u16) {
        self.kind.store(kind, Ordering::SeqCst);
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.passing.abort();
    }
}

/// What kind of records a question is about.
fn kind_of(question: &[u8]) -> u16 {
    let mut at = 12;
    while question[at] > 0 {
        at += usize::from(question[at]) + 1;
    }
    u16::from_be_bytes([question[at + 1], question[at + 2]])
}

async fn hosts(dns: &DnsRegistry, service: &ServiceName) -> Vec<String> {
    let list = dns.resolve(service).await.unwrap();
    let mut hosts: Vec<String> = list.instances.into_iter().map(|it| it.host).collect();
    hosts.sort();
    hosts
}

#[tokio::test]
async fn one_family_that_fails_takes_the_other_one_not_out() {
    let url = tokio::task::spawn_blocking(|| servers::shared(&KNOT));
    let Some(url) = url.await.unwrap() else {
        return;
    };
    let server = url.split('/').nth(2).unwrap().parse().unwrap();
    let users = ServiceName::new(format!("users-{}", trunkline_core::Id::new())).unwrap();
    let name = below_zone(users.as_str());
    let sixth = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let aaaa = || Change::Add(name.clone(), 1, Data::Aaaa(sixth));
    update(server, vec![a(&name, [10, 0, 0, 1]), aaaa()]).await;
    let failing = Failing::before(server).await;
    let config = quick(
        failing.address,
        DnsConfig::addresses(below_zone("{service}"), 8080),
    );
    let dns = DnsRegistry::new(&config).unwrap();
    let both = hosts(&dns, &users).await;
    assert_eq!(both.len(), 2, "{both:?}");

    failing.fail(AAAA);
    let changes = vec![Change::Clear(name.clone()), a(&name, [10, 0, 0, 2]), aaaa()];
    update(server, changes).await;
    let now = hosts(&dns, &users).await;
    assert_eq!(now.len(), 2, "what was known of the one stays: {now:?}");
    assert!(now.contains(&"10.0.0.2".to_owned()), "{now:?}");
    // Who never knew has what there is.
    let new = DnsRegistry::new(&config).unwrap();
    assert_eq!(hosts(&new, &users).await, ["10.0.0.2"]);
    // The one that can be asked has none: nobody knows whether there is any.
    update(server, vec![Change::Clear(name.clone()), aaaa()]).await;
    new.resolve(&users).await.unwrap_err();
    dns.close();
    new.close();
}
