//! `trunkline health`

use trunkline::Error;
use trunkline::core::{HealthDocument, Status};
use trunkline::http::HttpClient;

use crate::cli::Target;
use crate::exit::ExitCode;
use crate::output::{Output, table};

pub(crate) async fn run(target: Target, output: &Output) -> anyhow::Result<ExitCode> {
    let client = HttpClient::new(&target.url)?;
    let asked = client.get("/health").timeout(target.timeout);
    let response = asked.send().await.map_err(Error::from)?;
    // An unhealthy service answers 503 with the document all the same.
    let document: HealthDocument = response.json().await.map_err(super::unreadable)?;
    output.result(&document, |document| show(document, output))?;
    Ok(if document.overall_status == Status::Unhealthy {
        ExitCode::Failed
    } else {
        ExitCode::Done
    })
}

fn show(document: &HealthDocument, output: &Output) -> String {
    let colored = |status: Status| match status {
        Status::Healthy => output.good(status.as_str()),
        _ => output.bad(status.as_str()),
    };
    let rows = document.components.iter().map(|(key, part)| {
        [
            key.clone(),
            colored(part.status),
            part.error_count.to_string(),
            part.last_error.clone().unwrap_or_default(),
        ]
    });
    let parts = table(["COMPONENT", "STATUS", "ERRORS", "LAST ERROR"], rows);
    format!(
        "{} at {}\n{parts}",
        colored(document.overall_status),
        document.timestamp
    )
}
