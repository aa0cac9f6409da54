//! Asks a version of the service for an answer, and the next one where that fails.
//!
//! This is inside the fallback and outside everything else: each version has its retries and a circuit of its own, and a
//! fixed answer is given only when the last of them has failed.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Problem, Result};
use trunkline_resilience::timeout::Deadline;
use trunkline_resilience::versions::{VersionPlace, VersionSettings};
use trunkline_resilience::{EffectivePolicy, Policy, RetryExhausted};

use super::builder::Maker;
use super::core::{Core, Endpoint};
use super::endpoint::Template;
use super::judge::{refuses, was_not_processed};
use super::outgoing::{NamedVersion, Outgoing};
use crate::options::CallOptions;
use crate::query;
use crate::transport::Reply;

/// Versions of one endpoint that have policies of their own; further ones share that of the endpoint.
const MOST_VERSIONS: usize = 16;

/// Which version answered: in the extensions of the response.
#[derive(Clone, Debug)]
pub(crate) struct ServedVersion(pub(crate) Arc<str>);

/// What one of several versions may use of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    /// In place of the policy's limit of the whole call.
    pub(super) total: Option<Duration>,
    /// Nobody is asked after it.
    pub(super) is_last: bool,
    /// When it began, where that is just now.
    pub(super) began: Option<Instant>,
}

impl Leg {
    /// All there is.
    pub(super) fn whole(options: &CallOptions) -> Self {
        Self {
            total: options.timeout,
            is_last: true,
            began: None,
        }
    }
}

/// The policies of the versions of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct VersionPolicies(RwLock<Vec<(Arc<str>, Arc<Policy>)>>);

impl VersionPolicies {
    fn of(&self, version: &Arc<str>, endpoint: &Arc<Policy>, maker: &Maker) -> Arc<Policy> {
        let find = |known: &[(Arc<str>, Arc<Policy>)]| {
            let same = known.iter().find(|(name, _)| name == version);
            same.map(|(_, policy)| Arc::clone(policy))
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = find(&known) {
            return policy;
        }
        if known.len() >= MOST_VERSIONS {
            return Arc::clone(endpoint);
        }
        drop(known);
        // Made outside the lock: the registry has locks of its own, and gives everybody the same.
        let made = maker.of_version(endpoint, version);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        find(&known).unwrap_or_else(|| {
            known.push((Arc::clone(version), Arc::clone(&made)));
            made
        })
    }
}

/// The versions that a call asks, if it names any.
pub(super) fn asked_versions<'s>(
    settings: &'s EffectivePolicy,
    options: &CallOptions,
) -> Option<Cow<'s, VersionSettings>> {
    let versions = match (&options.versions, &settings.versions) {
        (None, None) => return None,
        (None, Some(versions)) => Cow::Borrowed(versions),
        (Some(order), Some(versions)) => Cow::Owned(versions.with_order(Arc::clone(order))),
        (Some(order), None) => Cow::Owned(VersionSettings::new(order.iter().cloned())),
    };
    (!versions.order.is_empty()).then_some(versions)
}

impl Core {
    /// Asks one version after the other until one answers as it should.
    pub(super) async fn by_version(
        &self,
        endpoint: &Endpoint,
        settings: &Arc<EffectivePolicy>,
        versions: &VersionSettings,
        outgoing: &Outgoing<'_>,
        began: Instant,
    ) -> Result<Reply> {
        let total = outgoing.options().timeout;
        let total = total.unwrap_or(settings.timeout.total);
        let deadline = Deadline::of_call(began, total, outgoing.context.deadline());
        let configured = settings.versions.as_ref();
        let configured = configured.map_or(&[][..], |versions| &versions.order);
        let mut waiting = versions.order.iter();
        let mut failed: Option<(&Arc<str>, Result<Reply>)> = None;
        while let Some(version) = waiting.next() {
            let named = self.named(versions, configured, version, &endpoint.name, outgoing)?;
            let Some(asked) = outgoing.to_version(named) else {
                break;
            };
            if let Some((before, result)) = &failed {
                endpoint.metrics.fell_back_to_a_version();
                tracing::debug!(
                    target: "trunkline", service = %self.service, endpoint = %endpoint.name,
                    failed = %before, asked = %version, reason = %reason(result),
                    "the next version of the service is asked"
                );
            }
            let after = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            let leg = Leg {
                // An even share: what one does not use is there for those after it.
                total: Some(deadline.left(Instant::now()) / after.saturating_add(1)),
                is_last: after == 0,
                began: None,
            };
            let policy = endpoint.versions.of(version, &endpoint.policy, &self.maker);
            let current = policy.current();
            let result = self
                .by_policy(endpoint, (&policy, &current), settings, &asked, began, leg)
                .await
                .map(|response| marked(response, version));
            drop(asked);
            let next = after > 0
                && falls_back(versions, &result, outgoing.idempotent)
                && !deadline.left(Instant::now()).is_zero()
                && outgoing.will_repeat()
                && (was_no_load(&result) || policy.takes_from_budget());
            if !next {
                return result;
            }
            failed = Some((version, result));
        }
        match failed {
            Some((_, result)) => result,
            None => Err(Error::internal(
                "the body has passed before any version was asked",
            )),
        }
    }

