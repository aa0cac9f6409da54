//! A certificate of one's own, and certificates that change while requests go on.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trunkline_core::ErrorKind;
use trunkline_http::{
    Body, EnhancedHttpClient, HttpClientConfig, Origin, RedirectConfig, Transport, TransportConfig,
};

use crate::rig::{Count, Server, fetch, get, in_time, serve, spawn, status};

/// An authority.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: leaf.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// What a server shows, and whom it lets in.
fn server_settings(own: &Identity, trusted: &[&Authority]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(authority.0.der().clone()).unwrap();
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Answers with what the other side showed, in PEM, under settings that can be replaced.
async fn mutual(settings: Arc<ServerConfig>) -> (Origin, Arc<Mutex<Arc<ServerConfig>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shared = Arc::new(Mutex::new(settings));
    let current = Arc::clone(&shared);
    spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(Arc::clone(&*current.lock().unwrap()));
            spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else {
                    return;
                };
                let shown = socket.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                let answer = move |_| {
                    let shown = shown.clone();
                    async move { Response::new(Body::from(shown)) }
                };
                serve(socket, Count::default(), answer).await;
            });
        }
    });
    (Origin::https("localhost", port).unwrap(), shared)
}

fn write(directory: &Path, name: &str, text: &str) {
    // As a secret that is mounted changes: the whole file at once.
    let fresh = directory.join(format!("{name}.new"));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, directory.join(name)).unwrap();
}

fn write_identity(directory: &Path, identity: &Identity) {
    let both = format!("{}{}", identity.certificate, identity.key);
    write(directory, "client.pem", &both);
}

/// Opens a connection for every request, so that each one needs the certificates.
fn config(directory: &Path) -> TransportConfig {
    let mut config = TransportConfig::default();
    config.ca_file = Some(directory.join("ca.pem"));
    config.system_roots = false;
    config.client_certificate = Some(directory.join("client.pem"));
    config.max_keepalive_connections = 0;
    config
}

async fn shown(transport: &Transport, origin: &Origin) -> Vec<u8> {
    let limits = trunkline_http::Limits::default();
    let response = in_time(transport.send(origin, get("/"), &limits)).await;
    let body = response.expect("no request fails").into_body();
    body.bytes(1 << 16).await.unwrap().to_vec()
}

fn der(identity: &Identity) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
    der.unwrap().to_vec()
}

#[tokio::test]
async fn the_own_certificate_is_shown() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "ca.pem", &authority.0.pem());
    let own = authority.identity();
    write_identity(directory.path(), &own);
    let (origin, _) = mutual(server_settings(&authority.identity(), &[&authority])).await;
    let transport = Transport::new(&config(directory.path())).unwrap();
    assert_eq!(shown(&transport, &origin).await, der(&own));

    // Whom the server does not know, or who shows nothing, is not answered.
    write_identity(directory.path(), &stranger.identity());
    let unknown = Transport::new(&config(directory.path())).unwrap();
    in_time(fetch(&unknown, &origin, get("/")))
        .await
        .unwrap_err();
    let mut nobody = config(directory.path());
    nobody.client_certificate = None;
    let nobody = Transport::new(&nobody).unwrap();
    in_time(fetch(&nobody, &origin, get("/")))
        .await
        .unwrap_err();
}

#[tokio::test]
async fn certificates_and_roots_change_while_requests_go_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path, "ca.pem", &old.0.pem());
    let (first, second) = (old.identity(), new.identity());
    write_identity(path, &first);
    let (origin, server) = mutual(server_settings(&old.identity(), &[&old, &new])).await;
    let transport = Transport::new(&config(path)).unwrap();
    assert_eq!(shown(&transport, &origin).await, der(&first));

    // The new root comes beside the old one, and the server shows its new certificate in the same moment.
    write(path, "ca.pem", &format!("{}{}", old.0.pem(), new.0.pem()));
    *server.lock().unwrap() = server_settings(&new.identity(), &[&old, &new]);
    assert_eq!(shown(&transport, &origin).await, der(&first));

    // A certificate whose key has not come yet changes nothing.
    write(path, "client.pem", &second.certificate);
    for _ in 0..5 {
        assert_eq!(shown(&transport, &origin).await, der(&first));
    }
    write_identity(path, &second);
    while shown(&transport, &origin).await != der(&second) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // The old authority is gone from both sides.
    write(path, "ca.pem", &new.0.pem());
    *server.lock().unwrap() = server_settings(&new.identity(), &[&new]);
    assert_eq!(shown(&transport, &origin).await, der(&second));
}

