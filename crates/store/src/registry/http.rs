//! One registry, spoken to: which scheme, which authorization, which redirect, and again after what passes.

use model::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, TcpConnector};
use ureq::{Agent, Body, SendBody};

use super::address::{self, host_of, is_listed, is_loopback, origin};
use super::auth::{self, Challenge};
use super::refusal::Refusal;
use super::token::Wanted;
use super::{Access, Credentials, retry, tls};

/// Redirects followed for one request.
const REDIRECTS: usize = 5;
/// What a name's look-up and a connection (with TLS) may take, each.
const CONNECT: Duration = Duration::from_secs(15);
/// What an answer's head may take in all, and each piece of a body.
const ANSWER: Duration = Duration::from_secs(60);
/// What a whole document (manifest, configuration, token, list of tags) may take.
const DOCUMENT: Duration = Duration::from_secs(120);

/// What is sent with a request.
pub(super) enum Payload<'a> {
    None,
    /// Bytes with a media type.
    Bytes(&'a [u8], &'a str),
    /// A stream of known length.
    Stream(&'a mut dyn std::io::Read, u64),
}

/// What a registry wants to see, and what we have for it.
#[derive(Default)]
struct Authorization {
    challenge: Option<Challenge>,
    value: Option<Arc<str>>,
}

/// A registry, and for which repositories and actions we ask for a token.
pub(super) struct Client {
    agent: Agent,
    /// For other hosts that the registry names: token servers, redirects.
    others: Mutex<BTreeMap<String, Agent>>,
    /// `https://host:port`.
    base: String,
    pub(super) credentials: Option<Credentials>,
    authorization: Mutex<Authorization>,
    scopes: Vec<String>,
    /// It may speak plain HTTP, as may these.
    insecure: bool,
    listed: Vec<String>,
}

impl Client {
    /// Finds out how a registry is spoken to. A scope is `repository:NAME:pull,push`.
    pub fn connect(domain: &str, scopes: Vec<String>, access: &Access) -> Result<Self> {
        let host = if domain == model::reference::DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        let listed = is_listed(&access.insecure, host);
        let insecure = listed || is_loopback(host);
        let credentials = access.credentials.as_ref();
        let unverified = listed || insecure && !tls::has_own_authority(host);
        let mut client = Self::new(&format!("https://{host}"), scopes, access, credentials, insecure);
        client.agent = agent(&client.base, unverified, None)?;
        match client.ping(!insecure) {
            Err(Failed::NotTls(error)) if insecure => {
                let base = format!("http://{host}");
                client.agent = agent(&base, false, None)?;
                client.base = base;
                // That it speaks no TLS says less than why it speaks no HTTP.
                client.ping(true).map_err(|failed| match failed {
                    Failed::NotTls(second) | Failed::Other(second) => match second.kind() {
                        Kind::Unavailable | Kind::Unauthorized => second,
                        _ => error,
                    },
                })?;
            }
            Err(Failed::NotTls(error) | Failed::Other(error)) => return Err(error),
            Ok(()) => {}
        }
        Ok(client)
    }
    /// A mirror by URL, without credentials.
    pub fn mirror(url: &str, scopes: Vec<String>, access: &Access) -> Result<Self> {
        let base =
            if url.contains("://") { url.trim_end_matches('/').to_owned() } else { format!("https://{url}") };
        let host = host_of(&base);
        let listed = is_listed(&access.insecure, &host);
        let insecure = listed || is_loopback(&host);
        if base.starts_with("http://") && !insecure {
            return Err(Error::invalid(format!(
                "registry mirror {url}: plain HTTP is for insecure-registries only"
            ))
            .hint(format!("list {host} in insecure-registries of the configuration")));
        }
        let mut client = Self::new(&base, scopes, access, None, insecure);
        client.agent = agent(&base, listed || insecure && !tls::has_own_authority(&host), None)?;
        client.ping(true).map_err(|failed| match failed {
            Failed::NotTls(error) | Failed::Other(error) => error,
        })?;
        Ok(client)
    }

    fn new(
        base: &str,
        scopes: Vec<String>,
        access: &Access,
        credentials: Option<&Credentials>,
        insecure: bool,
    ) -> Self {
        Self {
            agent: Agent::config_builder().build().new_agent(),
            others: Mutex::default(),
            base: base.to_owned(),
            credentials: credentials.cloned(),
            authorization: Mutex::default(),
            scopes,
            insecure,
            listed: access.insecure.clone(),
        }
    }

