//! `tls`: certificates for engines and clients that meet over TCP.

use crate::args::{Given, flag, list, one, opt, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use clap::ArgMatches;
use client::authority::{Authority, Order, Usage};
use std::path::{Path, PathBuf};

/// Where the authority is kept.
pub const DIR: &str = "/etc/cauldron/tls";
/// How long certificates are good: what browsers and Apple's systems accept at most.
const DAYS: i64 = 825;

const TLS: Verb = Verb { group: "tls", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["init"],
        about: "Make a certificate authority, a server's certificate and a first client's",
        more: "Example:\n  cauldron tls init --host server.example.net --host 192.0.2.7\n  cauldron serve -H tcp://0.0.0.0:2376 --tlsverify\n  DOCKER_CERT_PATH=/etc/cauldron/tls/client docker -H tcp://server.example.net:2376 --tlsverify ps",
        args: || {
            vec![
                dir(),
                list(
                    "host",
                    "",
                    "list",
                    "Host name or address of the server, beside localhost and this machine's name",
                ),
                days(),
            ]
        },
        run: |session, given| Box::pin(async move { init(&session, &given) }),
        ..TLS
    },
    Verb {
        names: &["issue"],
        usage: "NAME",
        about: "Issue a client's certificate, or a server's",
        more: "Examples:\n  cauldron tls issue alice\n  cauldron tls issue --server --host build.example.net build",
        args: || {
            vec![
                dir(),
                flag("client", "", "For a client (the default)"),
                flag("server", "", "For a server"),
                list("host", "", "list", "Host name or address of the server"),
                days(),
                opt(
                    "out",
                    "o",
                    "dir",
                    "Where to put ca.pem, cert.pem and key.pem (below the authority's directory)",
                ),
                one("name"),
            ]
        },
        run: |session, given| Box::pin(async move { issue(&session, &given) }),
        ..TLS
    },
    Verb {
        names: &["revoke"],
        usage: "NAME|SERIAL...",
        about: "Revoke certificates",
        args: || vec![dir(), some("names")],
        run: |session, given| Box::pin(async move { revoke(&session, &given) }),
        ..TLS
    },
    Verb {
        names: &["ls", "list"],
        about: "List the certificates that were issued",
        args: || vec![dir()],
        run: |session, given| Box::pin(async move { ls(&session, &given) }),
        ..TLS
    },
];

fn dir() -> clap::Arg {
    opt("dir", "", "dir", "The authority's directory (/etc/cauldron/tls)")
}

fn days() -> clap::Arg {
    opt("days", "", "number", "How long certificates are good (825)")
}

fn dir_of(given: &ArgMatches) -> PathBuf {
    given.text("dir").map_or_else(|| PathBuf::from(DIR), PathBuf::from)
}

fn days_of(given: &ArgMatches) -> Result<i64, Failure> {
    let Some(text) = given.text("days") else { return Ok(DAYS) };
    let days = text.parse().ok().filter(|days| (1..=36_500).contains(days));
    days.ok_or_else(|| Failure::new(format!("invalid number of days {text:?}: 1 to 36500")))
}

fn init(session: &Session, given: &ArgMatches) -> Outcome {
    let (dir, days, (now, _)) = (dir_of(given), days_of(given)?, session.now());
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    let mut hosts = given.texts("host");
    hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let is_host_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if !machine.is_empty() && machine.chars().all(is_host_name) && !hosts.iter().any(|host| host == machine) {
        hosts.push(machine.to_owned());
    }
    let mut authority = Authority::create(&dir, &format!("Cauldron authority of {machine}"), now)?;
    for (name, usage, hosts) in [("server", Usage::Server, hosts), ("client", Usage::Client, Vec::new())] {
        let order = Order { name: name.to_owned(), usage, hosts, days, dir: None };
        let issued = authority.issue(&order, now)?;
        session.line(&issued.dir.display().to_string())?;
    }
    let files = serve_flags(&dir);
    session.say(&format!(
        "The server:  cauldron serve -H tcp://0.0.0.0:2376 --tlsverify{files}\nA client:    DOCKER_CERT_PATH={0}/client docker -H tcp://HOST:2376 --tlsverify ps\nKeep {0}/ca-key.pem: whoever has it is root on every such server.",
        dir.display()
    ));
    Ok(0)
}

/// The flags of `serve` for certificates that are not where it looks for them.
fn serve_flags(dir: &Path) -> String {
    if dir == Path::new(DIR) {
        return String::new();
    }
    let dir = dir.join("server");
    let dir = dir.display();
    format!(" --tlscacert {dir}/ca.pem --tlscert {dir}/cert.pem --tlskey {dir}/key.pem")
}

fn issue(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("name").unwrap_or_default().to_owned();
    let usage = if given.on("server") { Usage::Server } else { Usage::Client };
    if given.on("server") && given.on("client") {
        return Err("a certificate is a server's or a client's, not both".into());
    }
    let mut hosts = given.texts("host");
    match usage {
        Usage::Client if !hosts.is_empty() => return Err("--host is for servers: use --server".into()),
        Usage::Server if hosts.is_empty() => hosts.push(name.clone()),
        _ => {}
    }
    let order =
        Order { name, usage, hosts, days: days_of(given)?, dir: given.text("out").map(PathBuf::from) };
    let mut authority = Authority::open(&dir_of(given))?;
    let issued = authority.issue(&order, session.now().0)?;
    session.line(&issued.dir.display().to_string())?;
    Ok(0)
}

fn revoke(session: &Session, given: &ArgMatches) -> Outcome {
    let mut authority = Authority::open(&dir_of(given))?;
    for name in given.texts("names") {
        authority.revoke(&name, session.now().0)?;
        session.line(&name)?;
    }
    session.say("Servers refuse it once they have crl.pem and read it again: kill -HUP");
    Ok(0)
}

fn ls(session: &Session, given: &ArgMatches) -> Outcome {
    let authority = Authority::open(&dir_of(given))?;
    let now = session.now().0;
    let mut text = format!("{:<24} {:<8} {:<34} {:<12} {}\n", "NAME", "FOR", "SERIAL", "DAYS LEFT", "STATE");
    for known in authority.issued() {
        let usage = if known.usage == Usage::Server { "server" } else { "client" };
        let state = match known.revoked {
            Some(_) => "revoked",
            None if known.expires <= now => "expired",
            None => "good",
        };
        let left = (known.expires - now).max(0) / (24 * 60 * 60);
        text.push_str(&format!("{:<24} {usage:<8} {:<34} {left:<12} {state}\n", known.name, known.serial));
    }
    session.out(&text)?;
    Ok(0)
}
