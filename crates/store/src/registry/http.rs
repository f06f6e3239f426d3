//! One registry, spoken to: which scheme, which token, which redirect.

use model::network::Cidr;
use model::{Error, Kind, Result};
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::http::{Method, Request, Response, StatusCode, Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};

use super::auth::{self, Challenge};
use super::{Access, Credentials};

/// Redirects followed for one request.
const REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const ERROR_BYTES: u64 = 64 << 10;
/// Bytes of a token server's answer.
const TOKEN_BYTES: u64 = 1 << 20;
/// Certificates that this machine trusts.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// Where a registry's own authority is looked for: `<host>/*.crt`, as in Docker.
const REGISTRY_CERTIFICATES: [&str; 2] = ["/etc/cauldron/certs.d", "/etc/docker/certs.d"];

/// An HTTP status other than the expected one, with what the registry said.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
}

impl Refusal {
    /// Reads the body of a refusing response.
    pub fn read(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let mut text = Vec::new();
        // A body that breaks off still leaves the status.
        let _ = response.into_body().into_reader().take(ERROR_BYTES).read_to_end(&mut text);
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let first = &json["errors"][0];
        let field = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let code = field(&first["code"]).unwrap_or_default();
        let message = field(&first["message"])
            .or_else(|| field(&json["details"]))
            .or_else(|| field(&json["error_description"]))
            .or_else(|| field(&json["error"]))
            .unwrap_or_default();
        Self { status, code, message }
    }
    /// Docker's form: `manifest unknown: manifest unknown`.
    pub fn text(&self) -> String {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        // What a stranger sent is shown on one line, without control characters.
        let message: String = self.message.chars().filter(|c| !c.is_control()).take(500).collect();
        match (code.is_empty(), message.is_empty()) {
            (false, false) => format!("{code}: {message}"),
            (false, true) => code,
            (true, false) => message,
            (true, true) if self.status == 404 => "not found (HTTP 404)".to_owned(),
            (true, true) => format!("HTTP {}", self.status),
        }
    }
}

/// What is sent with a request.
pub(super) enum Payload<'a> {
    None,
    /// Bytes with a media type.
    Bytes(&'a [u8], &'a str),
    /// A stream of known length.
    Stream(&'a mut dyn std::io::Read, u64),
}

/// A registry, and for which repository and actions we have a token.
pub(super) struct Client {
    agent: Agent,
    /// `https://host:port`.
    base: String,
    credentials: Option<Credentials>,
    challenge: Option<Challenge>,
    scope: Option<String>,
    token: Mutex<Option<Arc<str>>>,
    insecure: bool,
}

impl Client {
    /// Finds out how a registry is spoken to. `scope` is `repository:NAME:pull,push`.
    pub fn connect(domain: &str, scope: Option<String>, access: &Access) -> Result<Self> {
        let host = if domain == model::reference::DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        let insecure = is_loopback(host) || access.insecure.iter().any(|entry| matches_host(entry, host));
        let mut first = None;
        for scheme in if insecure { &["https", "http"][..] } else { &["https"] } {
            let base = format!("{scheme}://{host}");
            match Self::ping(&base, scope.clone(), access.credentials.clone(), insecure) {
                Ok(client) => return Ok(client),
                // The second failure says more where the first was only that it speaks no TLS.
                Err(error) => first = Some(error),
            }
        }
        let error = first.unwrap_or_else(|| Error::internal("no way to the registry"));
        Err(error)
    }
    /// A mirror by URL, without credentials.
    pub fn mirror(url: &str, scope: Option<String>, access: &Access) -> Result<Self> {
        let base =
            if url.contains("://") { url.trim_end_matches('/').to_owned() } else { format!("https://{url}") };
        let host = host_of(&base);
        let insecure = is_loopback(&host) || access.insecure.iter().any(|entry| matches_host(entry, &host));
        if base.starts_with("http://") && !insecure {
            return Err(Error::invalid(format!(
                "registry mirror {url}: plain HTTP is for insecure-registries only"
            )));
        }
        Self::ping(&base, scope, None, insecure)
    }

