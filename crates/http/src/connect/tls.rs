//! Encryption: rustls with ring, the system's roots, what the configuration adds to them, and a certificate of one's own.
//!
//! Files are looked at again when a connection is opened, at most once a second, and read again when they have changed:
//! certificates rotate without a restart, and connections that are open stay what they are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trunkline_core::{Error, Result};

use super::error::{ConnectFailed, ConnectStage};
use crate::origin::Origin;

/// Files are not looked at more often than this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    current: Mutex<Option<Current>>,
}

/// The settings in force, and the files they came from as these were.
struct Current {
    settings: Arc<ClientConfig>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

type Stamp = Option<(SystemTime, u64)>;

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
            current: Mutex::default(),
        })
    }

    /// Uses settings that the application made.
    pub(crate) fn with_settings(settings: ClientConfig) -> Self {
        Self {
            files: None,
            first: Own::default(),
            current: Mutex::new(Some(Current {
                settings: Arc::new(settings),
                stamps: Vec::new(),
                looked: Instant::now(),
            })),
        }
    }

    /// Encrypts a connection and agrees on the protocol.
    pub(super) async fn connect<S>(&self, origin: &Origin, socket: S) -> Result<TlsStream<S>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let failed = |cause| ConnectFailed::error(origin.authority(), ConnectStage::Tls, cause);
        let settings = self.settings().await?;
        let host = origin.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host)
            .map_err(std::io::Error::other)
            .map_err(failed)?;
        TlsConnector::from(settings)
            .connect(name, socket)
            .await
            .map_err(failed)
    }

    async fn settings(&self) -> Result<Arc<ClientConfig>> {
        let mut current = self.current.lock().await;
        if let Some(current) = &*current
            && (self.files.is_none() || current.looked.elapsed() < LOOK_AGAIN)
        {
            return Ok(Arc::clone(&current.settings));
        }
        self.look(&mut current).await?;
        let current = current.as_ref().map(|now| Arc::clone(&now.settings));
        current.ok_or_else(|| Error::internal("TLS is not set up"))
    }

    /// Looks at the files whenever that was. Returns whether other settings apply now.
    pub(super) async fn look_now(&self) -> bool {
        let mut current = self.current.lock().await;
        self.look(&mut current).await.unwrap_or(false)
    }

    async fn look(&self, current: &mut Option<Current>) -> Result<bool> {
        let Some(files) = self.files.clone() else {
            return Ok(false);
        };
        let known = current.as_ref().map(|current| current.stamps.clone());
        let first = self.first.clone();
        // Reading a few hundred certificates takes some milliseconds of file access.
        let read = tokio::task::spawn_blocking(move || {
            // First the stamps: what changes while it is read is read again.
            let stamps = files.stamps();
            if known.as_ref() == Some(&stamps) {
                return Ok(None);
            }
            let own = match files.read() {
                // Nothing applies yet, and what was there when this was made was good.
                Err(_) if known.is_none() => first,
                own => own?,
            };
            let settings = own.settings(files.system_roots)?;
            Ok(Some((settings, stamps)))
        });
        let read = read
            .await
            .map_err(|error| Error::internal("reading certificates failed").with_source(error))?;
        let looked = Instant::now();
        match (read, &mut *current) {
            (Ok(None), Some(current)) => current.looked = looked,
            (Ok(None), None) => {}
            (Ok(Some((settings, stamps))), _) => {
                *current = Some(Current {
                    settings,
                    stamps,
                    looked,
                });
                return Ok(true);
            }
            (Err(error), None) => return Err(error),
            // One of two files may be new and the other not yet.
            (Err(error), Some(current)) => {
                current.looked = looked;
                tracing::warn!(
                    target: "trunkline", error = %error.report(),
                    "changed certificates cannot be used; the old ones stay"
                );
            }
        }
        Ok(false)
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
