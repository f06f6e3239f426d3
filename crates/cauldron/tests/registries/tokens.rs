//! A token server as docker-registry's `auth: token` wants it: it signs what the user may do. The user `me` may do
//! everything, everybody may pull what lies below `public/`.

use crate::home::Home;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What it gives as a refresh token.
pub const REFRESH: &str = "the-refresh-token";

pub struct Tokens {
    pub realm: String,
    /// The head and the body of each request.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// The line for docker-registry's configuration.
    pub config: String,
}

pub fn start(home: &Home) -> Tokens {
    let (key, certificate) = (home.path("token.key"), home.path("token.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=tokens"])
        .args(["-keyout", &key, "-out", &certificate])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let config = format!(
        "auth: {{token: {{realm: {realm:?}, service: registry.test, issuer: tokens, rootcertbundle: {certificate:?}}}}}\n"
    );
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let pem = std::fs::read_to_string(&certificate).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &log, &key, &der);
        }
    });
    Tokens { realm, asked, config }
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<String>>, key: &str, certificate: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    lines.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    log.lock().unwrap().push(format!("{head}{body}"));
    let me = format!("Basic {}", STANDARD.encode("me:open sesame")).to_lowercase();
    let sent = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then(|| value.trim().to_lowercase())
    });
    let known = sent.as_deref() == Some(&me) || body.contains(&format!("refresh_token={REFRESH}"));
    let (status, text) = if !known && (sent.is_some() || body.contains("refresh_token=")) {
        ("401 Unauthorized", json!({"details": "incorrect username or password"}))
    } else {
        let query = head.split(' ').nth(1).unwrap().split_once('?').map_or("", |(_, query)| query);
        let mut granted =
            json!({"token": signed(&access(&format!("{query}&{body}"), known), key, certificate)});
        granted["access_token"] = granted["token"].clone();
        if query.contains("offline_token=true") {
            granted["refresh_token"] = REFRESH.into();
        }
        ("200 OK", granted)
    };
    let text = text.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
}

/// What may be done of what was asked for.
fn access(query: &str, known: bool) -> Value {
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let decoded = scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","));
    let mut access = Vec::new();
    for scope in decoded
        .flat_map(|scopes| scopes.replace("%20", " ").split(' ').map(str::to_owned).collect::<Vec<_>>())
    {
        let parts: Vec<&str> = scope.split(':').collect();
        let [kind, name, actions] = parts[..] else { continue };
        let may = |action: &&str| known || *action == "pull" && name.starts_with("public/");
        let actions: Vec<&str> = actions.split(',').filter(may).collect();
        access.push(json!({"type": kind, "name": name, "actions": actions}));
    }
    Value::Array(access)
}

fn signed(access: &Value, key: &str, certificate: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [certificate]});
    let claims = json!({
        "iss": "tokens", "sub": "me", "aud": "registry.test", "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": "1", "access": access
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&head), part(&claims));
    let mut signer = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    signer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let signature = signer.wait_with_output().unwrap().stdout;
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
