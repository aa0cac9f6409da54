//! Connections through proxies, and those that are not made at all.

use std::time::Duration;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use trunkline_core::{ErrorKind, Retry, Secret};
use trunkline_discovery::{Instances, Probe, ServiceInstance, ServiceName};
use trunkline_http::{
    AddressDenied, ConnectFailed, ConnectStage, EnhancedHttpClient, HttpClientConfig, HttpProbe,
    Origin, Transport, TransportConfig,
};

use crate::rig::{Server, fetch, get, in_time, spawn, text};

/// Hosts that exist only behind the proxy.
const HOST: &str = "service.invalid";

/// What a proxy was asked for.
type Asked = mpsc::UnboundedReceiver<String>;

/// Serves each connection in this way.
async fn listening<S>(
    serve: impl Fn(TcpStream, mpsc::UnboundedSender<String>) -> S + Send + 'static,
) -> (u16, Asked)
where
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, asked) = mpsc::unbounded_channel();
    spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            spawn(serve(socket, sender.clone()));
        }
    });
    (port, asked)
}

/// A proxy that tells what it is asked for, and leads every host to this machine.
async fn proxy(socks: bool, refuse: bool) -> (u16, Asked) {
    listening(move |mut socket, sender| async move {
        let (seen, target) = if socks {
            socks5(&mut socket, refuse).await
        } else {
            connect(&mut socket, refuse).await
        };
        sender.send(seen).unwrap();
        let Some(target) = target else { return };
        let mut behind = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
        drop(copy_bidirectional(&mut socket, &mut behind).await);
    })
    .await
}

/// A proxy such as squid, which opens tunnels to 443 alone and passes on requests that hold the whole URI.
async fn forwarding() -> (u16, Asked) {
    listening(|mut socket, sender| async move {
        let head = head_of(&mut socket).await;
        sender.send(head.clone()).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let Some(rest) = target.strip_prefix("http://") else {
            let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(answer.as_bytes()).await.unwrap();
            return;
        };
        let (authority, path) = rest.split_once('/').unwrap();
        let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
        let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = head.replace(&target, &format!("/{path}"));
        behind.write_all(head.as_bytes()).await.unwrap();
        drop(copy_bidirectional(&mut socket, &mut behind).await);
    })
    .await
}

async fn head_of(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn connect(socket: &mut TcpStream, refuse: bool) -> (String, Option<u16>) {
    let head = head_of(socket).await;
    if refuse {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
        socket.write_all(answer.as_bytes()).await.unwrap();
        return (head, None);
    }
    let target = head.split(' ').nth(1).unwrap();
    let port = target.rsplit(':').next().unwrap().parse().unwrap();
    let answer = "HTTP/1.1 200 Connection Established\r\nvia: test\r\n\r\n";
    socket.write_all(answer.as_bytes()).await.unwrap();
    (head, Some(port))
}

async fn socks5(socket: &mut TcpStream, refuse: bool) -> (String, Option<u16>) {
    let mut seen = String::new();
    let mut head = [0; 2];
    socket.read_exact(&mut head).await.unwrap();
    let mut methods = vec![0; usize::from(head[1])];
    socket.read_exact(&mut methods).await.unwrap();
    if methods.contains(&2) {
        socket.write_all(&[5, 2]).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), 1);
        for _ in 0..2 {
            let mut text = vec![0; usize::from(socket.read_u8().await.unwrap())];
            socket.read_exact(&mut text).await.unwrap();
            seen += &format!("{} ", String::from_utf8(text).unwrap());
        }
        socket.write_all(&[1, u8::from(refuse)]).await.unwrap();
        if refuse {
            return (seen, None);
        }
    } else {
        socket.write_all(&[5, 0]).await.unwrap();
    }
    let mut head = [0; 4];
    socket.read_exact(&mut head).await.unwrap();
    let host = match head[3] {
        1 => {
            let mut octets = [0; 4];
            socket.read_exact(&mut octets).await.unwrap();
            std::net::Ipv4Addr::from(octets).to_string()
        }
        _ => {
            let mut name = vec![0; usize::from(socket.read_u8().await.unwrap())];
            socket.read_exact(&mut name).await.unwrap();
            String::from_utf8(name).unwrap()
        }
    };
    let port = socket.read_u16().await.unwrap();
    let code = if refuse { 2 } else { 0 };
    socket
        .write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    (format!("{seen}{host}:{port}"), (!refuse).then_some(port))
}

