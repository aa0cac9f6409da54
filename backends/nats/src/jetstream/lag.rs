//! How much waits for a consumer of the server.

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use trunkline_core::Result;
use trunkline_messaging::{Source, Subscribe};

use super::api::{Api, is};
use super::topology::Place;
use crate::error::code;
use crate::link::Link;
use crate::names::Names;

#[derive(Deserialize)]
struct Pending {
    #[serde(default)]
    num_pending: u64,
}

/// What was never delivered. What comes again the server counts together with what is in somebody's hands, so it is not
/// counted here; and `None` where only we can tell which of what comes is wanted.
pub(super) async fn of(
    link: &Link,
    api: &Api,
    names: &Names,
    subscribe: &Subscribe,
    deadline: Instant,
) -> Result<Option<u64>> {
    let place = Place::new(names, subscribe);
    if !place.shared || place.pattern.is_some() {
        return Ok(None);
    }
    let up = link.ready(deadline).await?;
    let asked = format!("CONSUMER.INFO.{}.{}", place.stream, place.consumer);
    match api
        .ask::<Pending>(&up, deadline, &asked, &Value::Null)
        .await
    {
        // A queue has its place without anybody who takes from it.
        Err(error)
            if is(&error, &[code::CONSUMER_NOT_FOUND])
                && matches!(subscribe.source, Source::Queue(_)) =>
        {
            let stream = api.stream(&up, deadline, &place.stream).await;
            known(stream.map(|found| found.state.messages))
        }
        found => known(found.map(|found| found.num_pending)),
    }
}

fn known(found: Result<u64>) -> Result<Option<u64>> {
    match found {
        Err(error) if is(&error, &[code::STREAM_NOT_FOUND, code::CONSUMER_NOT_FOUND]) => Ok(None),
        found => found.map(Some),
    }
}
