//! The suite of every resolver whose instances others announce.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_kubernetes::KubernetesRegistry;
use trunkline_testing::Scope;
use trunkline_testing::resolver::{OpenResolver, ResolverHarness};

use crate::world::{Cluster, config, shared};

struct Kubernetes;

impl ResolverHarness for Kubernetes {
    async fn open(&self, _: &Scope) -> Option<OpenResolver> {
        let url = shared().await?;
        let registry = KubernetesRegistry::new(&config(&url)).unwrap();
        let (closing, cluster) = (registry.clone(), Cluster::of(&url));
        let writing = cluster.clone();
        Some(OpenResolver::new(registry, cluster, async move || {
            let deadline = Instant::now() + Duration::from_secs(5);
            closing.shutdown(deadline).await;
            writing.end(deadline).await;
        }))
    }

    fn system(&self) -> &'static str {
        "kubernetes"
    }
}

mod kubernetes {
    trunkline_testing::resolver_conformance!(super::Kubernetes);
}