    /// `GET /v2/`: whether this is a registry, and what it wants to see.
    fn ping(&self, persist: bool) -> std::result::Result<(), Failed> {
        let url = format!("{}/v2/", self.base);
        let response = match self.once(&self.agent, &Method::GET, &url, &[], Payload::None, None) {
            Ok(response) if persist && retry::passes(response.status().as_u16()) => {
                self.persist(&Method::GET, &url, &[], &Payload::None, None)?
            }
            Ok(response) => response,
            Err(error) if persist && breaks_off(&error) => {
                self.persist(&Method::GET, &url, &[], &Payload::None, None)?
            }
            Err(error) => {
                let not_tls = self.base.starts_with("https://") && is_not_tls(&error);
                let error = failure("Get", &url, error);
                return Err(if not_tls { Failed::NotTls(error) } else { Failed::Other(error) });
            }
        };
        match response.status() {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED => {
                if self.learn(&response) {
                    return Ok(());
                }
                let text = format!("Get {url:?}: it wants an authentication that is not supported");
                Err(Failed::Other(Error::new(Kind::Unavailable, text)))
            }
            _ => {
                let refusal = Refusal::read(response);
                let text =
                    format!("Get {url:?}: this does not answer as a registry does: {}", refusal.text());
                Err(Failed::Other(Error::new(Kind::Unavailable, text)))
            }
        }
    }

    /// Takes note of a challenge. False: there is none that we know.
    fn learn(&self, response: &Response<Body>) -> bool {
        let values = response.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = auth::parse(values.iter().filter_map(|value| value.to_str().ok()));
        let known = challenge.is_some();
        if known {
            self.authorization.lock().unwrap_or_else(PoisonError::into_inner).challenge = challenge;
        }
        known
    }

