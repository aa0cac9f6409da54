//! What the health documents say.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};
use trunkline::core::HealthDocument;
use trunkline::http::HttpClient;

const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until the health document at this base URL shows something.
pub(super) async fn until(
    url: &str,
    shows: impl Fn(&HealthDocument) -> bool,
) -> anyhow::Result<HealthDocument> {
    let (client, end) = (HttpClient::new(url)?, Instant::now() + PATIENCE);
    loop {
        let document: HealthDocument = client.get("/health").send().await?.json().await?;
        if shows(&document) {
            return Ok(document);
        }
        if Instant::now() > end {
            bail!(
                "the health document of {url} stays {}",
                document.overall_status
            );
        }
        sleep(Duration::from_millis(25)).await;
    }
}
