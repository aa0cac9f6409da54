//! One step of a chain of redirects.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION, PRAGMA, RANGE, TRAILER, TRANSFER_ENCODING, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode};
use url::Url;

use super::FollowRedirects;
use crate::body::Body;
use crate::origin::Origin;

/// What may go to another origin. A list of what is secret would never be complete: keys have headers of any name.
pub(crate) const HARMLESS: &[HeaderName] = &[
    ACCEPT,
    ACCEPT_ENCODING,
    ACCEPT_LANGUAGE,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_TYPE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    PRAGMA,
    RANGE,
    USER_AGENT,
];

/// Where the redirects of a call have led; goes along with the answer.
#[derive(Clone, Debug)]
pub(crate) struct Redirected {
    pub(crate) url: Url,
    /// Somebody on the way has processed the request, whatever the answer says.
    pub(crate) processed: bool,
}

/// Where a chain of redirects is, and how the request looks there.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) origin: Origin,
    pub(crate) path: PathAndQuery,
    pub(crate) url: Url,
    pub(crate) method: Method,
    /// The request goes on without its body.
    pub(crate) without_body: bool,
    /// It has left the origin it was meant for, and is no longer trusted with more than is harmless.
    pub(crate) crossed: bool,
    /// The method was another: whoever redirected has processed the request, and wants the outcome to be fetched.
    pub(crate) processed: bool,
}

/// Whether an answer is a redirect that can be followed.
pub(crate) fn leads_on(response: &Response<Body>) -> bool {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        && response.headers().contains_key(LOCATION)
}

impl Step {
    /// The request as it is sent first. `None` where its URL cannot be told.
    pub(crate) fn first(origin: &Origin, path: &PathAndQuery, method: &Method) -> Option<Self> {
        let base = match origin.socket() {
            None => origin.to_string(),
            // What is said there is relative to it, or names it by no name of its own.
            Some(_) => format!("http://{}", origin.authority()),
        };
        Some(Self {
            origin: origin.clone(),
            path: path.clone(),
            url: Url::parse(&format!("{base}{path}")).ok()?,
            method: method.clone(),
            without_body: false,
            crossed: false,
            processed: false,
        })
    }

    /// Where an answer leads; `None` where it leads nowhere, or nowhere one may go.
    pub(crate) fn next(&self, follow: FollowRedirects, response: &Response<Body>) -> Option<Self> {
        if !leads_on(response) {
            return None;
        }
        let location = response.headers().get(LOCATION)?;
        let location = std::str::from_utf8(location.as_bytes()).ok()?;
        let url = self.url.join(location).ok()?;
        let origin = self.origin_of(&url)?;
        let crossed = origin != self.origin;
        match follow {
            FollowRedirects::Never => return None,
            FollowRedirects::SameOrigin if crossed => return None,
            FollowRedirects::SameOrigin | FollowRedirects::Any => {}
        }
        if self.origin.is_tls() && !origin.is_tls() {
            return None;
        }
        let path = match url.query() {
            Some(query) => PathAndQuery::try_from(format!("{}?{query}", url.path())).ok()?,
            None => PathAndQuery::try_from(url.path()).ok()?,
        };
        let method = after(response.status(), &self.method);
        let changed = method != self.method;
        Some(Self {
            without_body: self.without_body
                || changed
                || response.status() == StatusCode::SEE_OTHER,
            crossed: self.crossed || crossed,
            processed: self.processed || changed,
            origin,
            path,
            url,
            method,
        })
    }

    fn origin_of(&self, url: &Url) -> Option<Origin> {
        let here = url.scheme() == self.url.scheme()
            && url.host_str() == self.url.host_str()
            && url.port_or_known_default() == self.url.port_or_known_default();
        if here {
            return Some(self.origin.clone());
        }
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        match url.scheme() {
            "http" => Origin::http(host, port).ok(),
            "https" => Origin::https(host, port).ok(),
            _ => None,
        }
    }

    /// The headers of a request that may go there.
    pub(crate) fn headers(&self, own: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(own.len());
        for (name, value) in own {
            let harmless = !self.crossed || HARMLESS.contains(name);
            let fits = !self.without_body || !is_about_body(name);
            // A validator is one of the URL that was asked, not of the one that it leads to; who writes only on a
            // condition does not write without it.
            let is_read = matches!(self.method, Method::GET | Method::HEAD);
            let is_validator = is_read && [IF_NONE_MATCH, IF_MODIFIED_SINCE].contains(name);
            if harmless && fits && !is_validator {
                headers.append(name, value.clone());
            }
        }
        headers
    }
}

/// The method that follows a redirect: that of the request, but where RFC 9110 lets it become GET as every browser has it.
fn after(status: StatusCode, method: &Method) -> Method {
    match status {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if *method == Method::POST => Method::GET,
        StatusCode::SEE_OTHER if *method != Method::HEAD => Method::GET,
        _ => method.clone(),
    }
}

