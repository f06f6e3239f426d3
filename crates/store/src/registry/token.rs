//! Tokens: asked of the server that a registry's challenge names.

use model::{Error, Kind, Result};
use ureq::http::{Request, StatusCode, header};

use super::Credentials;
use super::auth::encode;
use super::http::{Client, basic, bounded, failure};
use super::refusal::Refusal;
use super::{address, retry};

/// Bytes of a token server's answer.
const TOKEN_BYTES: u64 = 1 << 20;

/// A token server, and for what.
pub(super) struct Wanted<'a> {
    pub realm: &'a str,
    pub service: &'a str,
    pub scopes: &'a [String],
    /// Ask for a token that gets other tokens, too.
    pub offline: bool,
}

impl Client {
    /// Asks the token server. Credentials go to it over TLS, or where registry and token server may both speak plain HTTP.
    pub(super) fn token(&self, wanted: &Wanted<'_>) -> Result<serde_json::Value> {
        let realm = wanted.realm;
        let host = address::host_of(realm);
        let plain = realm.starts_with("http://") && self.may_be_plain(&host);
        if !(plain || realm.starts_with("https://")) {
            return Err(Error::new(
                Kind::PermissionDenied,
                format!(
                    "registry {} names a token server without TLS: {}",
                    self.host(),
                    address::without_query(realm)
                ),
            ));
        }
        let agent = self.agent_of(realm)?;
        let mut failed = 0;
        let response = loop {
            let request = self.token_request(wanted).map_err(|error| {
                Error::invalid(format!("token server {}", address::without_query(realm))).caused_by(error)
            })?;
            let result =
                if request.body().is_empty() { agent.run(request.map(|_| ())) } else { agent.run(request) };
            let response = result.map_err(|error| failure("Get", realm, error))?;
            failed += 1;
            let asked = retry::asked(&response);
            if !retry::passes(response.status().as_u16())
                || failed >= retry::ATTEMPTS
                || asked.is_some_and(|asked| asked > retry::PATIENCE)
            {
                break response;
            }
            std::thread::sleep(retry::random_pause(failed, asked));
        };
        let what = || format!("token server {}", address::without_query(realm));
        match response.status() {
            StatusCode::OK => {
                let text = bounded(response.into_body().into_reader(), TOKEN_BYTES, what)?;
                serde_json::from_slice(&text).map_err(|error| {
                    Error::new(Kind::Unavailable, format!("{}: malformed answer", what())).caused_by(error)
                })
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Error::new(Kind::Unauthorized, Refusal::read(response).text()))
            }
            _ => {
                Err(Error::new(Kind::Unavailable, format!("{}: {}", what(), Refusal::read(response).text())))
            }
        }
    }

    fn token_request(&self, wanted: &Wanted<'_>) -> ureq::http::Result<Request<Vec<u8>>> {
        let Wanted { realm, service, scopes, offline } = wanted;
        if let Some(Credentials::Identity(refresh)) = &self.credentials {
            let form = format!(
                "grant_type=refresh_token&client_id=cauldron&service={}&scope={}&refresh_token={}",
                encode(service),
                encode(&scopes.join(" ")),
                encode(refresh)
            );
            return Request::post(*realm)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.into_bytes());
        }
        let mut url =
            format!("{realm}{}service={}", if realm.contains('?') { '&' } else { '?' }, encode(service));
        for scope in *scopes {
            url.push_str(&format!("&scope={}", encode(scope)));
        }
        let mut request = Request::builder();
        if let Some(Credentials::Basic { user, password }) = &self.credentials {
            url.push_str(&format!("&account={}", encode(user)));
            if *offline {
                url.push_str("&client_id=cauldron&offline_token=true");
            }
            request = request.header(header::AUTHORIZATION, basic(user, password));
        }
        request.uri(url).body(Vec::new())
    }
}
