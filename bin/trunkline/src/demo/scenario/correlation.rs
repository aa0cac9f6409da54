//! One conversation, found in the log of every process.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use super::shop::{Shop, fresh_key};
use crate::demo::members::Member;
use crate::demo::process::log_file;

pub(super) async fn traced(shop: &Shop, dir: &Path) -> anyhow::Result<String> {
    let id = format!("demo-{}", fresh_key());
    shop.order_as(&id, &fresh_key()).await?;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let missing: Vec<&str> = Member::ALL
            .into_iter()
            .filter(|member| !mentions(&log_file(dir, *member), &id))
            .map(Member::name)
            .collect();
        if missing.is_empty() {
            return Ok(format!("{id} in {} logs", Member::ALL.len()));
        }
        if Instant::now() > end {
            bail!("{id} is not in the logs of {}", missing.join(", "));
        }
        sleep(Duration::from_millis(25)).await;
    }
}

fn mentions(log: &Path, id: &str) -> bool {
    std::fs::read_to_string(log).is_ok_and(|text| text.contains(id))
}
