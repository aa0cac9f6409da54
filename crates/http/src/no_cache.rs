//! In place of the cache, in a build without the feature `cache`.

use std::convert::Infallible;
use std::sync::Arc;

use http::Response;
use trunkline_core::Result;
use trunkline_resilience::EffectivePolicy;
use trunkline_telemetry::Metrics;

use crate::body::Body;
use crate::client::{Core, Endpoint, Outgoing, Trip};
use crate::transport::Reply;

pub(crate) type ResponseCache = Infallible;
pub(crate) type Plan = Infallible;

#[derive(Debug)]
pub(crate) struct ClientCache;

#[derive(Debug, Default)]
pub(crate) struct EndpointCache {}

impl ClientCache {
    pub(crate) fn new(_: Option<ResponseCache>, _: bool, _: &str, _: &Metrics) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "as the cache has it")]
    pub(crate) fn belongs_to(&self, _: &Arc<Core>) {}

    #[expect(clippy::unused_self, reason = "as the cache has it")]
    pub(crate) fn watches_since(&self, plan: Option<&Plan>) -> Option<u64> {
        match *plan? {}
    }

    #[expect(clippy::unused_self, reason = "as the cache has it")]
    pub(crate) fn plan(
        &self,
        _: &Core,
        _: &Endpoint,
        _: &Arc<EffectivePolicy>,
        _: &Outgoing<'_>,
    ) -> Option<Plan> {
        None
    }
}

impl Core {
    #[expect(clippy::unused_async, reason = "as the cache has it")]
    pub(crate) async fn through_cache(
        &self,
        plan: &Plan,
        _: &Trip<'_>,
        _: trunkline_resilience::Call,
    ) -> Result<Reply> {
        match *plan {}
    }

    #[expect(clippy::unused_async, reason = "as the cache has it")]
    pub(crate) async fn watched(
        &self,
        _: &Trip<'_>,
        _: trunkline_resilience::Call,
        result: Result<Reply>,
        _: u64,
    ) -> Result<Reply> {
        result
    }

    pub(crate) fn last_known(&self, _: Option<&Plan>, _: &Trip<'_>) -> Option<Reply> {
        None
    }
}
