//! Which headers pass, which end here, and which the gateway adds.

use std::net::SocketAddr;

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what concerns one connection alone (RFC 9110, section 7.6.1): the fixed names, and those that the
/// `Connection` header lists.
pub(crate) fn end_hop(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    if headers.contains_key(CONNECTION) {
        for name in listed(headers) {
            headers.remove(name);
        }
    }
    for name in [
        &CONNECTION,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
        &PROXY_AUTHENTICATE,
        &PROXY_AUTHORIZATION,
        &TE,
        &TRAILER,
        &TRANSFER_ENCODING,
        &UPGRADE,
        &EXPECT,
    ] {
        headers.remove(name);
    }
    if trailers {
        // The one thing that may be said again, and that gRPC needs to be said.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(','));
    names.filter_map(|name| name.trim().parse().ok()).collect()
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    })
}

/// Says to the service who asked, and under which host. What an earlier proxy said stays in front.
pub(crate) fn tell_origin(headers: &mut HeaderMap, peer: Option<SocketAddr>) {
    if let Some(peer) = peer {
        let own = peer.ip().to_string();
        let chain = match headers
            .get(&FORWARDED_FOR)
            .and_then(|before| before.to_str().ok())
        {
            Some(before) => format!("{before}, {own}"),
            None => own,
        };
        if let Ok(chain) = HeaderValue::try_from(chain) {
            headers.insert(FORWARDED_FOR.clone(), chain);
        }
    }
    if let Some(host) = headers.remove(HOST) {
        headers.entry(FORWARDED_HOST.clone()).or_insert(host);
    }
    headers
        .entry(FORWARDED_PROTO.clone())
        .or_insert(HeaderValue::from_static("http"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        pairs
            .collect::<Vec<(HeaderName, HeaderValue)>>()
            .into_iter()
            .collect()
    }

    #[test]
    fn what_concerns_one_connection_ends_here() {
        let mut sent = headers(&[
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, Trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
        ]);
        end_hop(&mut sent);
        let left: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["te", "authorization", "accept"]);
        assert_eq!(sent["te"], "trailers");
    }

    #[test]
    fn the_service_is_told_who_asked_under_which_host() {
        let peer = Some("192.0.2.7:4711".parse().unwrap());
        let mut sent = headers(&[
            ("host", "api.example.com"),
            ("x-forwarded-for", "198.51.100.1"),
        ]);
        tell_origin(&mut sent, peer);
        assert_eq!(sent["x-forwarded-for"], "198.51.100.1, 192.0.2.7");
        assert_eq!(sent["x-forwarded-host"], "api.example.com");
        assert_eq!(sent["x-forwarded-proto"], "http");
        assert!(!sent.contains_key("host"));
    }
}
