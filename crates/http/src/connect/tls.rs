//! Encryption: rustls with ring, the system's roots, and what the configuration adds to them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trunkline_core::{Error, Result};

use super::error::{ConnectFailed, ConnectStage};
use crate::origin::Origin;

/// How connections are encrypted. The system's roots are read with the first encrypted connection: most clients inside
/// a cluster never need them.
pub(crate) struct Tls {
    further_roots: Vec<CertificateDer<'static>>,
    settings: OnceCell<Arc<ClientConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("further_roots", &self.further_roots.len())
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Trusts the system's roots and those in a PEM file, which is read now.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self> {
        let further_roots = ca_file.map(read_roots).transpose()?.unwrap_or_default();
        Ok(Self {
            further_roots,
            settings: OnceCell::new(),
        })
    }

    /// Uses settings that the application made.
    pub(crate) fn with_settings(settings: ClientConfig) -> Self {
        Self {
            further_roots: Vec::new(),
            settings: OnceCell::new_with(Some(Arc::new(settings))),
        }
    }

    /// Encrypts a connection and agrees on the protocol.
    pub(super) async fn connect(
        &self,
        origin: &Origin,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>> {
        let failed = |cause| ConnectFailed::error(origin.authority(), ConnectStage::Tls, cause);
        let settings = self.settings.get_or_try_init(|| self.load()).await?;
        let host = origin.host().unwrap_or_default().to_owned();
        let name = ServerName::try_from(host)
            .map_err(std::io::Error::other)
            .map_err(failed)?;
        TlsConnector::from(Arc::clone(settings))
            .connect(name, socket)
            .await
            .map_err(failed)
    }

    async fn load(&self) -> Result<Arc<ClientConfig>> {
        let further = self.further_roots.clone();
        // Reading a few hundred certificates takes some milliseconds of file access.
        tokio::task::spawn_blocking(move || settings(further))
            .await
            .map_err(|error| {
                Error::internal("reading the system's roots failed").with_source(error)
            })?
    }
}

fn settings(further: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(target: "trunkline", error = %error, "some of the system's root certificates cannot be read");
    }
    // Old roots that rustls cannot use are left out; the rest of the store is good.
    roots.add_parsable_certificates(system.certs);
    for root in further {
        roots.add(root).map_err(|error| {
            Error::config("a certificate in ca_file cannot be used as a root").with_source(error)
        })?;
    }
    if roots.is_empty() {
        return Err(Error::config(
            "no root certificates: the system has none and ca_file is not set",
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |what: &str| Error::config(format!("ca_file {}: {what}", path.display()));
    let pems = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong("cannot be read").with_source(error))?;
    let roots = pems
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("not a PEM file of certificates").with_source(error))?;
    if roots.is_empty() {
        return Err(wrong("holds no certificate"));
    }
    Ok(roots)
}
