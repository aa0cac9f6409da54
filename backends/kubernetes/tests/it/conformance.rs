//! The suite of every resolver whose instances others announce.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_kubernetes::KubernetesRegistry;
use trunkline_testing::Scope;
use trunkline_testing::faults::Relay;
use trunkline_testing::resolver::{OpenResolver, ResolverHarness};

use crate::world::{Cluster, config, shared};

struct Kubernetes;

impl ResolverHarness for Kubernetes {
    async fn open(&self, _: &Scope) -> Option<OpenResolver> {
        let url = shared().await?;
        let server = url.split('@').nth(1)?.split('/').next()?.to_owned();
        let way = Relay::to(server.parse().unwrap()).unwrap();
        let through = url.replace(&server, &way.address().to_string());
        let registry = KubernetesRegistry::new(&config(&through)).unwrap();
        let (closing, cluster) = (registry.clone(), Cluster::of(&url));
        let writing = cluster.clone();
        let close = async move || {
            let deadline = Instant::now() + Duration::from_secs(5);
            closing.shutdown(deadline).await;
            writing.end(deadline).await;
        };
        Some(OpenResolver::new(registry, cluster, way, close))
    }

    fn system(&self) -> &'static str {
        "kubernetes"
    }
}

mod kubernetes {
    trunkline_testing::resolver_conformance!(super::Kubernetes);
}
