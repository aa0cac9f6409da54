//! Which headers pass, which end here, and which the gateway adds.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use trunkline_core::{Id, Propagation, names};

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The rules of one gateway.
#[derive(Debug)]
pub(crate) struct Headers {
    trust_forwarded: bool,
    /// `1.1 trunkline-<id>`: the id is this gateway's alone, so that it knows its own requests when they come back.
    via: HeaderValue,
    pseudonym: String,
    /// The context travels on in headers of the gateway's own making.
    context: Vec<HeaderName>,
}

/// The request has been here before: its service leads back to this gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loop;

impl Headers {
    pub(crate) fn new(trust_forwarded: bool, propagation: &Propagation) -> Self {
        let id = Id::new().to_string();
        let start = id.len().saturating_sub(12);
        let pseudonym = format!("trunkline-{}", id.get(start..).unwrap_or(&id));
        let via = HeaderValue::try_from(format!("1.1 {pseudonym}"));
        let context = [
            propagation.correlation_header(),
            propagation.deadline_header(),
            propagation.service_header(),
            names::header::TRACEPARENT,
            names::header::TRACESTATE,
            names::header::BAGGAGE,
        ];
        Self {
            trust_forwarded,
            via: via.unwrap_or(HeaderValue::from_static("1.1 trunkline")),
            pseudonym,
            context: context
                .into_iter()
                .filter_map(|name| name.try_into().ok())
                .collect(),
        }
    }

    /// Makes the headers of a request those of the next hop.
    pub(crate) fn onward(&self, parts: &mut Parts, peer: Option<SocketAddr>) -> Result<(), Loop> {
        let headers = &mut parts.headers;
        let own = |value: &HeaderValue| {
            value
                .to_str()
                .is_ok_and(|value| value.contains(&self.pseudonym))
        };
        if headers.get_all(VIA).iter().any(own) {
            return Err(Loop);
        }
        // HTTP/2 has the host in its URI, and an absolute URI outweighs the header.
        let host = match parts.uri.authority() {
            Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
            None => headers.get(HOST).cloned(),
        };
        end_hop(headers);
        headers.remove(HOST);
        headers.remove(EXPECT);
        for name in &self.context {
            headers.remove(name);
        }
        join_cookies(headers);
        if !self.trust_forwarded {
            forget_claims(headers);
        }
        tell_origin(headers, peer.map(|peer| peer.ip()), host);
        headers.append(VIA, self.via.clone());
        Ok(())
    }

    /// Makes the headers of an answer those of the gateway's own answer.
    pub(crate) fn back(&self, headers: &mut HeaderMap) {
        end_hop(headers);
    }
}

