//! Encryption: rustls with ring, whatever provider the application has installed for itself.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use trunkline_core::{Error, Result, Retry};

use crate::config::NatsConfig;

/// The settings of encrypted connections; a server may ask for one where we do not, so they are made unless nothing can be
/// encrypted here at all.
pub(crate) async fn settings(config: &NatsConfig) -> Result<Option<ClientConfig>> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || read(&config))
        .await
        .map_err(|join| Error::internal("reading certificates panicked").with_source(join))?
}

fn read(config: &NatsConfig) -> Result<Option<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match &config.ca_file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| wrong("ca_file", path, &error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let asked = config.connection.ssl_enabled || config.ca_file.is_some();
    if roots.is_empty() && !asked {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots);
    let settings = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(path)) => {
            let key = PrivateKeyDer::from_pem_file(path)
                .map_err(|error| wrong("key_file", path, &error))?;
            builder
                .with_client_auth_cert(certificates("cert_file", cert)?, key)
                .map_err(|error| wrong("key_file", path, &error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(settings))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(key, path, &error))?
        .collect();
    let found = found.map_err(|error| wrong(key, path, &error))?;
    if found.is_empty() {
        return Err(wrong(key, path, &"there is no certificate in it"));
    }
    Ok(found)
}

fn wrong(key: &str, path: &Path, what: &dyn std::fmt::Display) -> Error {
    // A file may be replaced: the next attempt reads it again.
    Error::config(format!("{key} {}: {what}", path.display())).with_retry(Retry::Safe)
}
