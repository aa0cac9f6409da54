//! The suite of every resolver whose instances others announce.

use trunkline_testing::Scope;
use trunkline_testing::resolver::{OpenResolver, ResolverHarness};
use trunkline_testing::servers::{self, KNOT};

use crate::zone::{Zone, registry};

struct Dns;

impl ResolverHarness for Dns {
    async fn open(&self, _: &Scope) -> Option<OpenResolver> {
        let url = tokio::task::spawn_blocking(|| servers::shared(&KNOT));
        let url = url.await.unwrap()?;
        let server = url.split('/').nth(2).unwrap().parse().unwrap();
        let dns = registry(server);
        let closing = dns.clone();
        Some(OpenResolver::new(dns, Zone(server), async move || {
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