    /// Host and port.
    pub fn host(&self) -> String {
        host_of(&self.base)
    }
    /// Whether what is secret may go to a host over plain HTTP: the registry may speak it, and so may that host.
    pub(super) fn may_be_plain(&self, host: &str) -> bool {
        self.insecure && (is_loopback(host) || is_listed(&self.listed, host))
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
    /// The same for a full URL, which the registry may have named: authorization is sent to its own origin only. What passes
    /// (see [`retry`]) is asked for again, unless it came as a stream.
    pub fn request_url(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>> {
        let own = origin(url) == origin(&self.base);
        let authorization = if own { self.authorization(false)? } else { None };
        if let Payload::Stream(..) = payload {
            let agent = self.agent_of(url)?;
            return self
                .once(&agent, method, url, headers, payload, authorization.as_deref())
                .map_err(|error| failure(&title(method), url, error));
        }
        let response = self.persist(method, url, headers, &payload, authorization.as_deref())?;
        if response.status() == StatusCode::UNAUTHORIZED && own {
            // The token has expired, or this is the first that wants one.
            self.learn(&response);
            let renewed = self.authorization(true)?;
            if renewed.is_some() && (renewed != authorization || self.is_bearer()) {
                return self.persist(method, url, headers, &payload, renewed.as_deref());
            }
        }
        Ok(response)
    }
    /// Follows redirects of what changes nothing; authorization stays behind where the origin changes.
    pub fn following(&self, method: &Method, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>> {
        let mut url = self.url(path);
        for _ in 0..=REDIRECTS {
            let response = self.request_url(method, &url, headers, Payload::None)?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = self.location(&url, &response)?;
        }
        let shown = address::without_query(&url);
        Err(Error::invalid(format!("Get {shown:?}: stopped after {REDIRECTS} redirects")))
    }
    /// Where a response's `Location` points.
    pub fn location(&self, base: &str, response: &Response<Body>) -> Result<String> {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location
            .ok_or_else(|| Error::new(Kind::Unavailable, format!("{base}: the registry sent no Location")))?;
        address::resolve(base, location, self.insecure)
    }

    /// Gets a token, or checks that user name and password are taken.
    pub fn login(&self) -> Result<String> {
        let url = format!("{}/v2/", self.base);
        let denied = |text: String| Error::new(Kind::Unauthorized, format!("Get {url:?}: {text}"));
        let bearer = match &self.authorization.lock().unwrap_or_else(PoisonError::into_inner).challenge {
            Some(Challenge::Bearer { realm, service, .. }) => Some((realm.clone(), service.clone())),
            _ => None,
        };
        if let Some((realm, service)) = bearer {
            let wanted = Wanted { realm: &realm, service: &service, scopes: &[], offline: true };
            let answer = self.token(&wanted).map_err(|error| match error.kind() {
                Kind::Unauthorized => {
                    denied(format!("unauthorized: incorrect username or password ({error})"))
                }
                _ => error,
            })?;
            return Ok(answer["refresh_token"].as_str().unwrap_or_default().to_owned());
        }
        let authorization = self.authorization(false)?;
        let response = self.persist(&Method::GET, &url, &[], &Payload::None, authorization.as_deref())?;
        match response.status() {
            StatusCode::OK => Ok(String::new()),
            _ => Err(denied(Refusal::read(response).text())),
        }
    }

    fn is_bearer(&self) -> bool {
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(authorization.challenge, Some(Challenge::Bearer { .. }))
    }

    /// The value of the `Authorization` header.
    fn authorization(&self, renew: bool) -> Result<Option<Arc<str>>> {
        let mut authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(challenge) = &authorization.challenge else { return Ok(None) };
        if let Some(value) = authorization.value.as_ref().filter(|_| !renew) {
            return Ok(Some(Arc::clone(value)));
        }
        let value = match (challenge, &self.credentials) {
            (_, Some(Credentials::Bearer(token))) => {
                self.check_confidential()?;
                format!("Bearer {token}")
            }
            (Challenge::Basic, Some(Credentials::Basic { user, password })) => {
                self.check_confidential()?;
                basic(user, password)
            }
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let named: Vec<String> = scope.iter().cloned().collect();
                let scopes = if self.scopes.is_empty() { &named } else { &self.scopes };
                let answer = self.token(&Wanted { realm, service, scopes, offline: false });
                let answer = answer.map_err(|error| self.denied(error))?;
                let token = answer["token"].as_str().filter(|token| !token.is_empty());
                let token = token.or_else(|| answer["access_token"].as_str()).ok_or_else(|| {
                    let realm = address::without_query(realm);
                    Error::new(Kind::Unavailable, format!("token server {realm}: its answer has no token"))
                })?;
                format!("Bearer {token}")
            }
        };
        let value: Arc<str> = value.into();
        authorization.value = Some(Arc::clone(&value));
        Ok(Some(value))
    }

    /// A token server's no, in Docker's words.
    fn denied(&self, error: Error) -> Error {
        if error.kind() != Kind::Unauthorized {
            return error;
        }
        let mut parts = self.scopes.first().map(|scope| scope.split(':')).into_iter().flatten().skip(1);
        let (name, actions) = (parts.next().unwrap_or("the registry"), parts.next().unwrap_or_default());
        let host = self.host();
        if actions.contains("push") {
            return Error::new(Kind::Unauthorized, format!("push access denied for {name}: {error}"))
                .hint(format!("log in first: login {host}"));
        }
        Error::not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login': {error}"
        ))
        .hint(format!("if it is private: login {host}"))
    }

    /// Secrets go over TLS, or to whom may be spoken to without.
    fn check_confidential(&self) -> Result<()> {
        if self.base.starts_with("https://") || self.may_be_plain(&self.host()) {
            return Ok(());
        }
        Err(Error::new(
            Kind::PermissionDenied,
            format!("registry {} speaks plain HTTP: credentials are not sent to it", self.host()),
        ))
    }

    /// The connections to the host of a URL: each host has its own trust, and sees no certificate but its own.
    pub(super) fn agent_of(&self, url: &str) -> Result<Agent> {
        let wanted = origin(url);
        if wanted == origin(&self.base) {
            return Ok(self.agent.clone());
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = others.get(&wanted) {
            return Ok(agent.clone());
        }
        let host = host_of(url);
        let unverified = self.may_be_plain(&host) && !tls::has_own_authority(&host);
        let agent = agent(url, unverified, Some(&self.host()))?;
        others.insert(wanted, agent.clone());
        Ok(agent)
    }

    /// Sends until an answer comes that is not one that passes.
    fn persist(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        payload: &Payload<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>> {
        let agent = self.agent_of(url)?;
        let mut failed = 0;
        loop {
            let lent = match payload {
                Payload::Bytes(bytes, kind) => Payload::Bytes(bytes, kind),
                Payload::None | Payload::Stream(..) => Payload::None,
            };
            let result = self.once(&agent, method, url, headers, lent, authorization);
            failed += 1;
            let asked = match &result {
                Ok(response) if retry::passes(response.status().as_u16()) => retry::asked(response),
                Err(error) if breaks_off(error) => None,
                _ => return result.map_err(|error| failure(&title(method), url, error)),
            };
            if failed >= retry::ATTEMPTS || asked.is_some_and(|asked| asked > retry::PATIENCE) {
                return result.map_err(|error| failure(&title(method), url, error));
            }
            std::thread::sleep(retry::random_pause(failed, asked));
        }
    }

    fn once(
        &self,
        agent: &Agent,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
        authorization: Option<&str>,
    ) -> std::result::Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        match payload {
            Payload::None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
                agent.run(request.header(header::CONTENT_LENGTH, 0).body(&b""[..])?)
            }
            Payload::None => agent.run(request.body(())?),
            Payload::Bytes(bytes, kind) => agent.run(request.header(header::CONTENT_TYPE, kind).body(bytes)?),
            Payload::Stream(stream, length) => {
                let request = request
                    .header(header::CONTENT_TYPE, "application/octet-stream")
                    .header(header::CONTENT_LENGTH, length);
                agent.run(request.body(SendBody::from_reader(stream))?)
            }
        }
    }
}

