//! Under which key an answer is kept: what was asked for, and by whom.

use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::uri::PathAndQuery;
use sha2::{Digest, Sha256};
use trunkline_core::Context;
use trunkline_resilience::cache::{CacheSettings, Pattern};

/// Headers that say who asks, whatever else is said of the key.
const IDENTIFYING: [HeaderName; 3] = [AUTHORIZATION, COOKIE, HeaderName::from_static("x-api-key")];

/// Headers that do not say who asks: of what is wished, what is sent, what is carried along. Any other one may (a tenant, a
/// token under a name of its own), and servers forget to name it in `Vary`.
const NEUTRAL: &[&str] = &[
    "baggage",
    "cache-control",
    "connection",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "grpc-timeout",
    "host",
    "idempotency-key",
    "keep-alive",
    "last-event-id",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "save-data",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-correlation-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "x-request-timeout-ms",
    "x-service-name",
];

/// Beginnings of the names of such headers.
const NEUTRAL_FAMILIES: &[&str] = &["accept", "content-", "if-", "sec-", "x-b3-"];

/// Words in the names of headers whose values are commonly somebody's own: `x-tenant`, `x-auth-token`, `x-user-id`.
const SPEAKING: &[&str] = &[
    "account",
    "acting",
    "actor",
    "apikey",
    "assertion",
    "bearer",
    "behalf",
    "client",
    "company",
    "cookie",
    "credential",
    "credentials",
    "customer",
    "email",
    "group",
    "groups",
    "identity",
    "impersonate",
    "jwt",
    "key",
    "login",
    "member",
    "oauth",
    "oauth2",
    "org",
    "organisation",
    "organization",
    "owner",
    "principal",
    "project",
    "realm",
    "role",
    "roles",
    "saml",
    "scope",
    "scopes",
    "secret",
    "session",
    "sessionid",
    "signature",
    "subject",
    "team",
    "tenant",
    "tenantid",
    "token",
    "tokens",
    "user",
    "userid",
    "username",
    "workspace",
];

/// Which headers beside [`IDENTIFYING`] tell callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// None: the user has named what an answer depends on.
    Chosen,
    /// Those whose names speak of a caller. The server says by `Vary` what else an answer depends on.
    Speaking,
    /// All that are not known to say nothing: an answer is kept whatever the server says of it, so its `Vary` is no help.
    Unknown,
}

impl Telling {
    fn tells(self, name: &HeaderName) -> bool {
        match self {
            Self::Chosen => false,
            Self::Speaking => may_identify(name) && speaks_of_a_caller(name),
            Self::Unknown => may_identify(name),
        }
    }
}

fn speaks_of_a_caller(name: &HeaderName) -> bool {
    name.as_str()
        .split(['-', '_', '.'])
        .any(|word| word.starts_with("auth") || SPEAKING.contains(&word))
}

/// Stands for every identity, those without a name included; no identity is written so.
pub(super) const ANYBODY: &str = "*";

/// What a key is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    /// `GET /users/{id}`; not a template where none fits.
    pub(super) endpoint: &'a str,
    /// The path as the client was asked for it, which the template speaks of.
    pub(super) asked: &'a str,
    /// Path and query as they are sent.
    pub(super) target: &'a PathAndQuery,
    pub(super) headers: &'a HeaderMap,
}

