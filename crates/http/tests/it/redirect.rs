//! Redirects, which are followed only where that is asked for.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_core::ErrorKind;
use trunkline_http::{
    AddressDenied, Body, EnhancedHttpClient, FollowRedirects, HttpClientConfig, RedirectConfig,
    TooManyRedirects,
};

use crate::rig::{Server, in_time};

/// What a server was asked.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: String,
}

type Log = Arc<Mutex<Vec<Seen>>>;

/// `/<status>/<where>` redirects there (a URL stands behind `to=`), everything else answers.
async fn server() -> (Server, Log) {
    let log = Log::default();
    let kept = Arc::clone(&log);
    let server = Server::start_with(move |request: Request<Incoming>| {
        let log = Arc::clone(&kept);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            log.lock().unwrap().push(Seen {
                method: parts.method.clone(),
                path: parts.uri.to_string(),
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            });
            let query = parts.uri.query().unwrap_or_default();
            let to = query.strip_prefix("to=").unwrap_or("/end");
            let status = parts.uri.path().trim_start_matches('/').parse();
            let mut response = Response::builder();
            if let Ok(status) = status {
                response = response.status::<u16>(status).header("location", to);
            }
            response
                .header("set-cookie", "id=1")
                .body(Body::from("end"))
                .unwrap()
        }
    })
    .await;
    (server, log)
}

fn client(url: String, redirects: RedirectConfig) -> EnhancedHttpClient {
    let config = HttpClientConfig::new(url).with_redirects(redirects);
    EnhancedHttpClient::from_config(config).unwrap()
}

fn seen(log: &Log) -> Vec<Seen> {
    std::mem::take(&mut log.lock().unwrap())
}

fn asked(log: &Log) -> Vec<String> {
    let line = |seen: Seen| format!("{} {} {}", seen.method, seen.path, seen.body);
    seen(log).into_iter().map(line).collect()
}

#[tokio::test]
async fn none_is_followed_unless_asked_for() {
    let (server, log) = server().await;
    let client = EnhancedHttpClient::new(server.url()).unwrap();
    let response = in_time(client.get("/302").send()).await.unwrap();
    assert_eq!(response.status(), 302);
    assert_eq!(response.header("location"), Some("/end"));
    assert_eq!(response.redirected_to(), None);
    assert_eq!(asked(&log), ["GET /302 "]);
}

