//! `trunkline circuits`

use serde::{Deserialize, Serialize};
use trunkline::Error;
use trunkline::http::HttpClient;

use crate::cli::Target;
use crate::exit::ExitCode;
use crate::output::{Output, table};

/// A circuit as `/circuits` tells it.
#[derive(Debug, Serialize, Deserialize)]
struct Circuit {
    service: String,
    endpoint: Option<String>,
    instance: Option<String>,
    state: String,
    /// Unless an older service answers.
    control: Option<String>,
    failure_count: u64,
    last_failure_time: Option<String>,
    retry_after_ms: Option<u64>,
}

pub(crate) async fn run(target: Target, output: &Output) -> anyhow::Result<ExitCode> {
    let client = HttpClient::new(&target.url)?;
    let answer = client
        .get("/circuits")
        .timeout(target.timeout)
        .send()
        .await
        .map_err(Error::from)?;
    let answer = answer.error_for_status().await.map_err(Error::from)?;
    let circuits: Vec<Circuit> = answer.json().await.map_err(super::unreadable)?;
    output.result(&circuits, |circuits| {
        let rows = circuits.iter().map(|circuit| {
            let forced = circuit
                .control
                .as_deref()
                .filter(|control| *control != "automatic");
            let shown = forced.map_or_else(
                || circuit.state.clone(),
                |control| format!("{} ({control})", circuit.state),
            );
            let state = if circuit.state == "closed" {
                output.good(&shown)
            } else {
                output.bad(&shown)
            };
            let wait = circuit
                .retry_after_ms
                .map(|wait| format!("{wait} ms"))
                .unwrap_or_default();
            let endpoint = circuit.endpoint.clone().unwrap_or_default();
            [
                circuit.service.clone(),
                endpoint,
                state,
                circuit.failure_count.to_string(),
                wait,
            ]
        });
        table(
            ["SERVICE", "ENDPOINT", "STATE", "FAILURES", "TRIES AGAIN IN"],
            rows,
        )
    })?;
    Ok(ExitCode::Done)
}