/// Removes what concerns one connection alone (RFC 9110, section 7.6.1): the fixed names, and those that the
/// `Connection` header lists.
fn end_hop(headers: &mut HeaderMap) {
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
        &TRANSFER_ENCODING,
        &UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        // The one thing that may be said again, and that gRPC needs to be said.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes what a client says about who asked and how: the whole family, as frameworks read more of it than we write.
fn forget_claims(headers: &mut HeaderMap) {
    let claims =
        |name: &&HeaderName| name.as_str().starts_with("x-forwarded-") || **name == REAL_IP;
    let claimed: Vec<HeaderName> = headers.keys().filter(claims).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    headers.remove(FORWARDED);
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
    let codings = value.to_str().unwrap_or_default().split(',');
    let name = |coding: &str| {
        coding
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case("trailers")
    };
    codings.into_iter().any(name)
}

/// HTTP/2 may send each cookie in a header of its own; HTTP/1 knows one header only (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// Says to the service who asked, and under which host: behind what an earlier proxy said, if that is believed.
fn tell_origin(headers: &mut HeaderMap, peer: Option<IpAddr>, host: Option<HeaderValue>) {
    let mut element = String::new();
    if let Some(peer) = peer {
        append(headers, &FORWARDED_FOR, &peer.to_string());
        element.push_str(&match peer {
            IpAddr::V4(peer) => format!("for={peer};"),
            IpAddr::V6(peer) => format!("for=\"[{peer}]\";"),
        });
    }
    if let Some(host) = host {
        if let Some(quoted) = host
            .to_str()
            .ok()
            .filter(|host| !host.contains(['"', '\\']))
        {
            element.push_str(&format!("host=\"{quoted}\";"));
        }
        headers.entry(&FORWARDED_HOST).or_insert(host);
    }
    element.push_str("proto=http");
    append(headers, &FORWARDED, &element);
    headers
        .entry(&FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
}

/// Adds to the end of a list, which may stand in several headers of that name.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut list: Vec<u8> = Vec::new();
    for before in headers.get_all(name) {
        list.extend_from_slice(before.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, pairs: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn rules(trust: bool) -> Headers {
        Headers::new(trust, &Propagation::default())
    }

    fn peer() -> Option<SocketAddr> {
        Some("192.0.2.7:4711".parse().unwrap())
    }

    #[test]
    fn what_concerns_one_connection_ends_here() {
        let mut sent = parts(
            "/",
            &[
                ("connection", "close, X-Secret"),
                ("connection", "x-other"),
                ("x-secret", "1"),
                ("x-other", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip, Trailers;q=0.5"),
                ("trailer", "x-checksum"),
                ("upgrade", "websocket"),
                ("expect", "100-continue"),
                ("transfer-encoding", "chunked"),
                ("proxy-authorization", "Basic x"),
                ("authorization", "Bearer x"),
            ],
        );
        rules(false).onward(&mut sent, None).unwrap();
        let mut left: Vec<&str> = sent.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let expected = [
            "authorization",
            "forwarded",
            "te",
            "trailer",
            "via",
            "x-forwarded-proto",
        ];
        assert_eq!(left, expected);
        assert_eq!(sent.headers["te"], "trailers");

        let mut answer = parts(
            "/",
            &[
                ("connection", "x-private"),
                ("x-private", "1"),
                ("upgrade", "h2c"),
                ("etag", "1"),
            ],
        );
        rules(false).back(&mut answer.headers);
        assert_eq!(answer.headers.keys().collect::<Vec<_>>(), ["etag"]);
    }

    #[test]
    fn the_service_is_told_who_asked_under_which_host() {
        for (uri, header, host) in [
            ("/", Some("api.example.com"), "api.example.com"),
            ("http://h2.example.com/", None, "h2.example.com"),
            ("http://h2.example.com/", Some("other"), "h2.example.com"),
        ] {
            let pairs: Vec<_> = header.map(|host| ("host", host)).into_iter().collect();
            let mut sent = parts(uri, &pairs);
            rules(false).onward(&mut sent, peer()).unwrap();
            assert_eq!(sent.headers["x-forwarded-for"], "192.0.2.7");
            assert_eq!(sent.headers["x-forwarded-host"], host);
            assert_eq!(sent.headers["x-forwarded-proto"], "http");
            assert_eq!(
                sent.headers["forwarded"],
                format!("for=192.0.2.7;host=\"{host}\";proto=http")
            );
            assert!(!sent.headers.contains_key("host"));
        }
        let mut sent = parts("/", &[]);
        rules(false)
            .onward(&mut sent, Some("[2001:db8::1]:1".parse().unwrap()))
            .unwrap();
        assert_eq!(
            sent.headers["forwarded"],
            "for=\"[2001:db8::1]\";proto=http"
        );
    }

    #[test]
    fn claims_are_believed_only_where_that_is_configured() {
        let claims = [
            ("host", "api"),
            ("forwarded", "for=198.51.100.1;proto=https"),
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "198.51.100.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example.com"),
            ("x-forwarded-prefix", "/shop"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "198.51.100.1"),
        ];
        let mut sent = parts("/", &claims);
        rules(true).onward(&mut sent, peer()).unwrap();
        assert_eq!(
            sent.headers["x-forwarded-for"],
            "198.51.100.1, 198.51.100.2, 192.0.2.7"
        );
        assert_eq!(sent.headers["x-forwarded-proto"], "https");
        assert_eq!(sent.headers["x-forwarded-host"], "shop.example.com");
        let forwarded = "for=198.51.100.1;proto=https, for=192.0.2.7;host=\"api\";proto=http";
        assert_eq!(sent.headers["forwarded"], forwarded);
        assert_eq!(sent.headers["x-forwarded-prefix"], "/shop");

        let mut sent = parts("/", &claims);
        rules(false).onward(&mut sent, peer()).unwrap();
        assert_eq!(sent.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(sent.headers["x-forwarded-proto"], "http");
        assert_eq!(sent.headers["x-forwarded-host"], "api");
        for name in ["x-forwarded-prefix", "x-forwarded-port", "x-real-ip"] {
            assert!(!sent.headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_request_that_was_here_before_is_a_loop() {
        let (one, other) = (rules(false), rules(false));
        let mut sent = parts("/", &[("via", "1.0 fred")]);
        one.onward(&mut sent, None).unwrap();
        other.onward(&mut sent, None).unwrap();
        assert_eq!(sent.headers.get_all("via").iter().count(), 3);
        assert_eq!(one.onward(&mut sent, None), Err(Loop));
    }

    #[test]
    fn crumbs_become_one_cookie_and_old_context_goes() {
        let mut sent = parts(
            "/",
            &[
                ("cookie", "a=1"),
                ("cookie", "b=2"),
                ("traceparent", "nonsense"),
                ("tracestate", "x=1"),
                ("x-correlation-id", "1"),
            ],
        );
        rules(false).onward(&mut sent, None).unwrap();
        assert_eq!(sent.headers["cookie"], "a=1; b=2");
        for name in ["traceparent", "tracestate", "x-correlation-id"] {
            assert!(!sent.headers.contains_key(name), "{name}");
        }
    }
}
