//! Encrypted connections: whom to trust, and which protocol is agreed on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trunkline_core::{ErrorKind, Retry};
use trunkline_discovery::{
    BalanceStrategy, Instances, LoadBalancerConfig, ServiceInstance, ServiceName,
};
use trunkline_http::{
    Body, ConnectFailed, ConnectStage, EnhancedHttpClient, HttpClientConfig, Limits, Origin,
    Transport, TransportConfig,
};

use crate::rig::{Count, Server, fetch, get, in_time, serve, spawn};

/// An authority of the test's own, and what it signed for `localhost`.
struct Pki {
    ca_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    _directory: tempfile::TempDir,
}

fn pki() -> Pki {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let leaf = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    Pki {
        ca_file,
        chain: vec![leaf.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        _directory: directory,
    }
}

async fn serve_tls(pki: &Pki, protocols: &[&str]) -> (u16, Count) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), pki.key.clone_key())
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Count::default();
    let counted = count.clone();
    spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), counted.clone());
            spawn(async move {
                if let Ok(socket) = acceptor.accept(socket).await {
                    serve(socket, count, version).await;
                }
            });
        }
    });
    (port, count)
}

async fn version(request: Request<Incoming>) -> Response<Body> {
    Response::new(Body::from(format!("{:?}", request.version())))
}

fn trusting(pki: &Pki) -> Transport {
    let mut config = TransportConfig::default();
    config.ca_file = Some(pki.ca_file.clone());
    Transport::new(&config).unwrap()
}

#[tokio::test]
async fn both_protocols_are_spoken_as_agreed() {
    let pki = pki();
    for (offered, spoken) in [
        (&["h2", "http/1.1"][..], "HTTP/2.0"),
        (&["http/1.1"], "HTTP/1.1"),
        (&[], "HTTP/1.1"),
    ] {
        let (port, count) = serve_tls(&pki, offered).await;
        let transport = trusting(&pki);
        let origin = Origin::https("localhost", port).unwrap();
        let both = [
            fetch(&transport, &origin, get("/")),
            fetch(&transport, &origin, get("/")),
        ];
        for answer in in_time(futures_util::future::join_all(both)).await {
            assert_eq!(answer.unwrap(), spoken);
        }
        assert_eq!(fetch(&transport, &origin, get("/")).await.unwrap(), spoken);
        assert_eq!(count.requests(), 3);
        let connections = if spoken == "HTTP/2.0" { 1 } else { 2 };
        assert_eq!(transport.stats().open, connections, "{offered:?}");
    }
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_refused() {
    let pki = pki();
    let (port, count) = serve_tls(&pki, &["http/1.1"]).await;
    // Another authority than the one that signed.
    let stranger = trusting(&self::pki());
    let origin = Origin::https("localhost", port).unwrap();
    let error = in_time(fetch(&stranger, &origin, get("/")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Safe)
    );
    assert_eq!(
        error.find::<ConnectFailed>().unwrap().stage,
        ConnectStage::Tls
    );
    assert!(
        error.report().to_string().contains("certificate"),
        "{}",
        error.report()
    );
    // The right authority and another name.
    let origin = Origin::https("127.0.0.1", port).unwrap();
    let error = in_time(fetch(&trusting(&pki), &origin, get("/")))
        .await
        .unwrap_err();
    assert_eq!(
        error.find::<ConnectFailed>().unwrap().stage,
        ConnectStage::Tls
    );
    assert_eq!(count.requests(), 0);
}

#[tokio::test]
async fn a_file_that_is_no_authority_is_refused_when_the_transport_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "no certificate here").unwrap();
    for (file, what) in [
        (directory.path().join("missing.pem"), "cannot be read"),
        (empty, "holds no certificate"),
    ] {
        let mut config = TransportConfig::default();
        config.ca_file = Some(file.clone());
        let error = Transport::new(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(
            text.contains(what) && text.contains(file.to_str().unwrap()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_encrypt_is_no_encrypted_one() {
    let plain = Server::start(|_| async { crate::rig::text("hello") }).await;
    let pki = pki();
    let origin = Origin::https("localhost", plain.address.port()).unwrap();
    let error = in_time(fetch(&trusting(&pki), &origin, get("/")))
        .await
        .unwrap_err();
    assert_eq!(
        error.find::<ConnectFailed>().unwrap().stage,
        ConnectStage::Tls
    );
}

/// Takes connections and never says a word on them.
async fn mute() -> Server {
    Server::scripted(|_, mut raw| async move { raw.until_closed().await }).await
}

#[tokio::test]
async fn all_who_wait_for_a_connection_that_is_not_made_learn_why() {
    let server = mute().await;
    let origin = Origin::https("localhost", server.address.port()).unwrap();
    let transport = trusting(&pki());
    let limits = Limits::default()
        .with_pool(Duration::from_millis(20))
        .with_connection(Duration::from_millis(300));
    let callers = (0..10).map(|_| transport.send(&origin, get("/"), &limits));
    for answer in in_time(futures_util::future::join_all(callers)).await {
        let error = answer.unwrap_err();
        let report = error.report().to_string();
        assert!(error.find::<ConnectFailed>().is_some(), "{report}");
        assert_eq!(error.retry(), Retry::Safe);
    }
    assert_eq!(server.count.total(), 1, "one of them has dialled");
    assert_eq!((transport.stats().open, transport.stats().waiting), (0, 0));
}

/// Whoever may wait longer than the one that dials goes on by itself.
#[tokio::test]
async fn who_has_more_time_than_the_one_that_dials_dials_then() {
    let server = mute().await;
    let origin = Origin::https("localhost", server.address.port()).unwrap();
    let transport = trusting(&pki());
    let short = Limits::default().with_connection(Duration::from_millis(100));
    let long = Limits::default().with_connection(Duration::from_millis(400));
    let both = futures_util::future::join(
        transport.send(&origin, get("/"), &short),
        transport.send(&origin, get("/"), &long),
    );
    let (first, second) = in_time(both).await;
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.find::<ConnectFailed>().is_some(), "{error:?}");
    }
    assert_eq!(server.count.total(), 2);
}

#[tokio::test]
async fn calls_go_on_to_the_next_instance_where_one_does_not_agree_on_encryption() {
    let pki = pki();
    let mute = mute().await;
    let (port, count) = serve_tls(&pki, &["h2"]).await;
    let name = ServiceName::new("users").unwrap();
    let instance = |port| {
        let mut instance = ServiceInstance::new(name.clone(), "localhost", port);
        instance.protocol = "https".into();
        instance
    };
    let list = vec![instance(mute.address.port()), instance(port)];
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin);
    let mut config = HttpClientConfig::default();
    config.retry.enabled = Some(false);
    config.timeout.pool = Some(Duration::from_millis(20));
    config.timeout.connection = Some(Duration::from_millis(300));
    let client = EnhancedHttpClient::builder()
        .config(config)
        .transport(trusting(&pki))
        .instances(Instances::fixed_with(name.clone(), list, &balance))
        .build()
        .unwrap();
    let callers = (0..10).map(|_| client.post("/").body("once").send());
    for answer in in_time(futures_util::future::join_all(callers)).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(count.requests(), 10);
}
