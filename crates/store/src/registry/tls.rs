//! TLS to registries: whom to trust, which certificate to show, and what failed in words that Docker's users know.
//!
//! Trusted are the machine's authorities (Mozilla's, where it has none) and the registry's own, `*.crt` in
//! `certs.d/HOST[:PORT]/`; the pair `*.cert` and `*.key` there is shown to a registry that asks for it. Nothing is
//! kept between two clients.

use model::error::Context as _;
use model::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Certificates that this machine trusts.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Where a registry's own authority and our certificate for it are looked for, as in Docker.
const REGISTRY_CERTIFICATES: [&str; 2] = ["/etc/cauldron/certs.d", "/etc/docker/certs.d"];

/// The files of a registry in `certs.d`.
#[derive(Default)]
struct Own {
    authorities: Vec<PathBuf>,
    /// Certificate and key.
    pair: Option<(PathBuf, PathBuf)>,
}

impl Own {
    fn find(host: &str) -> Result<Self> {
        let mut own = Self::default();
        // A host is no path: what is no name of one has no directory.
        if host.is_empty() || host.starts_with('.') || host.contains('/') {
            return Ok(own);
        }
        for dir in REGISTRY_CERTIFICATES {
            let entries = std::fs::read_dir(Path::new(dir).join(host)).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            for path in &paths {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => own.authorities.push(path.clone()),
                    Some("cert") => {
                        let key = path.with_extension("key");
                        if !paths.contains(&key) {
                            return Err(Error::invalid(format!(
                                "missing key {} for client certificate {}. CA certificates must use the extension .crt",
                                key.display(),
                                path.display()
                            )));
                        }
                        own.pair.get_or_insert((path.clone(), key));
                    }
                    Some("key") if !paths.contains(&path.with_extension("cert")) => {
                        return Err(Error::invalid(format!(
                            "missing client certificate {} for key {}",
                            path.with_extension("cert").display(),
                            path.display()
                        )));
                    }
                    _ => {}
                }
            }
        }
        Ok(own)
    }
}

/// Whether somebody said which authority signs for this registry.
pub(super) fn has_own_authority(host: &str) -> bool {
    Own::find(host).is_ok_and(|own| !own.authorities.is_empty())
}

/// How we speak TLS to `host`. `via`: the registry that named this host, whose authorities count too.
/// `insecure`: the certificate is not looked at.
pub(super) fn config(host: &str, via: Option<&str>, insecure: bool) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = Own::find(host)?;
    let verifier: Arc<dyn ServerCertVerifier> = if insecure {
        Arc::new(Unverified(Arc::clone(&provider)))
    } else {
        let mut authorities = own.authorities;
        if let Some(via) = via {
            authorities.extend(Own::find(via)?.authorities);
        }
        Arc::new(Trust::new(&authorities, &provider)?)
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS").caused_by(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &own.pair {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Error::invalid(format!("client key {}", key.display())).caused_by(error))?;
            builder.with_client_auth_cert(certificates(certificate)?, secret).map_err(|error| {
                Error::invalid(format!("client certificate {}", certificate.display())).caused_by(error)
            })?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = std::fs::read(path).context(|| format!("read certificates {}", path.display()))?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found
        .map_err(|error| Error::invalid(format!("read certificates {}", path.display())).caused_by(error))?;
    if found.is_empty() {
        return Err(Error::invalid(format!("{}: there is no certificate in it", path.display())));
    }
    Ok(found)
}

/// Looks at a registry's certificate as Go's verifier does.
#[derive(Debug)]
struct Trust {
    chains: Arc<WebPkiServerVerifier>,
    /// The registry's own authorities, as they are in the files.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    fn new(authorities: &[PathBuf], provider: &Arc<CryptoProvider>) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut own = Vec::new();
        for path in authorities {
            own.extend(certificates(path)?);
        }
        for certificate in &own {
            roots
                .add(certificate.clone())
                .map_err(|error| Error::invalid("a certificate of an authority").caused_by(error))?;
        }
        match CERTIFICATES.iter().map(Path::new).find(|path| path.exists()) {
            Some(bundle) => {
                roots.add_parsable_certificates(certificates(bundle)?);
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| Error::internal("TLS").caused_by(error))?;
        Ok(Self { chains, own })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(error) = verified else { return verified };
        // What `openssl req -x509` makes is an authority, and registries show it as their own certificate. Its dates
        // were looked at before that, and that we trust these very bytes is what the file says.
        if is_authority(&error) && self.own.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        Err(error)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Whether all that is wrong with a certificate is that it is an authority's.
fn is_authority(error: &rustls::Error) -> bool {
    // rustls has no variant of its own for it.
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other))
        if other.to_string().contains("CaUsedAsEndEntity"))
}

/// An insecure registry: encrypted, whoever it is.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What went wrong, as Go says it.
pub(super) fn words(error: &rustls::Error) -> String {
    let certificate = |text: String| format!("tls: failed to verify certificate: x509: {text}");
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => {
                certificate("certificate signed by unknown authority".to_owned())
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                certificate("certificate has expired".to_owned())
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                certificate("certificate is not yet valid".to_owned())
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                let names = match presented.is_empty() {
                    true => "no name".to_owned(),
                    false => presented.join(", "),
                };
                certificate(format!("certificate is valid for {names}, not {}", expected.to_str()))
            }
            _ if is_authority(error) => certificate("certificate signed by unknown authority".to_owned()),
            other => certificate(other.to_string()),
        },
        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "remote error: tls: certificate required".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::BadCertificate) => {
            "remote error: tls: bad certificate".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => {
            "remote error: tls: unknown certificate authority".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

/// What to do about it.
pub(super) fn remedy(error: &rustls::Error, host: &str) -> Option<String> {
    let dir = format!("{}/{host}", REGISTRY_CERTIFICATES[1]);
    match error {
        rustls::Error::InvalidCertificate(_) => Some(format!(
            "put the authority that signs for it into {dir}/ca.crt, or list {host} in insecure-registries of the configuration"
        )),
        rustls::Error::InvalidMessage(_) => Some(format!(
            "if {host} is meant to speak plain HTTP, list it in insecure-registries of the configuration (serve: --insecure-registry {host})"
        )),
        rustls::Error::AlertReceived(_) => Some(format!(
            "the registry wants to see a certificate that it trusts: put it into {dir}/client.cert and its key into {dir}/client.key"
        )),
        _ => None,
    }
}

/// The part of a connection that speaks TLS.
#[derive(Debug)]
pub(super) struct Tls(pub Arc<ClientConfig>);

impl<In: Transport> Connector<In> for Tls {
    type Out = Either<In, Encrypted>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| ureq::Error::Tls("invalid host name"))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket).map_err(unwrapped)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Encrypted { buffers, stream: StreamOwned { conn: connection, sock: socket } })))
    }
}

/// The transport hides what TLS said in an I/O error.
fn unwrapped(error: std::io::Error) -> ureq::Error {
    match error.downcast::<rustls::Error>() {
        Ok(error) => ureq::Error::Rustls(error),
        Err(error) => error.into(),
    }
}

/// An encrypted connection.
pub(super) struct Encrypted {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encrypted")
    }
}

impl Transport for Encrypted {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }
    fn transmit_output(
        &mut self,
        amount: usize,
        timeout: NextTimeout,
    ) -> std::result::Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount]).map_err(unwrapped)
    }
    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf()).map_err(unwrapped)?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }
    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }
    fn is_tls(&self) -> bool {
        true
    }
}
