//! `trunkline call`

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use trunkline::discovery::ServiceDiscoveryConfig;
use trunkline::events::EventStoreConfig;
use trunkline::http::{Method, Response};
use trunkline::telemetry::LogLevel;
use trunkline::{CommunicationManager, Error};

use super::config::loader;
use super::{body, guess_content_type};
use crate::cli;
use crate::exit::{ExitCode, UsageError};
use crate::output::Output;

/// An answer for programs.
#[derive(Serialize)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

pub(crate) async fn run(args: cli::Call, output: &Output) -> anyhow::Result<ExitCode> {
    let mut config = loader(args.file.config.as_deref()).load()?;
    if let Some(url) = &args.registry {
        config.service_discovery = Some(ServiceDiscoveryConfig::from_url(url)?);
    }
    // A call needs no broker and keeps no events; its answer is what is to be seen, not its log.
    config.message_brokers = Some(Default::default());
    config.event_store = Some(EventStoreConfig::memory());
    config.logging.level = LogLevel::Error;
    let manager = CommunicationManager::new(config);
    manager.initialize().await?;
    let answered = call(&manager, &args, output).await;
    if let Err(error) = manager.shutdown().await {
        output.warn(format!("not ended in order: {}", error.report()));
    }
    answered
}

async fn call(
    manager: &CommunicationManager,
    args: &cli::Call,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let method: Method = args
        .method
        .to_uppercase()
        .parse()
        .map_err(|_| UsageError(format!("`{}` is no HTTP method", args.method)))?;
    let client = manager
        .http_client(&args.service)
        .map_err(|error| UsageError(error.report().to_string()))?;
    let mut request = client.request(method, &args.path).timeout(args.timeout);
    let typed = args
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if let Some(data) = &args.data {
        let data = body(Some(data))?;
        if !typed {
            request = request.header("content-type", guess_content_type(&data));
        }
        request = request.body(data);
    }
    for (name, value) in &args.headers {
        request = request.header(name, value);
    }
    let response = request.send().await.map_err(Error::from)?;
    let failed = args.fail && response.status().as_u16() >= 400;
    show(response, output).await?;
    Ok(if failed {
        ExitCode::Failed
    } else {
        ExitCode::Done
    })
}

/// A header that comes several times is one with several values (RFC 9110, 5.3).
fn headers_of(response: &Response) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|values| values.extend([", ", &value]))
            .or_insert_with(|| value.clone().into_owned());
    }
    headers
}

async fn show(response: Response, output: &Output) -> anyhow::Result<()> {
    let status = response.status().as_u16();
    if output.is_json() {
        let headers = headers_of(&response);
        let bytes = response.bytes().await.map_err(Error::from)?;
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        return output.json_line(&Answer {
            status,
            headers,
            body,
        });
    }
    output.note(output.faint(&format!("{status}")));
    output.bytes(&response.bytes().await.map_err(Error::from)?)
}
