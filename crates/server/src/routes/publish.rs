//! `POST /publish/{broker}/{topic}`: publishing for whoever speaks HTTP only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::routing::post;
use serde::Serialize;
use serde::de::IgnoredAny;
use tokio::time::timeout;
use trunkline_core::{Context, Error, ErrorKind, Propagation, Result};
use trunkline_messaging::{
    AnyBroker, Destination, Message, Publish, Publisher, TopicName, TopicPattern,
};

use crate::extract::{Json, Path, unread};
use crate::{ProblemResponse, PublishRouteConfig};

/// Longest wait for the broker's confirmation; less when the request has less time.
const CONFIRM_TIME: Duration = Duration::from_secs(10);

/// Where the publish route finds brokers by name. A closure from a name to an [`AnyBroker`] or a [`Publisher`] will do,
/// and a map of either.
pub trait BrokerSource: Send + Sync + 'static {
    /// What publishes to the broker of that name.
    ///
    /// # Errors
    /// `NotFound` when there is none; the message names those there are.
    fn publisher(&self, name: &str) -> Result<Publisher>;
}

/// What messages can be published with. A bare broker publishes with the default settings.
pub trait ToPublisher {
    /// The publisher.
    fn to_publisher(&self) -> Publisher;
}

impl ToPublisher for AnyBroker {
    fn to_publisher(&self) -> Publisher {
        Publisher::new(self.clone())
    }
}

impl ToPublisher for Publisher {
    fn to_publisher(&self) -> Publisher {
        self.clone()
    }
}

impl<F, P> BrokerSource for F
where
    F: Fn(&str) -> Result<P> + Send + Sync + 'static,
    P: ToPublisher,
{
    fn publisher(&self, name: &str) -> Result<Publisher> {
        self(name).map(|found| found.to_publisher())
    }
}

impl<P: ToPublisher + Send + Sync + 'static> BrokerSource for HashMap<String, P> {
    fn publisher(&self, name: &str) -> Result<Publisher> {
        self.get(name)
            .map(ToPublisher::to_publisher)
            .ok_or_else(|| {
                let mut known: Vec<&str> = self.keys().map(String::as_str).collect();
                known.sort_unstable();
                Error::not_found(format!(
                    "there is no broker `{name}`; there are: {}",
                    known.join(", ")
                ))
            })
    }
}

/// Publishes the JSON body of a request to a topic and answers `{"status":"published"}` when the broker has confirmed.
///
/// Refusals: 404 for an unknown broker, or one that the configuration does not name; 422 for a body that is no JSON or
/// a topic that is no topic name; 403 for a topic that is not allowed; 503 when the broker does not confirm.
///
/// # Errors
/// `Config` when an allowed topic is no topic pattern.
pub fn publish_routes(
    config: &PublishRouteConfig,
    brokers: Arc<dyn BrokerSource>,
    propagation: Propagation,
) -> Result<Router> {
    let topics = config.topics.iter().map(|pattern| {
        TopicPattern::new(pattern)
            .map_err(|cause| Error::config(format!("server.publish.topics: {}", cause.message())))
    });
    let allowed = Allowed {
        topics: topics.collect::<Result<_>>()?,
        brokers: config.brokers.clone(),
    };
    let state = Arc::new(Shared {
        allowed,
        brokers,
        propagation,
    });
    Ok(Router::new()
        .route("/publish/{broker}/{topic}", post(publish))
        .with_state(state))
}

struct Shared {
    allowed: Allowed,
    brokers: Arc<dyn BrokerSource>,
    propagation: Propagation,
}

struct Allowed {
    topics: Vec<TopicPattern>,
    /// Empty: every one.
    brokers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Published {
    status: &'static str,
}

async fn publish(
    State(shared): State<Arc<Shared>>,
    Path((broker, topic)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Published>, ProblemResponse> {
    let named = &shared.allowed.brokers;
    if !named.is_empty() && !named.contains(&broker) {
        return Err(ProblemResponse::not_found(format!(
            "there is no broker `{broker}` to publish to"
        )));
    }
    let publisher = shared.brokers.publisher(&broker)?;
    let topic = TopicName::new(&topic)?;
    if !shared
        .allowed
        .topics
        .iter()
        .any(|pattern| pattern.matches(&topic))
    {
        return Err(ProblemResponse::forbidden(format!(
            "`{topic}` may not be published to from outside"
        )));
    }
    let body = Bytes::from_request(request, &()).await.map_err(unread)?;
    if let Err(cause) = serde_json::from_slice::<IgnoredAny>(&body) {
        return Err(ProblemResponse::unprocessable(format!(
            "the body is no valid JSON: {cause}"
        )));
    }
    let context = shared.propagation.current_or_new();
    let mut message = Message::new(body).with_content_type("application/json");
    shared.propagation.inject(&context, &mut message.headers);
    let wait = wait(&context);
    let publish = publisher.send(Publish::new(Destination::Topic(topic), message));
    let confirmed = timeout(wait, publish).await.unwrap_or_else(|_| {
        Err(Error::unavailable(
            "the broker did not confirm in time; the message may have been published",
        ))
    });
    confirmed.map_err(|error| match error.kind() {
        // It was the broker that took too long, not this service.
        ErrorKind::Timeout => {
            ProblemResponse::unavailable(error.message().to_owned()).with_cause(error)
        }
        _ => error.into(),
    })?;
    Ok(Json(Published {
        status: "published",
    }))
}

/// A little less than the request has left, so that the answer tells what happened.
fn wait(context: &Context) -> Duration {
    let left = context.remaining().unwrap_or(CONFIRM_TIME);
    (left - left / 10).min(CONFIRM_TIME)
}
