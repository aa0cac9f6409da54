//! The health document as a metric.

use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use trunkline_core::{Health, Status};

/// Reads the health when the metrics are read, so that nobody has to keep two places in step.
#[derive(Clone, Debug, Default)]
pub(super) struct ComponentHealth(Arc<OnceLock<Health>>);

impl ComponentHealth {
    pub(super) fn set(&self, health: &Health) {
        self.0.get_or_init(|| health.clone());
    }
}

impl EncodeMetric for ComponentHealth {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let Some(health) = self.0.get() else {
            return Ok(());
        };
        for (key, component) in &health.document().components {
            let value = match component.status {
                Status::Healthy => 1.0,
                Status::Degraded => 0.5,
                Status::Unhealthy => 0.0,
            };
            let labels = [("component", key.as_str())];
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        let health = self.0.get();
        health.is_none_or(|health| health.document().components.is_empty())
    }
}
