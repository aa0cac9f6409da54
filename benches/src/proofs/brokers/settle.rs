//! What has to be on the disk of a server before a proof may kill it.

use anyhow::Result;
use trunkline_testing::servers::rabbitmq as server;

use super::Stage;

/// Whether every quorum queue survives. RabbitMQ confirms one, and messages in it, half a second before: the guide tells
/// that, and no client can do anything about it.
pub(super) fn rabbitmq(stage: &Stage) -> Result<bool> {
    let site = stage.server.site();
    let queues = server::control(site, &["list_queues", "name", "type"])?;
    let mut quorum = queues
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|(_, kind)| kind.trim() == "quorum");
    Ok(quorum.all(|(queue, _)| server::is_registered(site, queue)))
}
