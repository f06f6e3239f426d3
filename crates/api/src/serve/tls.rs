//! The server's end of TLS: rustls with ring, 1.2 at least. Files are read at the start and again on SIGHUP.
//!
//! Sessions are never resumed: a resumed one would not look at the client's certificate again, and so outlive its
//! revocation.

use engine::model::{Error, Result};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of clients are asked for and verified. Without it whoever connects is let in.
    pub verify: bool,
    /// The authorities that clients' certificates come from.
    pub ca: PathBuf,
    /// Our certificate, then the intermediate ones.
    pub cert: PathBuf,
    /// Our key.
    pub key: PathBuf,
    /// Revoked certificates; `None`: `crl.pem` beside the authority's certificate, where there is one.
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads the files. A list of revoked certificates that was once found must be there from then on: without it whoever
    /// was revoked would be let in again.
    ///
    /// # Errors
    /// A file is missing or malformed, or key and certificate do not belong together.
    pub(super) fn read(&mut self) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS").caused_by(error))?;
        let builder = if self.verify {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&self.ca)? {
                roots.add(certificate).map_err(|error| wrong(&self.ca, error))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let crl = self.crl();
            if let Some(path) = &crl {
                verifier = verifier.with_crls(revocations(path)?);
            }
            self.crl = crl;
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&self.ca, error))?)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, error))?;
        let mut config = builder
            .with_single_cert(certificates(&self.cert)?, key)
            .map_err(|error| wrong(&self.cert, error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn crl(&self) -> Option<PathBuf> {
        let beside = || Some(self.ca.with_file_name("crl.pem")).filter(|path| path.exists());
        self.crl.clone().or_else(beside)
    }
}

fn wrong(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(format!("TLS: {}", path.display())).caused_by(error)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    some(path, CertificateDer::pem_file_iter(path))
}

fn revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    some(path, CertificateRevocationListDer::pem_file_iter(path))
}

/// Everything of one kind in a file; nothing at all is an error.
fn some<T>(
    path: &Path,
    found: Result<impl Iterator<Item = Result<T, pem::Error>>, pem::Error>,
) -> Result<Vec<T>> {
    let list =
        found.and_then(|all| all.collect::<Result<Vec<_>, _>>()).map_err(|error| wrong(path, error))?;
    if list.is_empty() {
        return Err(wrong(path, pem::Error::NoItemsFound));
    }
    Ok(list)
}