    fn ping(
        base: &str,
        scope: Option<String>,
        credentials: Option<Credentials>,
        insecure: bool,
    ) -> Result<Self> {
        let agent = agent(base, insecure)?;
        let mut client = Self {
            agent,
            base: base.to_owned(),
            credentials,
            challenge: None,
            scope,
            token: Mutex::new(None),
            insecure,
        };
        let url = format!("{base}/v2/");
        let response = client.send(&Method::GET, &url, &[], Payload::None, None)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                let values = response.headers().get_all(header::WWW_AUTHENTICATE);
                client.challenge = auth::parse(values.iter().filter_map(|value| value.to_str().ok()));
                if client.challenge.is_none() {
                    return Err(Error::new(
                        Kind::Unavailable,
                        format!("Get {url:?}: it wants an authentication that is not supported"),
                    ));
                }
            }
            _ => {
                let text = Refusal::read(response).text();
                return Err(Error::new(
                    Kind::Unavailable,
                    format!("Get {url:?}: this does not answer as a registry does: {text}"),
                ));
            }
        }
        Ok(client)
    }

    /// The full URL of a path below `/v2/`.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{path}", self.base)
    }
    /// `HTTP method` on a path below `/v2/`, with whatever authorization is wanted.
    pub fn request(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>> {
        self.request_url(method, &self.url(path), headers, payload)
    }
    /// The same for a full URL, which the registry may have named: authorization is sent to its own origin only.
    pub fn request_url(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        mut payload: Payload<'_>,
    ) -> Result<Response<Body>> {
        let own = origin(url) == origin(&self.base);
        let replay = !matches!(payload, Payload::Stream(..));
        let authorization = if own { self.authorization(false)? } else { None };
        let lent = match &mut payload {
            Payload::None => Payload::None,
            Payload::Bytes(bytes, kind) => Payload::Bytes(bytes, kind),
            Payload::Stream(stream, length) => Payload::Stream(*stream, *length),
        };
        let response = self.send(method, url, headers, lent, authorization.as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED
            && own
            && replay
            && matches!(self.challenge, Some(Challenge::Bearer { .. }))
        {
            // The token has expired.
            let authorization = self.authorization(true)?;
            return self.send(method, url, headers, payload, authorization.as_deref());
        }
        Ok(response)
    }
    /// Follows redirects; authorization stays behind where the origin changes.
    pub fn get_following(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let mut url = self.url(path);
        for _ in 0..=REDIRECTS {
            let response = self.request_url(&Method::GET, &url, headers, Payload::None)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = self.location(&url, &response)?;
        }
        Err(Error::new(Kind::Unavailable, format!("Get {url:?}: more than {REDIRECTS} redirects")))
    }
    /// Where a response's `Location` points.
    pub fn location(&self, base: &str, response: &Response<Body>) -> Result<String> {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location
            .ok_or_else(|| Error::new(Kind::Unavailable, format!("{base}: the registry sent no Location")))?;
        let url = if location.starts_with("https://") || location.starts_with("http://") {
            location.to_owned()
        } else if location.starts_with('/') {
            format!("{}{location}", origin(base))
        } else {
            let stem = base.split('?').next().unwrap_or(base);
            format!("{}/{location}", stem.rsplit_once('/').map_or(stem, |(stem, _)| stem))
        };
        if url.starts_with("http://") && !(self.insecure || is_loopback(&host_of(&url))) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("{base}: the registry sends us to plain HTTP at {}", host_of(&url)),
            ));
        }
        Ok(url)
    }

    /// Gets a token, or checks that user name and password are taken.
    pub fn login(&self) -> Result<String> {
        let url = format!("{}/v2/", self.base);
        let denied = |text: String| Error::new(Kind::Unauthorized, format!("Get {url:?}: {text}"));
        if let Some(Challenge::Bearer { realm, service }) = &self.challenge {
            let answer = self.token(realm, service, true).map_err(|error| match error.kind() {
                Kind::NotFound => denied("unauthorized: incorrect username or password".to_owned()),
                _ => error,
            })?;
            return Ok(answer["refresh_token"].as_str().unwrap_or_default().to_owned());
        }
        let authorization = self.authorization(false)?;
        let response = self.send(&Method::GET, &url, &[], Payload::None, authorization.as_deref())?;
        match response.status() {
            StatusCode::OK => Ok(String::new()),
            _ => Err(denied(Refusal::read(response).text())),
        }
    }

    /// The value of the `Authorization` header.
    fn authorization(&self, renew: bool) -> Result<Option<Arc<str>>> {
        let Some(challenge) = &self.challenge else { return Ok(None) };
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref().filter(|_| !renew) {
            return Ok(Some(Arc::clone(token)));
        }
        let value = match (challenge, &self.credentials) {
            (_, Some(Credentials::Bearer(token))) => {
                self.check_confidential(&self.base)?;
                format!("Bearer {token}")
            }
            (Challenge::Basic, Some(Credentials::Basic { user, password })) => {
                self.check_confidential(&self.base)?;
                basic(user, password)
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service }, _) => {
                let answer = self.token(realm, service, false)?;
                let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
                let token = token.ok_or_else(|| {
                    Error::new(Kind::Unavailable, format!("token server {realm}: its answer has no token"))
                })?;
                format!("Bearer {token}")
            }
        };
        let value: Arc<str> = value.into();
        *token = Some(Arc::clone(&value));
        Ok(Some(value))
    }

    /// Asks the token server.
    fn token(&self, realm: &str, service: &str, offline: bool) -> Result<serde_json::Value> {
        let https = realm.starts_with("https://");
        if !(https || realm.starts_with("http://") && is_loopback(&host_of(realm))) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!("registry {} names a token server without TLS: {realm}", self.base),
            ));
        }
        let agent =
            if origin(realm) == origin(&self.base) { self.agent.clone() } else { agent(realm, false)? };
        let scope = self.scope.as_deref().unwrap_or_default();
        let request = if let Some(Credentials::Identity(refresh)) = &self.credentials {
            let form = format!(
                "grant_type=refresh_token&client_id=cauldron&service={}&scope={}&refresh_token={}",
                auth::encode(service),
                auth::encode(scope),
                auth::encode(refresh)
            );
            Request::post(realm)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.into_bytes())
        } else {
            let mut url = format!(
                "{realm}{}service={}",
                if realm.contains('?') { '&' } else { '?' },
                auth::encode(service)
            );
            if !scope.is_empty() {
                url.push_str(&format!("&scope={}", auth::encode(scope)));
            }
            let mut request = Request::builder();
            if let Some(Credentials::Basic { user, password }) = &self.credentials {
                url.push_str(&format!("&account={}", auth::encode(user)));
                if offline {
                    url.push_str("&client_id=cauldron&offline_token=true");
                }
                request = request.header(header::AUTHORIZATION, basic(user, password));
            }
            request.uri(url).body(Vec::new())
        };
        let request =
            request.map_err(|error| Error::invalid(format!("token server {realm}")).caused_by(error))?;
        let response =
            if request.body().is_empty() { agent.run(request.map(|_| ())) } else { agent.run(request) };
        let response = response.map_err(|error| failure("Get", realm, error))?;
        match response.status() {
            StatusCode::OK => {
                let mut text = Vec::new();
                response.into_body().into_reader().take(TOKEN_BYTES).read_to_end(&mut text).map_err(
                    |error| Error::new(Kind::Unavailable, format!("token server {realm}")).caused_by(error),
                )?;
                serde_json::from_slice(&text).map_err(|error| {
                    Error::new(Kind::Unavailable, format!("token server {realm}: malformed answer"))
                        .caused_by(error)
                })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = Refusal::read(response).text();
                let name =
                    self.scope.as_deref().and_then(|scope| scope.split(':').nth(1)).unwrap_or("the registry");
                Err(Error::not_found(format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login': {text}"
                )))
            }
            _ => Err(Error::new(
                Kind::Unavailable,
                format!("token server {realm}: {}", Refusal::read(response).text()),
            )),
        }
    }

    /// Secrets go over TLS, or to loopback.
    fn check_confidential(&self, url: &str) -> Result<()> {
        if url.starts_with("https://") || is_loopback(&host_of(url)) {
            return Ok(());
        }
        Err(Error::new(
            Kind::PermissionDenied,
            format!("registry {} speaks plain HTTP: credentials are not sent to it", host_of(url)),
        ))
    }

    fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let malformed =
            |error| Error::new(Kind::Unavailable, format!("registry address {url:?}")).caused_by(error);
        let result = match payload {
            Payload::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                self.agent.run(request.header(header::CONTENT_LENGTH, 0).body(&b""[..]).map_err(malformed)?)
            }
            Payload::None => self.agent.run(request.body(()).map_err(malformed)?),
            Payload::Bytes(bytes, kind) => {
                self.agent.run(request.header(header::CONTENT_TYPE, kind).body(bytes).map_err(malformed)?)
            }
            Payload::Stream(stream, length) => {
                let request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, length);
                self.agent.run(request.body(SendBody::from_reader(stream)).map_err(malformed)?)
            }
        };
        result.map_err(|error| failure(&title(method), url, error))
    }
}