/// Requests that go on all the time, over connections that are kept and over new ones, do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_under_load_while_certificates_and_roots_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut old = Authority::new();
    write(path, "ca.pem", &old.0.pem());
    write_identity(path, &old.identity());
    let (origin, server) = mutual(server_settings(&old.identity(), &[&old])).await;
    let mut kept = config(path);
    kept.max_keepalive_connections = 2;
    let transports = [
        Transport::new(&config(path)).unwrap(),
        Transport::new(&kept).unwrap(),
    ];
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (counts, callers): (Vec<_>, Vec<_>) = (0..8)
        .map(|number: usize| {
            let transport = transports[number % 2].clone();
            let (origin, stopped) = (origin.clone(), stopped.clone());
            let (count, counted) = tokio::sync::watch::channel(0_u64);
            let caller = spawn(async move {
                while !*stopped.borrow() {
                    shown(&transport, &origin).await;
                    count.send_modify(|answered| *answered += 1);
                }
            });
            (counted, caller)
        })
        .unzip();
    for _ in 0..3 {
        let new = Authority::new();
        // Both sides trust the new authority before anybody shows one of its certificates.
        *server.lock().unwrap() = server_settings(&old.identity(), &[&old, &new]);
        write(path, "ca.pem", &format!("{}{}", old.0.pem(), new.0.pem()));
        // Handshakes that are under way know the old authority alone, and the server shows the new certificate already.
        *server.lock().unwrap() = server_settings(&new.identity(), &[&old, &new]);
        let own = new.identity();
        write_identity(path, &own);
        for transport in &transports {
            // What this one opens from now on shows the new one; kept connections go on with the old one.
            while shown(transport, &origin).await != der(&own) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        // A connection that began before the change shows the old certificate: the server believes it as long as one may be
        // under way.
        for mut count in counts.clone() {
            let begun = *count.borrow();
            let over = count.wait_for(|answered| *answered >= begun + 2);
            in_time(over).await.expect("no request fails");
        }
        old = new;
    }
    stop.send(true).unwrap();
    for caller in callers {
        in_time(caller).await.expect("no request fails");
    }
}

/// Each of them fails with the certificates from before, and no more than one of them finds the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_handshake_that_was_under_way_when_certificates_changed_is_made_again() {
    const MANY: usize = 8;
    let (old, new) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path, "ca.pem", &old.0.pem());
    let own = old.identity();
    write_identity(path, &own);
    let before = server_settings(&old.identity(), &[&old]);
    let (changed, change) = tokio::sync::watch::channel(Some(before));
    let (accepted, mut all) = tokio::sync::watch::channel(0);
    let accepted = Arc::new(accepted);
    // Connections to one origin would wait for the first of them.
    let mut origins = Vec::new();
    for _ in 0..MANY {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        origins.push(Origin::https("localhost", port).unwrap());
        let (change, accepted) = (change.clone(), Arc::clone(&accepted));
        spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepted.send_modify(|accepted| *accepted += 1);
                let mut change = change.clone();
                // While there is nothing to show, whoever has connected waits.
                let settings = change.wait_for(Option::is_some).await.unwrap().clone();
                let acceptor = TlsAcceptor::from(settings.unwrap());
                spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else {
                        return;
                    };
                    let shown = socket.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                    let answer = move |_| {
                        let shown = shown.clone();
                        async move { Response::new(Body::from(shown)) }
                    };
                    serve(socket, Count::default(), answer).await;
                });
            }
        });
    }
    let transport = Transport::new(&config(path)).unwrap();
    // What follows begins with settings that apply already.
    assert_eq!(shown(&transport, &origins[0]).await, der(&own));
    changed.send_replace(None);
    let begun = *all.borrow();
    let callers: Vec<_> = origins
        .into_iter()
        .map(|origin| {
            let transport = transport.clone();
            spawn(async move { shown(&transport, &origin).await })
        })
        .collect();
    in_time(all.wait_for(|accepted| *accepted >= begun + MANY))
        .await
        .unwrap();
    write(path, "ca.pem", &new.0.pem());
    changed.send_replace(Some(server_settings(&new.identity(), &[&old])));
    for caller in callers {
        let shown = in_time(caller).await.expect("no request fails");
        assert_eq!(shown, der(&own));
    }
}