impl Parts<'_> {
    /// The key as users know it: the one given, the pattern's, or method, path and query.
    ///
    /// # Errors
    /// The name of a parameter of the pattern that this call does not have.
    pub(super) fn user_key(
        &self,
        settings: &CacheSettings,
        by_ttl: bool,
        given: Option<&str>,
    ) -> Result<String, String> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        if let Some(pattern) = settings.key.as_deref().filter(|_| by_ttl) {
            return self.fill(pattern);
        }
        let mut key = format!("GET {}", self.target.path());
        match settings.vary_on.as_deref().filter(|_| by_ttl) {
            None => {
                if let Some(query) = self.target.query() {
                    key.push('?');
                    key.push_str(query);
                }
            }
            Some(names) => {
                let (mut names, mut mark) = (names.iter().collect::<Vec<_>>(), '?');
                names.sort_unstable();
                names.dedup();
                for name in names {
                    // Parameters of the path are in the path.
                    let value = match name.strip_prefix("header:") {
                        Some(header) => self.header(header),
                        None => self.query(name),
                    };
                    if let Some(value) = value {
                        let pair: String = url::form_urlencoded::Serializer::new(String::new())
                            .append_pair(name, &value)
                            .finish();
                        key.push(mark);
                        key.push_str(&pair);
                        mark = '&';
                    }
                }
            }
        }
        Ok(key)
    }

    /// Fills a pattern.
    pub(super) fn fill(&self, pattern: &str) -> Result<String, String> {
        Pattern::fill(pattern, |name| self.parameter(name)).map_err(str::to_owned)
    }

    fn parameter(&self, name: &str) -> Option<String> {
        if let Some(header) = name.strip_prefix("header:") {
            return self.header(header);
        }
        self.segment(name).or_else(|| self.query(name))
    }

    fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers.get_all(name).iter().peekable();
        values.peek()?;
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Some(values.map(text).collect::<Vec<_>>().join(","))
    }

    /// A parameter of the path, by the endpoint's template.
    fn segment(&self, name: &str) -> Option<String> {
        let template = self
            .endpoint
            .split_once(' ')
            .map_or(self.endpoint, |(_, path)| path);
        let mut parts = self.asked.trim_start_matches('/').split('/');
        for segment in template.trim_start_matches('/').split('/') {
            let part = parts.next()?;
            let inner = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            let decoded = |text: &str| {
                percent_encoding::percent_decode_str(text)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            match inner {
                Some(inner) if inner == name => return Some(decoded(part)),
                Some(inner) if inner.strip_suffix("...") == Some(name) => {
                    let rest: Vec<&str> = std::iter::once(part).chain(parts).collect();
                    return Some(decoded(&rest.join("/")));
                }
                _ => {}
            }
        }
        None
    }

    /// A parameter of the query; of several values all.
    fn query(&self, name: &str) -> Option<String> {
        let query = self.target.query()?;
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let values: Vec<_> = pairs
            .filter(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }
}

/// The key in the memory. Versions of a service answer each for itself, however they are named.
pub(super) fn full_key(service: &str, user_key: &str, form: &str, identity: &str) -> Arc<str> {
    [service, user_key, form, identity].join("\n").into()
}

/// Whether the value of a header may be one caller's own.
fn may_identify(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NEUTRAL.contains(&name)
        && !NEUTRAL_FAMILIES
            .iter()
            .any(|family| name.starts_with(family))
}

/// Who asks: empty where nothing says so. Tokens stand in it only as what cannot be turned back.
///
/// [`IDENTIFYING`] headers always count, `telling` says which others do.
pub(super) fn identity(headers: &HeaderMap, context: &Context, telling: Telling) -> String {
    let mut text = String::new();
    if let Some(identity) = context.identity() {
        let proven = if identity.verified {
            "proven"
        } else {
            "claimed"
        };
        text.push_str(proven);
        text.push(' ');
        text.push_str(&identity.service);
    }
    let mut names: Vec<&HeaderName> = headers
        .keys()
        .filter(|name| IDENTIFYING.contains(name) || telling.tells(name))
        .collect();
    if names.is_empty() {
        return text;
    }
    names.sort_unstable_by_key(|name| name.as_str());
    let mut digest = Sha256::new();
    for name in names {
        for value in headers.get_all(name) {
            digest.update(name.as_str());
            digest.update(value.len().to_le_bytes());
            digest.update(value.as_bytes());
        }
    }
    text.push('#');
    for byte in digest.finalize() {
        text.push(hex(byte >> 4));
        text.push(hex(byte & 15));
    }
    text
}

fn hex(digit: u8) -> char {
    char::from_digit(u32::from(digit), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use trunkline_core::Identity;

    use super::*;

    fn settings(key: Option<&str>, vary_on: Option<&[&str]>) -> CacheSettings {
        let mut settings = CacheSettings::default();
        settings.key = key.map(Into::into);
        settings.vary_on =
            vary_on.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        settings
    }

    fn key(settings: &CacheSettings, by_ttl: bool, target: &str) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        headers.insert("accept-language", "es".parse().unwrap());
        let target: PathAndQuery = target.parse().unwrap();
        let parts = Parts {
            endpoint: "GET /products/{id}/{rest...}",
            asked: target.path(),
            target: &target,
            headers: &headers,
        };
        parts.user_key(settings, by_ttl, None)
    }

    #[test]
    fn keys_are_made_of_what_was_asked_for() {
        let pattern = settings(Some("p:{id}:{rest}:{lang}:{header:accept-language}"), None);
        let path = "/products/4%32/a/b?lang=en&x=1";
        assert_eq!(key(&pattern, true, path).unwrap(), "p:42:a/b:en:es");
        assert_eq!(key(&pattern, true, "/products/1/a").unwrap_err(), "lang");
        let plain = format!("GET {path}");
        assert_eq!(
            key(&pattern, false, path).unwrap(),
            plain,
            "only with a time"
        );
        assert_eq!(key(&settings(None, None), true, path).unwrap(), plain);
        let chosen = settings(
            None,
            Some(&["lang", "header:accept-language", "id", "none"]),
        );
        assert_eq!(
            key(&chosen, true, path).unwrap(),
            "GET /products/4%32/a/b?header%3Aaccept-language=es&lang=en"
        );
    }

    #[test]
    fn whoever_asks_has_a_key_of_their_own_and_no_token_is_in_it() {
        let nobody = Context::new();
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            identity(&headers, &nobody, Telling::Unknown)
        };
        let ada = of("authorization", "Bearer hunter2");
        assert_eq!(ada, of("authorization", "Bearer hunter2"));
        assert_ne!(ada, of("authorization", "Bearer hunter3"));
        assert_ne!(ada, of("cookie", "Bearer hunter2"));
        assert_ne!(of("x-api-key", "a"), of("x-api-key", "b"));
        assert!(!ada.contains("hunter"));
        assert_eq!(identity(&HeaderMap::new(), &nobody, Telling::Unknown), "");
        let claimed = Context::new().with_identity(Identity::claimed("orders"));
        let mut proven = Identity::claimed("orders");
        proven.verified = true;
        let proven = Context::new().with_identity(proven);
        let none = HeaderMap::new();
        assert_ne!(
            identity(&none, &claimed, Telling::Unknown),
            identity(&none, &proven, Telling::Unknown)
        );
    }

    #[test]
    fn a_header_that_nobody_knows_may_say_who_asks() {
        let nobody = Context::new();
        let of = |name: &'static str, value: &str, telling| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            identity(&headers, &nobody, telling)
        };
        for name in [
            "x-tenant",
            "x-auth-token",
            "proxy-authorization",
            "x-forwarded-user",
        ] {
            for telling in [Telling::Speaking, Telling::Unknown] {
                assert_ne!(of(name, "a", telling), of(name, "b", telling), "{name}");
            }
            assert_eq!(of(name, "a", Telling::Chosen), "", "{name}: somebody chose");
        }
        let own = "req-num";
        assert_ne!(
            of(own, "1", Telling::Unknown),
            of(own, "2", Telling::Unknown)
        );
        assert_eq!(of(own, "1", Telling::Speaking), "", "`Vary` would name it");
        assert_ne!(
            of("authorization", "a", Telling::Chosen),
            of("authorization", "b", Telling::Chosen)
        );
        for name in [
            "accept-language",
            "user-agent",
            "traceparent",
            "x-request-id",
        ] {
            assert_eq!(of(name, "a", Telling::Unknown), "", "{name}");
        }
    }
}
