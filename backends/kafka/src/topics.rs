//! Kafka's topics as they shall be, and as they are.

use std::collections::BTreeMap;

use trunkline_core::{Error, Result, Retry};

/// How a topic shall be made. What is left open is as the broker is configured, or as the servers say.
///
/// ```
/// use trunkline_kafka::TopicPlan;
///
/// let plan = TopicPlan::default().with_partitions(12).with_config("retention.ms", "86400000");
/// assert_eq!(plan.partitions, Some(12));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicPlan {
    /// How many partitions.
    pub partitions: Option<u32>,
    /// How many copies of each.
    pub replication: Option<u16>,
    /// Settings of the topic by Kafka's own names: `retention.ms`, `cleanup.policy` …
    pub config: BTreeMap<String, String>,
}

impl TopicPlan {
    /// Sets how many partitions.
    #[must_use]
    pub fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Sets how many copies of each partition.
    #[must_use]
    pub fn with_replication(mut self, copies: u16) -> Self {
        self.replication = Some(copies);
        self
    }

    /// Sets a setting of the topic by Kafka's own name.
    #[must_use]
    pub fn with_config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// Fails when a topic is not as this says.
    pub(crate) fn compare(&self, found: &TopicDescription) -> Result<()> {
        let mut other = Vec::new();
        if let Some(wanted) = self.partitions
            && wanted != found.partitions
        {
            other.push(format!("{} partitions, not {wanted}", found.partitions));
        }
        if let Some(wanted) = self.replication
            && wanted != found.replication
        {
            other.push(format!("{} copies, not {wanted}", found.replication));
        }
        for (name, wanted) in &self.config {
            let there = found.effective.get(name).map_or("none", String::as_str);
            if there != wanted {
                other.push(format!("`{name}` {there}, not {wanted}"));
            }
        }
        if other.is_empty() {
            return Ok(());
        }
        let text = format!("the topic `{}` has {}", found.name, other.join("; "));
        Err(Error::conflict(text).with_retry(Retry::Never))
    }
}

/// How a topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name in Kafka.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many copies each has at least.
    pub replication: u16,
    /// Settings that are its own.
    pub config: BTreeMap<String, String>,
    /// All settings that hold for it, those of the servers included; without those that are secret.
    pub effective: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use trunkline_core::ErrorKind;

    use super::*;

    #[test]
    fn a_plan_says_all_that_is_other() {
        let effective = [("retention.ms", "5"), ("cleanup.policy", "delete")];
        let effective = effective.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = TopicDescription {
            name: "orders".to_owned(),
            partitions: 3,
            replication: 1,
            config: BTreeMap::new(),
            effective: effective.into(),
        };
        let plan = TopicPlan::default();
        plan.compare(&found).unwrap();
        let plan = plan.with_partitions(3).with_config("retention.ms", "5");
        plan.compare(&found).unwrap();
        let plan = plan.with_partitions(4).with_replication(2);
        let error = plan
            .with_config("retention.ms", "6")
            .compare(&found)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let text =
            "the topic `orders` has 3 partitions, not 4; 1 copies, not 2; `retention.ms` 5, not 6";
        assert_eq!(error.message(), text);
    }
}