/// As a network file system does whose server is gone.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_go_on_while_certificates_cannot_be_read() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path, "ca.pem", &authority.0.pem());
    let own = authority.identity();
    write_identity(path, &own);
    let (origin, _) = mutual(server_settings(&authority.identity(), &[&authority])).await;
    let transport = Transport::new(&config(path)).unwrap();
    assert_eq!(shown(&transport, &origin).await, der(&own));

    // Whoever reads a pipe waits for one who writes.
    let pipe = path.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, path.join("ca.pem")).unwrap();
    let ca = path.join("ca.pem");
    // Opened once somebody reads it; until it is closed, reading does not end.
    let mut opening = tokio::task::spawn_blocking(move || {
        let file = std::fs::OpenOptions::new().write(true).open(ca);
        file.unwrap()
    });
    let hanging = loop {
        tokio::select! {
            file = &mut opening => break file.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        assert_eq!(shown(&transport, &origin).await, der(&own));
    };
    for _ in 0..3 {
        let (one, other) = tokio::join!(shown(&transport, &origin), shown(&transport, &origin));
        assert_eq!([one, other], [der(&own), der(&own)]);
    }

    // It comes back, with something else in it.
    drop(hanging);
    let (next, fresh) = (Authority::new(), authority.identity());
    write(
        path,
        "ca.pem",
        &format!("{}{}", authority.0.pem(), next.0.pem()),
    );
    write_identity(path, &fresh);
    while shown(&transport, &origin).await != der(&fresh) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_when_the_transport_is_made() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write(path, "ca.pem", &authority.0.pem());
    let (one, other) = (authority.identity(), authority.identity());
    write(path, "one.pem", &one.certificate);
    write(path, "other.key", &other.key);
    type Change = fn(&mut TransportConfig, &Path);
    let cases: [(&str, Change); 4] = [
        ("no private key", |config, path| {
            config.client_certificate = Some(path.join("one.pem"));
        }),
        ("does not belong to", |config, path| {
            config.client_certificate = Some(path.join("one.pem"));
            config.client_key = Some(path.join("other.key"));
        }),
        ("without client_certificate", |config, path| {
            config.client_certificate = None;
            config.client_key = Some(path.join("other.key"));
        }),
        ("cannot be read", |config, path| {
            config.client_certificate = Some(path.join("missing.pem"));
        }),
    ];
    for (what, change) in cases {
        let mut config = config(path);
        change(&mut config, path);
        let error = Transport::new(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

/// Lets everybody in, and answers with whether they showed a certificate.
async fn asking(own: &Identity, trusted: &Authority) -> Origin {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(trusted.0.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            spawn(async move {
                let Ok(socket) = acceptor.accept(socket).await else {
                    return;
                };
                let shown = socket.get_ref().1.peer_certificates().is_some();
                let answer = move |_| async move {
                    Response::new(Body::from(if shown { "shown" } else { "nothing" }))
                };
                serve(socket, Count::default(), answer).await;
            });
        }
    });
    Origin::https("localhost", port).unwrap()
}

#[tokio::test]
async fn whom_a_redirect_leads_to_is_shown_no_certificate() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "ca.pem", &servers.0.pem());
    write_identity(directory.path(), &clients.identity());
    let stranger = asking(&servers.identity(), &clients).await;
    let from_files = Transport::new(&config(directory.path())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(servers.0.der().clone()).unwrap();
    let identity = clients.identity();
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let settings = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let own = Transport::with_rustls(&TransportConfig::default(), settings).unwrap();
    for transport in [from_files, own] {
        assert_eq!(
            fetch(&transport, &stranger, get("/")).await.unwrap(),
            "shown"
        );
        let to = stranger.to_string();
        let server = Server::start(move |_| {
            let mut response = status(302);
            let to = to.parse().unwrap();
            response.headers_mut().insert("location", to);
            async move { response }
        })
        .await;
        let config = HttpClientConfig::new(server.url()).with_redirects(RedirectConfig::any());
        let client = EnhancedHttpClient::builder()
            .config(config)
            .transport(transport)
            .build()
            .unwrap();
        let response = in_time(client.get("/").send()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "nothing");
    }
}
