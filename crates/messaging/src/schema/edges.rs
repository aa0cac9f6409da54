//! Where payloads are checked: before they are published, and before their handler.

use std::sync::Arc;

use trunkline_core::Result;

use crate::message::{Message, Publish};
use crate::router::{Handled, HandlerError, Incoming, Middleware, Next};
use crate::topic::{Destination, Source, TopicPattern};

/// Says what is wrong with a payload.
pub(crate) trait PayloadCheck: Send + Sync {
    fn check(&self, message: &Message) -> Result<()>;
}

/// The checks of the topics under a pattern.
pub(crate) type TopicCheck = (TopicPattern, Arc<dyn PayloadCheck>);

/// Whether a payload is what its topic promises.
pub(crate) fn check_payload(checks: &[TopicCheck], publish: &Publish) -> Result<()> {
    check(checks, &publish.destination, &publish.message)
}

fn check(checks: &[TopicCheck], destination: &Destination, message: &Message) -> Result<()> {
    let Destination::Topic(topic) = destination else {
        return Ok(());
    };
    for (pattern, check) in checks {
        if pattern.matches(topic) {
            let checked = check.check(message);
            checked.map_err(|error| error.with_context("topic", topic.as_str()))?;
        }
    }
    Ok(())
}

/// Makes dead letters, at once, of what is not as its topic promises: the innermost middleware of a handler, so that payloads
/// are checked as it takes them.
pub(crate) struct TopicSchemas(Vec<TopicCheck>);

impl TopicSchemas {
    /// Those that may matter to whoever listens to a source, if there are any.
    pub(crate) fn of(checks: &[TopicCheck], source: &Source) -> Option<Self> {
        let Source::Topics(heard) = source else {
            return None;
        };
        let exact = heard.as_topic();
        let matter = |check: &&TopicCheck| {
            let topic = exact.as_ref();
            topic.is_none_or(|topic| check.0.matches(topic))
        };
        let matter: Vec<TopicCheck> = checks.iter().filter(matter).cloned().collect();
        (!matter.is_empty()).then_some(Self(matter))
    }
}

impl Middleware for TopicSchemas {
    async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
        check(&self.0, incoming.destination(), incoming.message())
            .map_err(|error| HandlerError::Undecodable { error })?;
        next.run(incoming).await
    }
}
