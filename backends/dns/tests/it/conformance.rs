//! The suite of every resolver whose instances others announce.

use std::time::Duration;

use trunkline_dns::DnsRegistry;
use trunkline_testing::Scope;
use trunkline_testing::faults::Relay;
use trunkline_testing::resolver::{OpenResolver, ResolverHarness};
use trunkline_testing::servers::{self, KNOT};

use crate::zone::{Zone, config};

struct Dns;

impl ResolverHarness for Dns {
    async fn open(&self, _: &Scope) -> Option<OpenResolver> {
        let url = tokio::task::spawn_blocking(|| servers::shared(&KNOT));
        let url = url.await.unwrap()?;
        let server = url.split('/').nth(2).unwrap().parse().unwrap();
        let way = Relay::with_datagrams(server).unwrap();
        let mut settings = config(way.address());
        // A question that nobody answers is one that failed soon.
        settings.request_timeout = Duration::from_secs(2);
        let dns = DnsRegistry::new(&settings).unwrap();
        let closing = dns.clone();
        Some(OpenResolver::new(dns, Zone(server), way, async move || {
            closing.close()
        }))
    }

    fn lists_services(&self) -> bool {
        false
    }

    fn system(&self) -> &'static str {
        "knot"
    }
}

mod dns {
    trunkline_testing::resolver_conformance!(super::Dns);
}
