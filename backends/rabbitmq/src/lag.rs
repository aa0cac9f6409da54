//! How much waits in the queue of a subscription.

use trunkline_core::{ErrorKind, Result};
use trunkline_messaging::{Source, Subscribe};

use crate::broker::RabbitMqBroker;
use crate::consumer::queue_name;

impl RabbitMqBroker {
    /// What the server says is ready: it is in nobody's hands, and not put off. `None` where there is no such queue.
    pub(crate) async fn lag_of(&self, subscribe: &Subscribe) -> Result<Option<u64>> {
        if subscribe.group.is_none() && matches!(subscribe.source, Source::Topics(_)) {
            return Ok(None);
        }
        match self.queue_status(&queue_name(subscribe)?).await {
            Ok(status) => Ok(Some(u64::from(status.messages))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