    /// How the request names a version.
    fn named(
        &self,
        versions: &VersionSettings,
        configured: &[Arc<str>],
        version: &Arc<str>,
        endpoint: &str,
        outgoing: &Outgoing<'_>,
    ) -> Result<NamedVersion> {
        let path = outgoing.path();
        let mut named = NamedVersion {
            version: Arc::clone(version),
            path: path.clone(),
            header: None,
        };
        match versions.by {
            VersionPlace::Path => {
                let known = |segment: &str| {
                    let mut all = versions.order.iter().chain(configured);
                    all.any(|version| **version == *segment)
                };
                let template = Template::parse(endpoint).ok();
                let prefix = match path.path().starts_with(&*self.prefix) {
                    true => self.prefix.len(),
                    // A whole URL was given.
                    false => 0,
                };
                let text = in_path(path.as_str(), prefix, template.as_ref(), version, known);
                named.path = parsed(text)?;
            }
            VersionPlace::Query => {
                let text = in_query(path.as_str(), &versions.name, &versions.written(version));
                named.path = parsed(text)?;
            }
            VersionPlace::Header => {
                let wrong = |what: &str| {
                    Error::invalid(format!("versions: {what} cannot stand in a header"))
                };
                let name = HeaderName::from_bytes(versions.name.as_bytes())
                    .map_err(|error| wrong(&versions.name).with_source(error))?;
                let value = HeaderValue::try_from(versions.written(version))
                    .map_err(|error| wrong(version).with_source(error))?;
                named.header = Some((name, value));
            }
        }
        Ok(named)
    }
}

fn parsed(text: String) -> Result<PathAndQuery> {
    let path = PathAndQuery::from_maybe_shared(bytes::Bytes::from(text));
    path.map_err(|error| {
        Error::invalid("the path with its version cannot stand in a URL").with_source(error)
    })
}

/// Replaces the first segment that is a version, or puts the version behind the prefix. What stands where the endpoint has a
/// parameter is data, whatever it looks like; where no endpoint says what is, a version stands at the beginning or behind
/// `api`.
fn in_path(
    path: &str,
    prefix: usize,
    template: Option<&Template>,
    version: &str,
    is_version: impl Fn(&str) -> bool,
) -> String {
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let mut segments: Vec<&str> = path.split('/').collect();
    let head = path.get(..prefix).unwrap_or_default();
    let first = head.split('/').count();
    let count = segments.len().saturating_sub(first);
    let is_written = |at: usize| match at.checked_sub(first) {
        None => true,
        Some(at) => match template.and_then(|template| template.is_literal(at, count)) {
            Some(literal) => literal,
            None => at == 0 || at == 1 && segments.get(first) == Some(&"api"),
        },
    };
    let found = (0..segments.len()).find(|at| is_version(segments[*at]) && is_written(*at));
    let mut text = match found {
        Some(at) => {
            segments[at] = version;
            segments.join("/")
        }
        None => match path.split_at_checked(prefix) {
            Some((prefix, rest)) => format!("{prefix}/{version}{rest}"),
            None => format!("/{version}{path}"),
        },
    };
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    text
}