fn through(url: &str) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.proxy = Some(Secret::from(url));
    config
}

async fn hosts() -> Server {
    Server::start(|request: Request<_>| async move {
        text(request.headers()["host"].to_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn a_tunnel_leads_to_what_the_proxy_alone_can_find() {
    let server = hosts().await;
    let port = server.address.port();
    for (scheme, socks, user) in [
        ("http", false, ""),
        ("http", false, "me:p%40ss@"),
        ("socks5h", true, ""),
        ("socks5h", true, "me:p%40ss@"),
    ] {
        let (proxy, mut asked) = proxy(socks, false).await;
        let transport = through(&format!("{scheme}://{user}127.0.0.1:{proxy}"));
        let transport = Transport::new(&transport).unwrap();
        let origin = Origin::http(HOST, port).unwrap();
        for _ in 0..2 {
            let answer = in_time(fetch(&transport, &origin, get("/"))).await;
            assert_eq!(answer.unwrap(), format!("{HOST}:{port}"));
        }
        let seen = asked.recv().await.unwrap();
        assert!(seen.contains(&format!("{HOST}:{port}")), "{seen}");
        let credentials = if socks {
            "me p@ss "
        } else {
            "proxy-authorization: Basic bWU6cEBzcw=="
        };
        assert_eq!(seen.contains(credentials), !user.is_empty(), "{seen}");
        assert!(asked.try_recv().is_err(), "the tunnel was not used again");
    }
}

#[tokio::test]
async fn a_proxy_that_opens_no_tunnel_is_sent_the_requests() {
    let (server, other) = (hosts().await, hosts().await);
    for user in ["", "me:p%40ss@"] {
        let (proxy, mut asked) = forwarding().await;
        let transport = through(&format!("http://{user}127.0.0.1:{proxy}"));
        let transport = Transport::new(&transport).unwrap();
        let mut seen = Vec::new();
        for server in [&server, &other] {
            let port = server.address.port();
            let origin = Origin::http(HOST, port).unwrap();
            for _ in 0..2 {
                let answer = in_time(fetch(&transport, &origin, get("/a?b=c"))).await;
                assert_eq!(answer.unwrap(), format!("{HOST}:{port}"));
            }
            let line = format!("GET http://{HOST}:{port}/a?b=c HTTP/1.1");
            while seen
                .last()
                .is_none_or(|head: &String| !head.starts_with(&line))
            {
                seen.push(asked.recv().await.unwrap());
            }
            let last = seen.last().unwrap();
            let credentials = last.contains("proxy-authorization: Basic bWU6cEBzcw==");
            assert_eq!(credentials, !user.is_empty(), "{last}");
        }
        assert!(asked.try_recv().is_err(), "a connection was not used again");
        let tunnels = seen.iter().filter(|head| head.starts_with("CONNECT "));
        assert_eq!(
            tunnels.count(),
            1,
            "it is asked for a tunnel once: {seen:?}"
        );
    }

    // What is to be encrypted goes through a tunnel or not at all; nor is a proxy told names that were not looked at.
    let (proxy, _asked) = forwarding().await;
    let url = format!("http://127.0.0.1:{proxy}");
    let mut guarded = through(&url);
    guarded.deny_private_addresses = true;
    for (config, origin) in [
        (through(&url), Origin::https(HOST, 8443).unwrap()),
        (guarded, Origin::http("1.1.1.1", 8080).unwrap()),
    ] {
        let transport = Transport::new(&config).unwrap();
        let failed = in_time(fetch(&transport, &origin, get("/"))).await;
        let failed = failed.unwrap_err();
        let failed = failed.find::<ConnectFailed>().unwrap();
        assert_eq!(failed.stage, ConnectStage::Proxy);
    }
}

#[tokio::test]
async fn what_is_looked_up_here_is_asked_for_by_address() {
    let server = hosts().await;
    let (proxy, mut asked) = proxy(true, false).await;
    let transport = Transport::new(&through(&format!("socks5://127.0.0.1:{proxy}"))).unwrap();
    let origin = Origin::http("192.0.2.1", server.address.port()).unwrap();
    in_time(fetch(&transport, &origin, get("/"))).await.unwrap();
    assert!(asked.recv().await.unwrap().starts_with("192.0.2.1:"));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_said_to_and_nothing_was_sent() {
    for (scheme, socks, why) in [("http", false, "407"), ("socks5h", true, "SOCKS code 2")] {
        let (proxy, _asked) = proxy(socks, true).await;
        let transport = Transport::new(&through(&format!("{scheme}://127.0.0.1:{proxy}"))).unwrap();
        let origin = Origin::http(HOST, 80).unwrap();
        let error = in_time(fetch(&transport, &origin, get("/")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Unavailable, Retry::Safe)
        );
        let failed = error.find::<ConnectFailed>().unwrap();
        assert_eq!(failed.stage, ConnectStage::Proxy);
        assert!(failed.to_string().contains(why), "{failed}");
    }
}

/// A port that nobody listens on.
async fn nobody() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn no_instance_is_blamed_for_a_proxy_that_is_away_or_knows_nobody() {
    let (suspicious, _asked) = proxy(false, true).await;
    let name = ServiceName::new("users").unwrap();
    for port in [nobody().await, suspicious] {
        let all = ["one.invalid", "two.invalid", "three.invalid"];
        let all = all.map(|host| ServiceInstance::new(name.clone(), host, 80));
        let instances = Instances::fixed(name.clone(), all.to_vec());
        let mut config = HttpClientConfig::default();
        config.proxy = Some(format!("http://127.0.0.1:{port}"));
        config.retry.delay = Some(Duration::from_millis(1));
        let client = EnhancedHttpClient::builder()
            .config(config)
            .instances(instances.clone())
            .build()
            .unwrap();
        // All its attempts together would take out all but one.
        let error = in_time(client.get("/").send()).await.unwrap_err();
        let error = trunkline_core::Error::from(error);
        let failed = error.find::<ConnectFailed>().unwrap();
        assert_eq!((failed.stage, failed.is_local), (ConnectStage::Proxy, true));
        assert_eq!(instances.snapshot().in_rotation().count(), 3);

        // Nor does a health check take it for the word of one.
        let url = format!("http://127.0.0.1:{port}");
        let probe = HttpProbe::new(Transport::new(&through(&url)).unwrap());
        let asked = instances.snapshot().instances().next().unwrap().clone();
        let error = in_time(probe.probe(&asked)).await.unwrap_err();
        assert_eq!(error.origin(), trunkline_core::Origin::Local);
    }
}

#[tokio::test]
async fn what_needs_no_proxy_is_reached_directly() {
    let server = hosts().await;
    let (proxy, mut asked) = proxy(false, false).await;
    let mut config = HttpClientConfig::new(server.url());
    config.proxy = Some(format!("http://127.0.0.1:{proxy}"));
    let client = EnhancedHttpClient::from_config(config).unwrap();
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_dialled() {
    let server = hosts().await;
    let port = server.address.port();
    let mut config = TransportConfig::default();
    config.deny_private_addresses = true;
    let guarded = Transport::new(&config).unwrap();
    for host in [
        "127.0.0.1",
        "localhost",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
    ] {
        let origin = Origin::http(host, port).unwrap();
        let error = in_time(fetch(&guarded, &origin, get("/")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Rejected, Retry::Never),
            "{host}"
        );
        assert!(error.find::<AddressDenied>().is_some(), "{host}");
    }
    let socket = Origin::unix("/run/docker.sock");
    let error = in_time(fetch(&guarded, &socket, get("/")))
        .await
        .unwrap_err();
    assert!(error.find::<AddressDenied>().is_some());

    // What the proxy would look up is looked up here, and the proxy is not asked.
    let (proxy, mut asked) = proxy(false, false).await;
    config.proxy = Some(Secret::from(format!("http://127.0.0.1:{proxy}")));
    let behind = Transport::new(&config).unwrap();
    let origin = Origin::http("10.0.0.1", port).unwrap();
    let error = in_time(fetch(&behind, &origin, get("/")))
        .await
        .unwrap_err();
    assert!(error.find::<AddressDenied>().is_some());
    assert!(asked.try_recv().is_err());
    assert_eq!(server.count.total(), 0);
}
