//! Credential plugins of kubeconfig files: a program is run that says by which token to ask, until when.
//!
//! As `client.authentication.k8s.io` describes it in the reference of Kubernetes ("client-go credential plugins").

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use trunkline_core::{Clock as _, Error, ErrorKind, Result, Retry, SystemClock, Timestamp};

use crate::access::header;

/// The versions that are understood.
const VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];
/// How long a program may take: those of clouds ask over the network.
const LONGEST_RUN: Duration = Duration::from_secs(60);
/// A program that failed, or whose token was refused, is not run again sooner.
const AGAIN: Duration = Duration::from_secs(1);
/// A token is not used until its very end: a tenth of its time earlier, and no more than this, another one is asked for.
const EARLIEST: Duration = Duration::from_secs(60);
/// How much of what a program complains of an error repeats.
const SHOWN: usize = 300;

/// What is to be run, and what it last said.
#[derive(Debug)]
pub(crate) struct Plugin {
    program: Program,
    state: Mutex<State>,
}

#[derive(Clone, PartialEq, Eq)]
struct Program {
    command: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    version: String,
    /// What to do where it is not installed.
    hint: Option<String>,
    /// What it is told of who asks and where.
    told: String,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    failed: Option<(Failed, Instant)>,
    /// Whoever needs a token waits for the same run; one that gave up leaves it to the next one.
    running: Option<Shared<BoxFuture<'static, Result<Known, Failed>>>>,
}

#[derive(Clone, Debug)]
struct Known {
    token: HeaderValue,
    at: Instant,
    until: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Failed {
    kind: ErrorKind,
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    api_version: String,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    expiration_timestamp: Option<String>,
}

impl Plugin {
    /// Reads what a kubeconfig says of it; the text of an error is what is wrong with it.
    pub(crate) fn read(exec: &Value, beside: &Path, cluster: &Value) -> Result<Self, String> {
        let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
        let command = text(exec, "command").ok_or("`exec` has no `command`")?;
        let version = text(exec, "apiVersion").unwrap_or_default();
        if !VERSIONS.contains(&version.as_str()) {
            let known = VERSIONS.join(" and ");
            return Err(format!(
                "`exec` has the apiVersion `{version}`; {known} are understood"
            ));
        }
        if text(exec, "interactiveMode").as_deref() == Some("Always") {
            return Err(
                "`exec` wants to ask somebody (`interactiveMode: Always`), and nobody is there"
                    .to_owned(),
            );
        }
        let arguments = exec
            .get("args")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let arguments = arguments.map(|one| one.as_str().map(str::to_owned));
        let arguments = arguments.collect::<Option<Vec<_>>>();
        let variables = exec
            .get("env")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let variables = variables.map(|one| text(one, "name").zip(text(one, "value")));
        let variables = variables.collect::<Option<Vec<_>>>();
        let mut told = json!({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false}});
        if exec.get("provideClusterInfo") == Some(&Value::Bool(true)) {
            told["spec"]["cluster"] = cluster.clone();
        }
        let program = Program {
            // A name alone is looked for where programs are, a path from the file on.
            command: match command.contains('/') {
                true => beside.join(command),
                false => PathBuf::from(command),
            },
            arguments: arguments.ok_or("`args` of `exec` are no texts")?,
            variables: variables.ok_or("`env` of `exec` are no pairs of `name` and `value`")?,
            version,
            hint: text(exec, "installHint"),
            told: told.to_string(),
        };
        Ok(Self {
            program,
            state: Mutex::default(),
        })
    }

