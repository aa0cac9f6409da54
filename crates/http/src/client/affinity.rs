//! Whom a request is about, by a header or a cookie of its own.

use std::sync::Arc;

use http::HeaderMap;
use http::header::COOKIE;
use trunkline_discovery::LoadBalancerConfig;

/// The key of a request: the value of the configured header, or else of the configured cookie.
pub(super) fn key_of(config: &LoadBalancerConfig, headers: &HeaderMap) -> Option<Arc<str>> {
    let header = config.key_header.as_deref();
    let by_header = header.and_then(|name| headers.get(name)?.to_str().ok());
    let by_cookie = || cookie(headers, config.key_cookie.as_deref()?);
    let key = by_header.or_else(by_cookie)?;
    (!key.is_empty()).then(|| key.into())
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';'));
    pairs.find_map(|pair| {
        let (its, value) = pair.trim().split_once('=')?;
        (its == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(config: &LoadBalancerConfig, headers: &[(&'static str, &str)]) -> Option<String> {
        let headers = headers.iter();
        let headers: HeaderMap = headers
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        key_of(config, &headers).map(|key| key.to_string())
    }

    #[test]
    fn a_header_or_a_cookie_says_whom_a_request_is_about() {
        let mut config = LoadBalancerConfig::default();
        let cookies = ("cookie", "theme=dark; sid=\"abc\"; x");
        assert_eq!(key(&config, &[cookies]), None);
        config.key_cookie = Some("sid".to_owned());
        config.key_header = Some("X-User".to_owned());
        assert_eq!(key(&config, &[cookies]).as_deref(), Some("abc"));
        let user = ("x-user", "user-7");
        assert_eq!(key(&config, &[cookies, user]).as_deref(), Some("user-7"));
        assert_eq!(key(&config, &[("cookie", "sid2=1")]), None);
        assert_eq!(key(&config, &[("cookie", "sid=")]), None);
    }
}
