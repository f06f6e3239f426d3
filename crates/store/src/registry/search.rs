//! Search: Docker's old index protocol (`GET /v1/search`) where a registry has it, else the list of its repositories.

use model::{Error, Kind, Result};
use serde::Deserialize;
use ureq::http::{Method, StatusCode};

use super::Access;
use super::auth::encode;
use super::http::{Client, bounded};
use super::refusal::Refusal;

/// Bytes of an answer.
const ANSWER_BYTES: u64 = 8 << 20;
/// Repositories looked at in a list, and how many are asked for at once.
const LISTED: usize = 10_000;
const PAGE: usize = 1000;
/// Where docker.io's index is.
const HUB: &str = "index.docker.io";

/// A repository that a registry found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// What its owner says about it.
    pub description: String,
    /// How many users marked it.
    pub star_count: u64,
    /// One of Docker's own.
    pub is_official: bool,
    /// Built by docker.io.
    pub is_automated: bool,
}

pub(super) fn search(term: &str, limit: usize, access: &Access) -> Result<Vec<Found>> {
    let (domain, term) = match term.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (HUB, term),
    };
    let client = Client::connect(domain, Vec::new(), access)?;
    let mut found = match index(&client, term, limit)? {
        Some(found) => found,
        None => listed(&client, domain, term, limit)?,
    };
    found.truncate(limit);
    if domain != HUB {
        for repository in &mut found {
            repository.name = format!("{domain}/{}", repository.name);
        }
    }
    Ok(found)
}

/// `None`: this registry does not have it.
fn index(client: &Client, term: &str, limit: usize) -> Result<Option<Vec<Found>>> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        results: Vec<Found>,
    }
    let url = client.url(&format!("../v1/search?q={}&n={limit}", encode(term))).replace("/v2/../", "/");
    let response = client.request_url(&Method::GET, &url, &[], super::http::Payload::None)?;
    if response.status() != StatusCode::OK {
        return Ok(None);
    }
    let what = || format!("search of {}", client.host());
    let bytes = bounded(response.into_body().into_reader(), ANSWER_BYTES, what)?;
    match serde_json::from_slice::<Answer>(&bytes) {
        Ok(answer) => Ok(Some(answer.results)),
        Err(_) => Ok(None),
    }
}

/// The repositories whose names have the term in them (OCI distribution: `_catalog` is Docker's).
fn listed(client: &Client, domain: &str, term: &str, limit: usize) -> Result<Vec<Found>> {
    #[derive(Deserialize)]
    struct Catalog {
        #[serde(default)]
        repositories: Option<Vec<String>>,
    }
    let (mut found, mut seen, mut last) = (Vec::new(), 0, String::new());
    while seen < LISTED && found.len() < limit {
        let from = if last.is_empty() { String::new() } else { format!("&last={}", encode(&last)) };
        let response = client.request(
            &Method::GET,
            &format!("_catalog?n={PAGE}{from}"),
            &[],
            super::http::Payload::None,
        )?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let text = Refusal::read(response).text();
                return Err(Error::new(Kind::Unauthorized, format!("search of {domain}: {text}"))
                    .hint(format!("log in first: login {domain}")));
            }
            status => {
                return Err(Error::new(
                    Kind::NotImplemented,
                    format!("search of {domain}: this registry has no search (HTTP {})", status.as_u16()),
                ));
            }
        }
        let what = || format!("list of repositories of {domain}");
        let bytes = bounded(response.into_body().into_reader(), ANSWER_BYTES, what)?;
        let page: Catalog = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(Kind::Unavailable, what()).caused_by(error))?;
        let names = page.repositories.unwrap_or_default();
        let (count, end) = (names.len(), names.last().cloned().unwrap_or_default());
        seen += count;
        let fits = names.into_iter().filter(|name| name.contains(term));
        found.extend(fits.map(|name| Found { name, ..Found::default() }));
        if count < PAGE || end == last {
            break;
        }
        last = end;
    }
    Ok(found)
}
