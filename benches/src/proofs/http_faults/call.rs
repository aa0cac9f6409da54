//! One call of the client, and what came of it.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;
use trunkline_core::{Error, ErrorKind};
use trunkline_http::{
    EnhancedHttpClient, HttpClientConfig, RedirectConfig, RequestBuilder, ServiceError, Transport,
    TransportConfig,
};
use trunkline_resilience::config::VersionsConfig;

use super::faults::{Asking, Fault, Later, Script};
use super::server::Server;

/// Far more than anything here may take: what hangs fails the proof.
const HANGS: Duration = Duration::from_secs(120);

/// The limit of a whole call, as it is by default.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Put,
    Post,
    PostWithKey,
    Delete,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Seen {
    outcome: String,
    pub(super) arrived: usize,
    pub(super) taken_up: usize,
    shortest_pause: Option<Duration>,
    /// Whether another call on the same client was answered as it should be.
    pub(super) next_is_good: bool,
}

impl Method {
    pub(super) const ALL: [Self; 5] = [
        Self::Get,
        Self::Put,
        Self::Post,
        Self::PostWithKey,
        Self::Delete,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::PostWithKey => "POST + Idempotency-Key",
            Self::Delete => "DELETE",
        }
    }
}

/// `200; seen 2`, and how many arrived where that differs.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; seen {}", self.outcome, self.taken_up)?;
        if self.arrived != self.taken_up {
            write!(f, ", {} arrived", self.arrived)?;
        }
        Ok(())
    }
}

/// The server misbehaves once. `None` where it cannot recover.
pub(super) async fn once(fault: &Fault, method: Method) -> Result<Option<Seen>> {
    if matches!(fault.script, Script::Refuse) {
        return Ok(None);
    }
    cell(fault, method, 1).await.map(Some)
}

/// The server misbehaves each time. `None` where it is not tried.
pub(super) async fn always(fault: &Fault, method: Method) -> Result<Option<Seen>> {
    if fault.once_only() {
        return Ok(None);
    }
    cell(fault, method, usize::MAX).await.map(Some)
}

async fn cell(fault: &Fault, method: Method, times: usize) -> Result<Seen> {
    let server = Server::start(fault, times).await?;
    let client = client(fault, &server)?;
    if fault.reused {
        ensure!(
            answer(&client, Method::Get, PATIENCE).await == GOOD,
            "{}: the first call was not answered",
            fault.name
        );
    }
    server.count();
    let total = fault.total.unwrap_or(PATIENCE);
    let asking = async {
        match fault.asking {
            Asking::Plain | Asking::Versions => answer(&client, method, total).await,
            Asking::Events => events(&client, method).await,
        }
    };
    let outcome = timeout(HANGS, asking)
        .await
        .with_context(|| format!("{}, {}: the call hangs", fault.name, method.name()))?;
    let (arrived, taken_up) = (server.arrived(), server.taken_up());
    let shortest_pause = server.shortest_pause();
    server.behave();
    let next_is_good = matches!(fault.script, Script::Refuse)
        || timeout(HANGS, answer(&client, Method::Get, PATIENCE)).await? == GOOD;
    Ok(Seen {
        outcome,
        arrived,
        taken_up,
        shortest_pause,
        next_is_good,
    })
}

/// The defaults of the client, but for the pause between attempts and the limits that the fault needs to end at all.
fn client(fault: &Fault, server: &Server) -> Result<EnhancedHttpClient> {
    let mut config = HttpClientConfig::new(format!("http://{}", server.address));
    config.retry.delay = Some(Duration::from_millis(10));
    config.timeout.first_byte = fault.head;
    if fault.asking == Asking::Versions {
        config.redirects = RedirectConfig::same_origin();
        config.versions = VersionsConfig::new(["v2", "v1"]).on_status([404]);
    }
    let mut transport = TransportConfig::from(&config);
    transport.http2_prior_knowledge = fault.http2;
    Ok(EnhancedHttpClient::builder()
        .config(config)
        .transport(Transport::new(&transport)?)
        .build()?)
}

const GOOD: &str = "200 `hello`";

const GOOD_EVENT: &str = "`hello`";

/// Events after which a stream that goes on for ever is left.
const MOST_EVENTS: usize = 3;

fn request(client: &EnhancedHttpClient, method: Method) -> RequestBuilder<'_> {
    let body = serde_json::json!({ "amount": 1999 });
    match method {
        Method::Get => client.get("/"),
        Method::Put => client.put("/").json(&body),
        Method::Post => client.post("/").json(&body),
        Method::PostWithKey => client.post("/").json(&body).idempotency_key("order-1"),
        Method::Delete => client.delete("/"),
    }
}

/// Follows a stream of events until the good one has come, or it is over, or it has begun so often.
async fn events(client: &EnhancedHttpClient, method: Method) -> String {
    let mut stream = match request(client, method).events() {
        Ok(stream) => stream,
        Err(error) => return describe(error),
    };
    let mut seen = Vec::new();
    while seen.len() < MOST_EVENTS && seen.last().is_none_or(|last| last != GOOD_EVENT) {
        match stream.next().await {
            Some(Ok(event)) => seen.push(format!("`{}`", event.data)),
            Some(Err(error)) => {
                seen.push(describe(error));
                break;
            }
            None => {
                seen.push("the end".to_owned());
                break;
            }
        }
    }
    seen.join(", ")
}

/// Makes a call and says in a few words what came of it.
async fn answer(client: &EnhancedHttpClient, method: Method, total: Duration) -> String {
    let response = match request(client, method).timeout(total).send().await {
        Ok(response) => response,
        Err(error) => return describe(error),
    };
    let status = response.status().as_u16();
    match response.text().await {
        Ok(text) if text.is_empty() => status.to_string(),
        Ok(text) => format!("{status} `{text}`"),
        Err(error) => format!("{status}, then {}", describe(error)),
    }
}

fn describe(error: ServiceError) -> String {
    let word = match &error {
        ServiceError::CircuitOpen(_) => "circuit open",
        ServiceError::ServiceTimeout(_) => "timeout",
        ServiceError::ServiceUnavailable(_) => "unavailable",
        _ => match Error::from(error).kind() {
            ErrorKind::Internal => "not HTTP",
            kind => return format!("{kind}"),
        },
    };
    word.to_owned()
}

/// Whether a request came again before the server had asked for it.
pub(super) fn came_back_early(fault: &Fault, seen: &Seen) -> bool {
    let asked = matches!(
        fault.script,
        Script::ComeBackLater(_, Later::Seconds | Later::Date)
    );
    // The wait begins when the answer is read, which is later than the request came; a timer may be a millisecond early.
    asked
        && seen
            .shortest_pause
            .is_some_and(|pause| pause < Duration::from_millis(995))
}