fn title(method: &Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    format!("{}{}", lower[..1].to_ascii_uppercase(), &lower[1..])
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Says in words what kept us from talking at all.
fn failure(method: &str, url: &str, error: ureq::Error) -> Error {
    let host = host_of(url);
    let shown = url.split('?').next().unwrap_or(url);
    let what = match &error {
        ureq::Error::HostNotFound => format!("lookup {host}: no such host"),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("dial tcp {host}: connect: connection refused")
        }
        ureq::Error::Io(error) if error.to_string().contains("failed to lookup address") => {
            format!("lookup {host}: {error}")
        }
        ureq::Error::Rustls(error) => format!("tls: {error}"),
        ureq::Error::Timeout(stage) => format!("{host} did not answer in time ({stage})"),
        error => error.to_string(),
    };
    let tls = is_tls(&error);
    let kind = if tls { Kind::PermissionDenied } else { Kind::Unavailable };
    let error = Error::new(kind, format!("{method} {shown:?}: {what}"));
    if !tls {
        return error;
    }
    error.hint(format!(
        "if {host} speaks plain HTTP, or its certificate is not to be checked, list it in insecure-registries of the \
         configuration; its own authority goes to {}/{host}/ca.crt",
        REGISTRY_CERTIFICATES[0]
    ))
}