/// Headers that speak of a body, or of the one request that had it.
fn is_about_body(name: &HeaderName) -> bool {
    name.as_str().starts_with("content-")
        || [TRANSFER_ENCODING, EXPECT, TRAILER].contains(name)
        || matches!(name.as_str(), "idempotency-key" | "digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(method: &Method, base: &str, path: &str) -> Step {
        let path = PathAndQuery::try_from(path).unwrap();
        Step::first(&base.parse().unwrap(), &path, method).unwrap()
    }

    fn answer(status: u16, location: &str) -> Response<Body> {
        let response = Response::builder().status(status);
        let response = response.header(LOCATION, location);
        response.body(Body::empty()).unwrap()
    }

    #[test]
    fn methods_and_bodies_follow_the_rules() {
        for (status, method, then, without_body) in [
            (301, Method::GET, Method::GET, false),
            (301, Method::POST, Method::GET, true),
            (302, Method::POST, Method::GET, true),
            (302, Method::PUT, Method::PUT, false),
            (301, Method::DELETE, Method::DELETE, false),
            (303, Method::POST, Method::GET, true),
            (303, Method::PUT, Method::GET, true),
            (303, Method::HEAD, Method::HEAD, true),
            (307, Method::POST, Method::POST, false),
            (308, Method::PATCH, Method::PATCH, false),
        ] {
            let first = step(&method, "http://a", "/x");
            let next = first
                .next(FollowRedirects::Any, &answer(status, "/y"))
                .unwrap();
            assert_eq!(next.method, then, "{status} {method}");
            assert_eq!(next.without_body, without_body, "{status} {method}");
            assert_eq!(next.processed, then != method, "{status} {method}");
        }
        for status in [200, 201, 300, 304, 305, 306, 404] {
            let first = step(&Method::GET, "http://a", "/x");
            assert!(
                first
                    .next(FollowRedirects::Any, &answer(status, "/y"))
                    .is_none()
            );
        }
    }

    #[test]
    fn places_are_relative_to_where_one_is() {
        for (base, location, url, crossed) in [
            ("http://a:81", "y?z=1#top", "http://a:81/p/y?z=1#top", false),
            ("http://a:81", "../y", "http://a:81/y", false),
            ("http://a:81", "?q", "http://a:81/p/x?q", false),
            ("http://a", "http://A:80/y", "http://a/y", false),
            ("http://a", "//b/y", "http://b/y", true),
            ("http://a", "http://a:81/y", "http://a:81/y", true),
            ("http://a", "https://a/y", "https://a/y", true),
            ("https://a", "https://a:443/y", "https://a/y", false),
            ("unix:///run/a.sock", "/y", "http://localhost/y", false),
            ("unix:///run/a.sock", "http://b/y", "http://b/y", true),
        ] {
            let first = step(&Method::GET, base, "/p/x");
            let next = first
                .next(FollowRedirects::Any, &answer(302, location))
                .unwrap();
            assert_eq!(next.url.as_str(), url, "{base} {location}");
            assert_eq!(next.crossed, crossed, "{base} {location}");
            let same = first.next(FollowRedirects::SameOrigin, &answer(302, location));
            assert_eq!(same.is_none(), crossed, "{base} {location}");
            assert!(
                first
                    .next(FollowRedirects::Never, &answer(302, location))
                    .is_none()
            );
        }
    }

    #[test]
    fn some_places_are_not_gone_to() {
        for (base, location) in [
            ("https://a", "http://a/y"),
            ("https://a", "//"),
            ("http://a", "file:///etc/passwd"),
            ("http://a", "unix:///run/docker.sock"),
            ("http://a", "gopher://b/1"),
            ("http://a", "http://[::1/"),
        ] {
            let first = step(&Method::GET, base, "/x");
            let next = first.next(FollowRedirects::Any, &answer(302, location));
            assert!(next.is_none(), "{base} {location}: {next:?}");
        }
    }

    #[test]
    fn what_was_left_once_is_not_trusted_again() {
        let mut own = HeaderMap::new();
        for name in [
            "authorization",
            "cookie",
            "x-api-key",
            "accept",
            "content-type",
            "baggage",
        ] {
            own.insert(name, "x".parse().unwrap());
        }
        own.insert("idempotency-key", "k".parse().unwrap());
        let first = step(&Method::POST, "http://a", "/x");
        let here = first
            .next(FollowRedirects::Any, &answer(307, "/y"))
            .unwrap();
        assert_eq!(here.headers(&own), own);
        let mut conditional = HeaderMap::new();
        conditional.insert("if-none-match", "*".parse().unwrap());
        let there = |method: &Method| {
            let first = step(method, "http://a", "/x");
            let answer = answer(307, "http://b/");
            let next = first.next(FollowRedirects::Any, &answer).unwrap();
            next.headers(&conditional).len()
        };
        assert_eq!(
            there(&Method::PUT),
            1,
            "what must not be overwritten is not"
        );
        assert_eq!(there(&Method::GET), 0);
        let got = first
            .next(FollowRedirects::Any, &answer(303, "/y"))
            .unwrap();
        assert_eq!(got.headers(&own).len(), 5);
        let there = here
            .next(FollowRedirects::Any, &answer(307, "http://b/"))
            .unwrap();
        let names = |step: &Step| {
            let mut names: Vec<_> = step.headers(&own).keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(&there), ["accept", "content-type"]);
        let back = there
            .next(FollowRedirects::Any, &answer(307, "http://a/"))
            .unwrap();
        assert_eq!(names(&back), ["accept", "content-type"]);
    }
}