    /// The token now; the program is run where none is known that holds. Cancel safe: the run goes on with whoever asks next.
    pub(crate) async fn current(&self) -> Result<HeaderValue> {
        let running = {
            let mut state = self.state();
            if let Some(known) = state.known.as_ref().filter(|known| known.holds()) {
                return Ok(known.token.clone());
            }
            if let Some((failed, at)) = &state.failed
                && at.elapsed() < AGAIN
            {
                return Err(failed.clone().into());
            }
            let program = &self.program;
            let begin = || program.clone().run().boxed().shared();
            state.running.get_or_insert_with(begin).clone()
        };
        let outcome = running.await;
        let mut state = self.state();
        // The first who hears of it; the run of a later one stays.
        if state.running.as_ref().is_some_and(|it| it.peek().is_some()) {
            state.running = None;
            state.known = outcome.as_ref().ok().cloned();
            state.failed = outcome
                .as_ref()
                .err()
                .map(|failed| (failed.clone(), Instant::now()));
        }
        Ok(outcome?.token)
    }

    /// Another token than the one that was refused.
    pub(crate) async fn instead_of(&self, refused: Option<&HeaderValue>) -> Option<HeaderValue> {
        {
            let mut state = self.state();
            let known = state.known.as_ref();
            if known
                .is_some_and(|known| Some(&known.token) == refused && known.at.elapsed() < AGAIN)
            {
                return None;
            }
            state.known.take_if(|known| Some(&known.token) == refused);
        }
        // Why there is none is told to whoever asks next.
        let newer = self.current().await.ok()?;
        (Some(&newer) != refused).then_some(newer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    async fn run(self) -> Result<Known, Failed> {
        let shown = self.command.display();
        let unavailable = |text: String| Failed {
            kind: ErrorKind::Unavailable,
            text: format!("the credential plugin {shown} {text}"),
        };
        let mut command = Command::new(&self.command);
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", &self.told)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let ended = timeout(LONGEST_RUN, command.output()).await;
        let ended =
            ended.map_err(|_| unavailable(format!("does not end within {LONGEST_RUN:?}")))?;
        let output = ended.map_err(|error| {
            let hint = self.hint.as_deref().unwrap_or_default();
            Failed {
                kind: ErrorKind::Config,
                ..unavailable(
                    format!("cannot be run: {error}. {hint}")
                        .trim_end()
                        .to_owned(),
                )
            }
        })?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let shown: String = complaint.trim().chars().take(SHOWN).collect();
            return Err(unavailable(format!("failed ({}): {shown}", output.status)));
        }
        self.understood(&output.stdout).map_err(unavailable)
    }

    /// What the program wrote. Errors repeat nothing of it.
    fn understood(&self, written: &[u8]) -> Result<Known, String> {
        let said: Said = serde_json::from_slice(written)
            .map_err(|error| format!("wrote no ExecCredential (line {})", error.line()))?;
        if said.api_version != self.version {
            return Err(format!("speaks {}, not {}", said.api_version, self.version));
        }
        let status = said.status.ok_or("gave no credentials")?;
        let token = match (status.token, status.client_certificate_data) {
            (Some(token), _) => token,
            (None, Some(_)) => {
                return Err("gave a client certificate; only tokens are taken".to_owned());
            }
            (None, None) => return Err("gave no token".to_owned()),
        };
        let token = header(&token).map_err(|_| "gave a token that is none".to_owned())?;
        let ends = status
            .expiration_timestamp
            .as_deref()
            .map(str::parse::<Timestamp>);
        let ends = ends
            .transpose()
            .map_err(|_| "gave an expirationTimestamp that is none")?;
        let at = Instant::now();
        let until = ends.and_then(|ends| {
            let lasts = ends.since(SystemClock.now());
            at.checked_add(lasts.saturating_sub((lasts / 10).min(EARLIEST)))
        });
        Ok(Known { token, at, until })
    }
}

impl Known {
    fn holds(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let retry = match failed.kind {
            ErrorKind::Unavailable => Retry::Safe,
            _ => Retry::Never,
        };
        Self::new(failed.kind, failed.text).with_retry(retry)
    }
}

impl fmt::Debug for Program {
    // Variables hold secrets now and then.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.command).finish()
    }
}
