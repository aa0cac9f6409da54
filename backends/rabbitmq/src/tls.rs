//! Encryption: rustls with ring, the system's roots, what the configuration adds to them, and a certificate of one's own.
//! Files are read for each connection, so that certificates rotate without a restart.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use trunkline_core::{Error, Result};

use crate::config::RabbitMqConfig;

/// Reads the files. Blocks for some milliseconds.
pub(crate) fn settings(config: &RabbitMqConfig) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let identity = identity(config, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").with_source(error))?
        .with_root_certificates(roots(config)?);
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
    }))
}

fn roots(config: &RabbitMqConfig) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if config.system_roots {
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(target: "trunkline", error = %error, "some of the system's root certificates cannot be read");
        }
        // Old roots that rustls cannot use are left out; the rest of the store is good.
        roots.add_parsable_certificates(system.certs);
    }
    if let Some(path) = &config.ca_file {
        for root in certificates("ca_file", path)? {
            roots.add(root).map_err(|error| {
                Error::config("a certificate in ca_file cannot be used as a root")
                    .with_source(error)
            })?;
        }
    }
    if roots.is_empty() {
        return Err(Error::config(
            "no root certificates: ca_file is not set, and the system has none or is not to be asked",
        ));
    }
    Ok(roots)
}

fn identity(config: &RabbitMqConfig, provider: &CryptoProvider) -> Result<Option<CertifiedKey>> {
    let Some(path) = &config.client_certificate else {
        return Ok(None);
    };
    let chain = certificates("client_certificate", path)?;
    let key_path = config.client_key.as_ref().unwrap_or(path);
    let wrong = |what: &str| Error::config(format!("client_key {}: {what}", key_path.display()));
    let key = PrivateKeyDer::from_pem_file(key_path)
        .map_err(|error| wrong("holds no private key in PEM").with_source(error))?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Some)
        .map_err(|error| {
            wrong("does not belong to client_certificate or cannot be used").with_source(error)
        })
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |what: &str| Error::config(format!("{key} {}: {what}", path.display()));
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong("cannot be read").with_source(error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("not a PEM file of certificates").with_source(error))?;
    if found.is_empty() {
        return Err(wrong("holds no certificate"));
    }
    Ok(found)
}
