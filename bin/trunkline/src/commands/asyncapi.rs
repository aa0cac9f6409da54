//! `trunkline asyncapi`

use serde_json::Value;
use trunkline::Error;
use trunkline::http::HttpClient;

use crate::cli::AsyncApi;
use crate::exit::ExitCode;
use crate::output::Output;

pub(crate) async fn run(args: AsyncApi, output: &Output) -> anyhow::Result<ExitCode> {
    let document = match &args.url {
        Some(url) => fetch(url, &args).await?,
        None => {
            let config = super::config::loader(args.file.config.as_deref()).load()?;
            for warning in config.warnings().iter() {
                output.warn(warning.to_string());
            }
            config.asyncapi()?.to_json()
        }
    };
    output.json_document(&document)?;
    Ok(ExitCode::Done)
}

/// Asks a running service.
async fn fetch(url: &str, args: &AsyncApi) -> anyhow::Result<Value> {
    let client = HttpClient::new(url)?;
    let asked = client.get("/asyncapi.json").timeout(args.timeout);
    let answer = asked.send().await.map_err(Error::from)?;
    if answer.status().as_u16() == 404 {
        anyhow::bail!(
            "{url} has no /asyncapi.json: a service that a manager runs serves it with `server.asyncapi: true`"
        );
    }
    let answer = answer.error_for_status().await.map_err(Error::from)?;
    answer.json().await.map_err(super::unreadable)
}
