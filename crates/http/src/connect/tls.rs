//! Encryption: rustls with ring, the system's roots, what the configuration adds to them, and a certificate of one's own.
//!
//! Files are looked at again when a connection is opened, at most once a second, and read again when they have changed:
//! certificates rotate without a restart, and connections that are open stay what they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trunkline_core::{Error, Result};

use super::error::{ConnectFailed, ConnectStage};
use crate::origin::Origin;

/// Files are not looked at more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A connection waits for a look that long, and goes on with what applied before: files may be on a volume that hangs.
const LOOK_LIMIT: Duration = Duration::from_millis(500);

/// Where certificates are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Further roots.
    pub(crate) ca: Option<PathBuf>,
    /// Whether the system's roots are trusted, too.
    pub(crate) system_roots: bool,
    /// The own certificate and what leads from it to a root.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key; in the file of the certificate if it is left out.
    pub(crate) key: Option<PathBuf>,
}

/// How connections are encrypted. The system's roots are read with the first encrypted connection: most clients inside
/// a cluster never need them.
pub(crate) struct Tls {
    /// `None` where the application made the settings.
    files: Option<TlsFiles>,
    /// What was in the files at first.
    first: Own,
    shared: Arc<Shared>,
}

/// What those who look at the files share with those who connect. Never held while files are read.
#[derive(Default)]
struct Shared(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The settings in force, once there are some.
    settings: Option<Arc<ClientConfig>>,
    /// The files as they were when these came from them.
    stamps: Option<Vec<Stamp>>,
    /// The look that is under way, be it that nobody waits for it any more: of a volume that hangs one is enough.
    look: Option<Look>,
    /// When the latest one that has come to an end began.
    looked: Option<Instant>,
}

type Stamp = Option<(SystemTime, u64)>;

#[derive(Clone)]
struct Look {
    began: Instant,
    /// Closed at its end.
    end: watch::Receiver<()>,
}

/// Whoever looks.
struct Looking {
    began: Instant,
    shared: Arc<Shared>,
    _end: watch::Sender<()>,
}

/// A connection that was not encrypted.
pub(super) struct Failed {
    pub(super) error: Error,
    /// What it was tried with; `None` where it did not come to that.
    used: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the system's roots and those of files. What is in the files is checked now.
    pub(crate) fn new(files: TlsFiles) -> Result<Self> {
        let first = files.read()?;
        Ok(Self {
            files: Some(files),
            first,
            shared: Arc::default(),
        })
    }

    /// Uses settings that the application made.
    pub(crate) fn with_settings(settings: ClientConfig) -> Self {
        Self {
            files: None,
            first: Own::default(),
            shared: Arc::new(Shared(Mutex::new(Known {
                settings: Some(Arc::new(settings)),
                ..Known::default()
            }))),
        }
    }

    /// The same for whom no certificate is shown to; `None` where none is shown to anybody. Settings of the application are
    /// taken as they are now.
    pub(crate) fn without_identity(&self) -> Option<Self> {
        match &self.files {
            Some(files) => files.certificate.as_ref().map(|_| Self {
                files: Some(TlsFiles {
                    certificate: None,
                    key: None,
                    ..files.clone()
                }),
                first: Own {
                    identity: None,
                    ..self.first.clone()
                },
                shared: Arc::default(),
            }),
            None => {
                let settings = self.shared.known().settings.clone()?;
                settings.client_auth_cert_resolver.has_certs().then(|| {
                    let mut settings = ClientConfig::clone(&settings);
                    settings.client_auth_cert_resolver = Arc::new(Nobody);
                    // What resumes a session is who began it.
                    settings.resumption = Resumption::default();
                    Self::with_settings(settings)
                })
            }
        }
    }

