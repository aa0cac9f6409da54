//! Finding instances.

use std::time::Duration;

use trunkline_core::Result;
use trunkline_discovery::{InstanceList, InstanceWatch, Resolver, ServiceName};

use crate::registry::{ConsulRegistry, KIND};
use crate::watch;

impl Resolver for ConsulRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        let shared = self.shared();
        let seen = shared
            .asking
            .service(&shared.agent, service, 0, Duration::ZERO)
            .await;
        Ok(seen.map_err(|error| error.with_operation("resolve"))?.list)
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let shared = self.shared();
        let names = shared.asking.names(&shared.agent).await;
        names.map_err(|error| error.with_operation("services"))
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.shared().agent.check_open()?;
        Ok(watch::watch(self.shared(), service))
    }
}