/// Whether it was TLS that failed, also where the transport wraps it.
fn is_tls(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn agent(base: &str, insecure: bool) -> Result<Agent> {
    let host = host_of(base);
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("cauldron/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(15)))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(120)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .timeout_per_write(Some(Duration::from_secs(60)));
    if is_loopback(&host) {
        config = config.proxy(None);
    }
    if base.starts_with("https://") {
        let mut tls = TlsConfig::builder().disable_verification(insecure);
        if !insecure {
            tls = tls.root_certs(roots(&host)?);
        }
        config = config.tls_config(tls.build());
    }
    Ok(config.build().new_agent())
}

/// The machine's authorities (or Mozilla's, where it has none) and the registry's own.
fn roots(host: &str) -> Result<RootCerts> {
    let mut certificates = Vec::new();
    let mut add = |path: &std::path::Path, must: bool| {
        let pem = match std::fs::read(path) {
            Ok(pem) => pem,
            Err(_) if !must => return Ok(()),
            Err(error) => {
                return Err(Error::invalid(format!("read certificates {}", path.display())).caused_by(error));
            }
        };
        for item in ureq::tls::parse_pem(&pem) {
            match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => certificates.push(certificate),
                Ok(_) => {}
                Err(error) => {
                    return Err(
                        Error::invalid(format!("read certificates {}", path.display())).caused_by(error)
                    );
                }
            }
        }
        Ok(())
    };
    let mut own = false;
    for dir in REGISTRY_CERTIFICATES {
        for entry in std::fs::read_dir(std::path::Path::new(dir).join(host)).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "crt") {
                add(&entry.path(), true)?;
                own = true;
            }
        }
    }
    let bundle = CERTIFICATES.iter().map(std::path::Path::new).find(|path| path.exists());
    match bundle {
        Some(bundle) => add(bundle, true)?,
        None if !own => return Ok(RootCerts::WebPki),
        None => {}
    }
    Ok(certificates.into())
}

/// `https://host:port` of a URL, lower case, with the port always there.
fn origin(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return String::new() };
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
    format!("{scheme}://{}:{port}", uri.host().unwrap_or_default().to_ascii_lowercase())
}

/// Host and port of a URL as written.
fn host_of(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(|authority| authority.to_string()))
        .unwrap_or_default()
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

fn is_loopback(host: &str) -> bool {
    let host = without_port(host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an entry of `insecure-registries` covers this host.
fn matches_host(entry: &str, host: &str) -> bool {
    if entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(without_port(host)) {
        return true;
    }
    match (Cidr::parse(entry), without_port(host).parse::<IpAddr>()) {
        (Ok(range), Ok(address)) => range.contains(address),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(origin("https://Host/v2/x?y"), "https://host:443");
        assert_eq!(origin("http://host:5000/"), "http://host:5000");
        assert_ne!(origin("http://host/"), origin("https://host/"));
        assert!(is_loopback("localhost:5000") && is_loopback("127.9.9.9") && is_loopback("[::1]:5000"));
        assert!(!is_loopback("localhost.example.org") && !is_loopback("128.0.0.1:5000"));
        assert!(matches_host("10.0.0.0/8", "10.1.2.3:5000") && matches_host("reg.lan", "reg.lan:5000"));
        assert!(!matches_host("10.0.0.0/8", "11.1.2.3") && !matches_host("reg.lan:1", "reg.lan:2"));
    }

    #[test]
    fn refusals_read_as_dockers() {
        let refusal = |code: &str, message: &str| {
            Refusal { status: 404, code: code.to_owned(), message: message.to_owned() }.text()
        };
        assert_eq!(refusal("MANIFEST_UNKNOWN", "manifest unknown"), "manifest unknown: manifest unknown");
        assert_eq!(refusal("", ""), "not found (HTTP 404)");
        assert_eq!(refusal("", "a\n\x1b[31mb"), "a[31mb");
    }
}