    /// Encrypts a connection and agrees on the protocol.
    pub(super) async fn connect<S>(
        &self,
        origin: &Origin,
        socket: S,
    ) -> Result<TlsStream<S>, Failed>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let settings = self
            .settings()
            .await
            .map_err(|error| Failed { error, used: None })?;
        let failed = |cause| Failed {
            error: ConnectFailed::error(origin.authority(), ConnectStage::Tls, cause),
            used: Some(Arc::clone(&settings)),
        };
        let host = origin.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host)
            .map_err(std::io::Error::other)
            .map_err(failed)?;
        TlsConnector::from(Arc::clone(&settings))
            .connect(name, socket)
            .await
            .map_err(failed)
    }

    /// Whether other settings apply than those that a connection failed with. The files are looked at whenever that was
    /// done last.
    pub(super) async fn outdated(&self, failed: &Failed) -> bool {
        let Some(used) = &failed.used else {
            return false;
        };
        let changed = || {
            let settings = self.shared.known().settings.clone();
            settings.is_some_and(|settings| !Arc::ptr_eq(&settings, used))
        };
        // Somebody else may have found the change meanwhile.
        if !changed() {
            self.look(Instant::now()).await;
        }
        changed()
    }

    async fn settings(&self) -> Result<Arc<ClientConfig>> {
        let now = Instant::now();
        // Whoever comes first after a long time waits with everybody else: what applied before may be out of date.
        self.look(now.checked_sub(LOOK_AGAIN).unwrap_or(now)).await;
        if let Some(settings) = self.shared.known().settings.clone() {
            return Ok(settings);
        }
        // What was there when this was made was good.
        let system_roots = self.files.as_ref().is_some_and(|files| files.system_roots);
        let first = self.first.clone();
        let made = tokio::task::spawn_blocking(move || first.settings(system_roots))
            .await
            .map_err(|error| Error::internal("reading certificates failed").with_source(error))??;
        let mut known = self.shared.known();
        Ok(Arc::clone(known.settings.get_or_insert(made)))
    }

    /// Returns when the files were looked at since then, or have hung for so long that nobody waits any more.
    async fn look(&self, since: Instant) {
        let Some(files) = &self.files else { return };
        while !self.shared.looked_since(since) {
            let mut look = self.shared.begin(files);
            let end = timeout_at(look.began + LOOK_LIMIT, look.end.changed());
            // One that had begun before says nothing of what changed since.
            if end.await.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The look that is under way, or a new one.
    fn begin(self: &Arc<Self>, files: &TlsFiles) -> Look {
        let mut known = self.known();
        if let Some(look) = &known.look {
            return look.clone();
        }
        let (sender, end) = watch::channel(());
        let began = Instant::now();
        let look = known.look.insert(Look { began, end }).clone();
        let stamps = known.stamps.clone();
        drop(known);
        let looking = Looking {
            began,
            shared: Arc::clone(self),
            _end: sender,
        };
        let files = files.clone();
        // Reading a few hundred certificates takes some milliseconds of file access.
        drop(tokio::task::spawn_blocking(move || {
            looking.shared.take(files.changed(stamps.as_deref()));
            drop(looking);
        }));
        look
    }

    /// Whether a look that is over began since then.
    fn looked_since(&self, since: Instant) -> bool {
        self.known().looked.is_some_and(|began| began >= since)
    }

    /// Takes over what a look has found.
    fn take(&self, found: Result<Option<(Arc<ClientConfig>, Vec<Stamp>)>>) {
        match found {
            Ok(None) => {}
            Ok(Some((settings, stamps))) => {
                let mut known = self.known();
                known.settings = Some(settings);
                known.stamps = Some(stamps);
            }
            // One of two files may be new and the other not yet.
            Err(error) => tracing::warn!(
                target: "trunkline", error = %error.report(),
                "changed certificates cannot be used; the old ones stay"
            ),
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let mut known = self.shared.known();
        known.looked = Some(self.began);
        known.look = None;
    }
}

/// Has no certificate.
#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What is in the files.
#[derive(Clone, Default)]
struct Own {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<CertifiedKey>,
}

impl TlsFiles {
    fn read(&self) -> Result<Own> {
        Ok(Own {
            roots: self.own_roots()?,
            identity: self.own_certificate(&provider())?,
        })
    }

    /// Makes settings of the files where they are no longer as they were.
    fn changed(&self, known: Option<&[Stamp]>) -> Result<Option<(Arc<ClientConfig>, Vec<Stamp>)>> {
        // First the stamps: what changes while it is read is read again.
        let stamps = self.stamps();
        if known == Some(&stamps[..]) {
            return Ok(None);
        }
        let settings = self.read()?.settings(self.system_roots)?;
        Ok(Some((settings, stamps)))
    }

    fn stamps(&self) -> Vec<Stamp> {
        let paths = [&self.ca, &self.certificate, &self.key];
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        };
        paths.into_iter().flatten().map(stamp).collect()
    }

    fn own_roots(&self) -> Result<Vec<CertificateDer<'static>>> {
        let read = |path: &PathBuf| certificates("ca_file", path);
        self.ca.as_ref().map_or_else(|| Ok(Vec::new()), read)
    }

    fn own_certificate(&self, provider: &CryptoProvider) -> Result<Option<CertifiedKey>> {
        let Some(path) = &self.certificate else {
            return match &self.key {
                None => Ok(None),
                Some(_) => Err(Error::config(
                    "client_key stands without client_certificate",
                )),
            };
        };
        let chain = certificates("client_certificate", path)?;
        let key_path = self.key.as_ref().unwrap_or(path);
        let wrong =
            |what: &str| Error::config(format!("client_key {}: {what}", key_path.display()));
        let key = PrivateKeyDer::from_pem_file(key_path)
            .map_err(|error| wrong("holds no private key in PEM").with_source(error))?;
        CertifiedKey::from_der(chain, key, provider)
            .map(Some)
            .map_err(|error| {
                wrong("does not belong to client_certificate or cannot be used").with_source(error)
            })
    }
}

impl Own {
    fn roots(&self, with_system: bool) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if with_system {
            let system = rustls_native_certs::load_native_certs();
            for error in &system.errors {
                tracing::warn!(target: "trunkline", error = %error, "some of the system's root certificates cannot be read");
            }
            // Old roots that rustls cannot use are left out; the rest of the store is good.
            roots.add_parsable_certificates(system.certs);
        }
        for root in &self.roots {
            roots.add(root.clone()).map_err(|error| {
                Error::config("a certificate in ca_file cannot be used as a root")
                    .with_source(error)
            })?;
        }
        if roots.is_empty() {
            return Err(Error::config(
                "no root certificates: ca_file is not set, and the system has none or is not to be asked",
            ));
        }
        Ok(roots)
    }

    fn settings(&self, with_system: bool) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
            .with_root_certificates(self.roots(with_system)?);
        let mut config = match self.identity.clone() {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |what: &str| Error::config(format!("{key} {}: {what}", path.display()));
    let pems = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong("cannot be read").with_source(error))?;
    let found = pems
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("not a PEM file of certificates").with_source(error))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate"));
    }
    Ok(found)
}