#[tokio::test]
async fn methods_and_bodies_go_where_they_should() {
    let (server, log) = server().await;
    let client = client(server.url(), RedirectConfig::same_origin());
    for (status, method, then) in [
        (301, Method::POST, "GET /end "),
        (302, Method::POST, "GET /end "),
        (303, Method::PUT, "GET /end "),
        (307, Method::POST, "POST /end hello"),
        (308, Method::PUT, "PUT /end hello"),
        (301, Method::DELETE, "DELETE /end hello"),
    ] {
        let request = client
            .request(method.clone(), format!("/{status}"))
            .header("content-type", "text/plain")
            .idempotency_key("one")
            .body("hello");
        let response = in_time(request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        let end = format!("{}/end", server.url());
        assert_eq!(response.redirected_to(), Some(&*end));
        let seen = seen(&log);
        assert_eq!(seen.len(), 2, "{status}");
        let last = &seen[1];
        assert_eq!(
            format!("{} {} {}", last.method, last.path, last.body),
            then,
            "{status}"
        );
        let kept = then.ends_with("hello");
        for name in ["content-type", "idempotency-key"] {
            assert_eq!(last.headers.contains_key(name), kept, "{status} {name}");
        }
    }
    // Both hops went over the same connection.
    assert_eq!(server.count.total(), 1);
}

#[tokio::test]
async fn a_stream_is_not_sent_twice() {
    let (server, log) = server().await;
    let client = client(server.url(), RedirectConfig::any());
    let stream = || {
        let pieces = [Ok::<_, trunkline_core::Error>(bytes::Bytes::from(
            "streamed",
        ))];
        Body::stream(futures_util::stream::iter(pieces))
    };
    let response = in_time(client.post("/307").body(stream()).send())
        .await
        .unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(asked(&log), ["POST /307 streamed"]);
    // Where the body is left behind there is nothing to send twice.
    let response = in_time(client.post("/303").body(stream()).send())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(asked(&log), ["POST /303 streamed", "GET /end "]);
}

#[tokio::test]
async fn what_is_secret_stays_with_the_origin_it_is_for() {
    let (first, log) = server().await;
    let (other, others) = server().await;
    let mut config = HttpClientConfig::new(first.url()).with_header("x-api-key", "of the client");
    config.redirects = RedirectConfig::any();
    let client = EnhancedHttpClient::from_config(config)
        .unwrap()
        .attempt_middleware(
            async |mut request: trunkline_http::ServiceRequest, next: trunkline_http::Next| {
                request
                    .headers_mut()
                    .insert("x-signature", "signed".parse().unwrap());
                next.run(request).await
            },
        );
    let secret = [
        "authorization",
        "cookie",
        "x-api-key",
        "x-signature",
        "x-correlation-id",
        "traceparent",
    ];
    let request = |path: String| {
        client
            .get(&path)
            .bearer("hunter2")
            .header("cookie", "id=1")
            .header("accept", "text/plain")
    };
    let response = in_time(request("/302".to_owned()).send()).await.unwrap();
    assert_eq!(response.status(), 200);
    let here = seen(&log);
    for name in secret {
        assert!(
            here[1].headers.contains_key(name),
            "{name} is lost: {here:?}"
        );
    }

    // There and back again: what has been away is not trusted.
    let back = format!("{}/302?to={}/end", other.url(), first.url());
    in_time(request(format!("/302?to={back}")).send())
        .await
        .unwrap();
    let (here, there) = (seen(&log), seen(&others));
    assert_eq!((here.len(), there.len()), (2, 1));
    for name in secret {
        assert!(here[0].headers.contains_key(name), "{name}");
        assert!(
            !there[0].headers.contains_key(name),
            "{name} leaked: {there:?}"
        );
        assert!(!here[1].headers.contains_key(name), "{name}");
    }
    assert_eq!(there[0].headers["accept"], "text/plain");
    assert_eq!(there[0].headers["host"], other.address.to_string());
}

#[tokio::test]
async fn the_policy_says_how_far_and_how_often() {
    let (first, log) = server().await;
    let (other, others) = server().await;
    let away = format!("/302?to={}/end", other.url());
    let stays = client(first.url(), RedirectConfig::same_origin());
    let response = in_time(stays.get(&away).send()).await.unwrap();
    assert_eq!(response.status(), 302);
    assert!(seen(&others).is_empty());
    seen(&log);

    let few = client(first.url(), RedirectConfig::any().with_limit(3));
    let error = in_time(few.get("/302?to=/302?to=/302?to=/302?to=/end").send()).await;
    let error = trunkline_core::Error::from(error.unwrap_err());
    assert_eq!(error.find::<TooManyRedirects>().unwrap().limit, 3);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(seen(&log).len(), 4, "and not repeated");
    in_time(few.get("/302?to=/302?to=/302?to=/end").send())
        .await
        .unwrap();
    assert_eq!(seen(&log).len(), 4);
}

/// A POST that was answered with "see there" has been processed: that there is nobody there repeats nothing.
#[tokio::test]
async fn what_was_processed_is_not_repeated_because_the_way_on_is_closed() {
    let (first, log) = server().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let client = client(first.url(), RedirectConfig::any());
    let to = format!("to=http://{nobody}/");
    let error = in_time(client.post(format!("/303?{to}")).body("x").send())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(seen(&log).len(), 1);
}

/// The first hop leads, through a proxy, to an address that is public; the next one is checked when it is about to be dialled.
#[tokio::test]
async fn no_redirect_leads_past_the_guard() {
    let (private, log) = server().await;
    let target = format!("{}/end", private.url());
    let redirecting = Server::scripted(move |_, mut raw| {
        let target = target.clone();
        async move {
            raw.request().await.unwrap();
            raw.write(format!(
                "HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
            raw.until_closed().await;
        }
    })
    .await;
    // A proxy on this machine that leads to the redirecting server, whoever is asked for.
    let way = redirecting.address;
    let proxy = Server::scripted(move |_, raw| async move { raw.tunnel_to(way).await }).await;
    let mut config = HttpClientConfig::new("http://93.184.215.14");
    config.proxy = Some(proxy.url());
    config.deny_private_addresses = true;
    config.redirects.follow = FollowRedirects::Any;
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let error = in_time(client.get("/").send()).await.unwrap_err();
    assert_eq!(redirecting.count.requests(), 1, "{error:?}");
    let error = trunkline_core::Error::from(error);
    assert_eq!(error.find::<AddressDenied>().unwrap().address, "127.0.0.1");
    assert!(seen(&log).is_empty());
}

#[tokio::test]
async fn cookies_are_not_kept() {
    let (server, log) = server().await;
    let client = client(server.url(), RedirectConfig::same_origin());
    let response = in_time(client.get("/302").send()).await.unwrap();
    assert_eq!(response.header("set-cookie"), Some("id=1"));
    in_time(client.get("/").send()).await.unwrap();
    let seen = seen(&log);
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| !seen.headers.contains_key("cookie")));
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_a_place_like_any_other() {
    use tokio::net::UnixListener;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("users.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let count = crate::rig::Count::default();
    let counted = count.clone();
    let serving = crate::rig::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let serving = crate::rig::serve(
                socket,
                counted.clone(),
                async |request: Request<Incoming>| {
                    let mut response = Response::new(Body::from(format!(
                        "{:?} {} {:?}",
                        request.version(),
                        request.uri().path(),
                        request.headers().get("host")
                    )));
                    if request.uri().path() == "/v1/moved" {
                        *response.status_mut() = http::StatusCode::PERMANENT_REDIRECT;
                        response
                            .headers_mut()
                            .insert("location", "/v1/there".parse().unwrap());
                    }
                    response
                },
            );
            crate::rig::spawn(serving);
        }
    });
    for form in ["unix:", "unix://"] {
        for http2 in [false, true] {
            let mut config = HttpClientConfig::new(format!("{form}{}:/v1/", path.display()));
            config.redirects = RedirectConfig::same_origin();
            config.http2_prior_knowledge = http2;
            let client = EnhancedHttpClient::from_config(config).unwrap();
            let response = in_time(client.get("/moved").send()).await.unwrap();
            let text = response.text().await.unwrap();
            let expected = if http2 {
                "HTTP/2.0 /v1/there None"
            } else {
                "HTTP/1.1 /v1/there Some(\"localhost\")"
            };
            assert_eq!(text, expected);
        }
    }
    serving.abort();
}