/// Adds a parameter to the query, in place of one of that name.
fn in_query(path: &str, name: &str, value: &str) -> String {
    let mut text = match path.split_once('?') {
        None => path.to_owned(),
        Some((path, known)) => {
            let others = known.split('&').filter(|pair| {
                let known = pair.split('=').next().unwrap_or_default();
                known != name && !pair.is_empty()
            });
            let others: Vec<&str> = others.collect();
            match others.is_empty() {
                true => path.to_owned(),
                false => format!("{path}?{}", others.join("&")),
            }
        }
    };
    query::append(&mut text, name, value);
    text
}

fn marked(mut response: Reply, version: &Arc<str>) -> Reply {
    let served = ServedVersion(Arc::clone(version));
    response.extensions_mut().insert(served);
    response
}

/// Whether the next version is asked after a result. What may have been processed goes on only if a second time does no
/// harm.
fn falls_back(versions: &VersionSettings, result: &Result<Reply>, idempotent: bool) -> bool {
    let asked_for = match result {
        Ok(response) => {
            let status = response.status();
            (status.is_client_error() || status.is_server_error())
                && versions.falls_back(Problem::kind_of(status.as_u16()), Some(status.as_u16()))
        }
        Err(error) => versions.falls_back(error.kind(), None),
    };
    asked_for && (idempotent || was_not_processed(result))
}

/// Whether asking goes on without more load than a call may make: nothing was sent, or the version has declined what it
/// does not know. All else is an attempt more, which comes out of the budget of retries.
fn was_no_load(result: &Result<Reply>) -> bool {
    match result {
        Ok(response) => {
            let status = response.status();
            refuses(status) && status != StatusCode::TOO_MANY_REQUESTS
        }
        Err(error) => {
            error.kind() == ErrorKind::Rejected && error.find::<RetryExhausted>().is_none()
        }
    }
}

fn reason(result: &Result<Reply>) -> String {
    match result {
        Ok(response) => response.status().to_string(),
        Err(error) => error.report().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_where_one_stood_or_behind_the_prefix() {
        let known = |segment: &str| ["v1", "v2"].contains(&segment);
        for (path, prefix, asked) in [
            ("/users/1", "", "/v2/users/1"),
            ("/users?limit=2", "", "/v2/users?limit=2"),
            ("/shop/users/1", "/shop", "/shop/v2/users/1"),
            ("/api/v1/users/1", "", "/api/v2/users/1"),
            ("/v2/users/v1", "", "/v2/users/v1"),
            ("/users?at=/v1/", "", "/v2/users?at=/v1/"),
            ("/", "", "/v2/"),
        ] {
            let text = in_path(path, prefix.len(), None, "v2", known);
            assert_eq!(text, asked, "{path}");
        }
    }

    #[test]
    fn what_is_data_is_no_version() {
        let known = |segment: &str| ["v1", "v2"].contains(&segment);
        for (endpoint, path, prefix, asked) in [
            ("", "/branches/v1", "", "/v2/branches/v1"),
            ("DELETE", "/branches/v1", "", "/v2/branches/v1"),
            (
                "GET /branches/{name}",
                "/branches/v1",
                "",
                "/v2/branches/v1",
            ),
            ("GET /{name}", "/v1", "", "/v2/v1"),
            ("GET /{rest...}", "/v1/v1", "", "/v2/v1/v1"),
            ("GET /v1/b/{name}", "/v1/b/v1", "", "/v2/b/v1"),
            ("GET /a/{name}/v1", "/a/v1/v1", "", "/a/v1/v2"),
            // The base path is that of the client, or of the endpoint alone.
            ("GET /b/{name}", "/v1/b/v1", "/v1", "/v2/b/v1"),
            (
                "GET /api/v1/b/{name}",
                "/api/v1/b/v1",
                "/api/v1",
                "/api/v2/b/v1",
            ),
            ("GET /b/{name}", "/v1/b/v1", "", "/v2/b/v1"),
        ] {
            let template = Template::parse(endpoint).ok();
            let text = in_path(path, prefix.len(), template.as_ref(), "v2", known);
            assert_eq!(text, asked, "{endpoint} {path}");
        }
    }

    #[test]
    fn a_parameter_is_set_once() {
        for (path, asked) in [
            ("/users", "/users?version=2"),
            ("/users?limit=2", "/users?limit=2&version=2"),
            ("/users?version=1", "/users?version=2"),
            ("/users?a=1&version=1&b=2", "/users?a=1&b=2&version=2"),
        ] {
            assert_eq!(in_query(path, "version", "2"), asked, "{path}");
        }
    }
}