/// Why a registry did not answer.
enum Failed {
    /// What listens there does not speak TLS.
    NotTls(Error),
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn title(method: &Method) -> String {
    let lower = method.as_str().to_ascii_lowercase();
    format!("{}{}", lower[..1].to_ascii_uppercase(), &lower[1..])
}

pub(super) fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// Whether a connection that was there broke off: worth another attempt.
fn breaks_off(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(error)
        if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// Whether what answered does not speak TLS: it said something else, or hung up.
fn is_not_tls(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Rustls(rustls::Error::InvalidMessage(_))) || breaks_off(error)
}

/// Says in words what kept us from talking at all.
pub(super) fn failure(method: &str, url: &str, error: ureq::Error) -> Error {
    let host = host_of(url);
    let bare = address::without_port(&host);
    let shown = address::without_query(url);
    let (what, hint) = match &error {
        ureq::Error::Rustls(error) => (tls::words(error), tls::remedy(error, &host)),
        ureq::Error::HostNotFound => no_such_host(bare),
        ureq::Error::Io(error) if error.to_string().contains("failed to lookup address") => {
            no_such_host(bare)
        }
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => (
            format!("dial tcp {host}: connect: connection refused"),
            Some(format!("nothing listens at {host}")),
        ),
        ureq::Error::Timeout(stage) => (format!("{host} did not answer in time ({stage})"), None),
        error => (error.to_string(), None),
    };
    let tls = matches!(error, ureq::Error::Rustls(_) | ureq::Error::Tls(_));
    let kind = if tls { Kind::PermissionDenied } else { Kind::Unavailable };
    let error = Error::new(kind, format!("{method} {shown:?}: {what}"));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn no_such_host(host: &str) -> (String, Option<String>) {
    let hint =
        format!("the name {host} is not known to the name servers of /etc/resolv.conf, nor to /etc/hosts");
    (format!("dial tcp: lookup {host}: no such host"), Some(hint))
}

fn agent(url: &str, unverified: bool, via: Option<&str>) -> Result<Agent> {
    let host = host_of(url);
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("cauldron/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_per_read(Some(ANSWER))
        .timeout_per_write(Some(ANSWER));
    if is_loopback(&host) {
        config = config.proxy(None);
    }
    let open = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
    if url.starts_with("https://") {
        let secure = open.chain(tls::Tls(tls::config(&host, via, unverified)?));
        return Ok(Agent::with_parts(config.build(), secure, DefaultResolver::default()));
    }
    Ok(Agent::with_parts(config.build(), open, DefaultResolver::default()))
}

/// A document's bytes, if they are no more than `limit` and do not trickle in for ever.
///
/// # Errors
/// Too many, too slow, or the transfer broke off; named by `what`.
pub(super) fn bounded(
    mut reader: impl std::io::Read,
    limit: u64,
    what: impl Fn() -> String,
) -> Result<Vec<u8>> {
    let begun = Instant::now();
    let mut bytes = Vec::new();
    let mut buffer = vec![0u8; 16 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let text = format!("{}: the transfer broke off", what());
                return Err(Error::new(Kind::Unavailable, text).caused_by(error));
            }
        }
        if bytes.len() as u64 > limit {
            let text = format!("{}: it is longer than {limit} bytes", what());
            return Err(Error::new(Kind::ResourceExhausted, text));
        }
        if begun.elapsed() > DOCUMENT {
            let text = format!("{}: it did not arrive within {} s", what(), DOCUMENT.as_secs());
            return Err(Error::new(Kind::Unavailable, text));
        }
    }
}
