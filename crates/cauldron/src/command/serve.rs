//! What the binary does beside being a client: `serve`, and the pages made from the command line's own definition.

use crate::args::{Given, flag, list, one, opt};
use crate::cli::{self, VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use clap::ArgMatches;
use std::path::PathBuf;

pub const VERBS: &[Verb] = &[
    Verb {
        top: &["serve"],
        about: "Serve the Docker Engine API, for Docker's own clients",
        more: MORE,
        args: serve_args,
        run: |session, given| Box::pin(serve(session, given)),
        ..VERB
    },
    Verb {
        top: &["completion"],
        usage: "bash|zsh|fish",
        about: "Print a shell's completion script",
        args: || vec![one("shell")],
        run: |session, given| Box::pin(completion(session, given)),
        ..VERB
    },
    Verb {
        top: &["man"],
        usage: "DIRECTORY",
        about: "Write the manual pages into a directory",
        args: || vec![one("directory")],
        run: |session, given| Box::pin(man(session, given)),
        hidden: true,
        ..VERB
    },
];

const MORE: &str = "\
Listeners: unix://PATH, tcp://ADDRESS:PORT, fd://[NAME] (systemd's sockets). Each may have limits of its own after a '?'.

Capabilities of --allow are RESOURCE:VERB, then further verbs of the same resource or whole resources:
  containers: read env logs wait attach exec create control update remove export copy commit
  images: read search pull load push tag remove export      build: run remove
  volumes: read create remove      networks: read create connect remove restore
  events: read      system: read auth doctor      swarm: read
  host: build (a build in place, of any directory of this machine)
What is not allowed is refused; environment variables are shown only where containers:env is allowed. --read-only
leaves GET requests for lists, inspect, logs and events: no files, no environment variables, no change.

Examples:
  cauldron serve -H unix:///run/cauldron.sock &
  DOCKER_HOST=unix:///run/cauldron.sock docker ps

  cauldron tls init --host server.example.net
  cauldron serve -H tcp://0.0.0.0:2376 --tlsverify

  cauldron serve -H unix:///run/docker.sock -H 'unix:///run/monitoring.sock?read-only' --group docker";

fn serve_args() -> Vec<clap::Arg> {
    vec![
        list(
            "listen",
            "H",
            "list",
            "Where to listen: unix://PATH, tcp://ADDRESS:PORT or fd://, several at once",
        ),
        opt("group", "G", "string", "Group of the unix socket, by name or number"),
        opt("socket-mode", "", "octal", "Mode of the unix socket (0660)"),
        opt("pidfile", "p", "file", "Path to use for the server's PID file"),
        flag("tls", "", "Use TLS; implied by --tlsverify"),
        opt("tlscacert", "", "file", "Trust clients' certificates signed only by this CA"),
        opt("tlscert", "", "file", "Path to TLS certificate file"),
        opt("tlskey", "", "file", "Path to TLS key file"),
        opt(
            "tlscrl",
            "",
            "file",
            "Revoked certificates (default: crl.pem beside the CA, where there is one)",
        ),
        flag("tlsverify", "", "Use TLS and verify the clients"),
        flag(
            "insecure-tcp-without-authentication",
            "",
            "Listen on TCP off loopback without verified client certificates: whoever reaches the port is root here",
        ),
        flag("read-only", "", "No changes, and no environment variables in inspect"),
        flag("no-tasks", "", "Do not run tasks' schedules"),
        list("allow", "", "list", "Allow only these capabilities, like containers:read,logs"),
        list("registry-mirror", "", "list", "Preferred registry mirror for docker.io"),
        list("insecure-registry", "", "list", "Registry (or range of addresses) that may speak plain HTTP"),
    ]
}

/// TLS as the flags say, before or after the verb. Files are looked for in `DOCKER_CERT_PATH`, where `tls init` puts them,
/// or in the directory of Docker's configuration.
fn tls_files(session: &Session, given: &ArgMatches) -> Option<api::TlsFiles> {
    let before = &session.options().tls;
    let verify = given.switch("tlsverify").unwrap_or(before.verify);
    if !verify && !given.switch("tls").unwrap_or(before.enabled) {
        return None;
    }
    let dir = std::env::var_os("DOCKER_CERT_PATH").filter(|dir| !dir.is_empty());
    let made = PathBuf::from(super::tls::DIR).join("server");
    let usual = || if made.is_dir() { made.clone() } else { session.docker_config().to_owned() };
    let dir = dir.map_or_else(usual, PathBuf::from);
    let file = |flag: &str, before: &Option<PathBuf>, name: &str| {
        given.text(flag).map(PathBuf::from).or_else(|| before.clone()).unwrap_or_else(|| dir.join(name))
    };
    Some(api::TlsFiles {
        verify,
        ca: file("tlscacert", &before.ca, "ca.pem"),
        cert: file("tlscert", &before.cert, "cert.pem"),
        key: file("tlskey", &before.key, "key.pem"),
        crl: given.text("tlscrl").map(PathBuf::from),
    })
}

fn serve_options(session: &Session, given: &ArgMatches) -> Result<api::Options, Failure> {
    let refused = |error| Failure::new(api::Failure::from(error).text());
    let mut hosts = given.texts("listen");
    if hosts.is_empty() {
        hosts.extend(session.options().host.clone());
    }
    if hosts.is_empty() {
        let socket = session.options().roots.run_root.join("cauldron.sock");
        hosts.push(format!("unix://{}", socket.display()));
    }
    let access = api::Access::new(given.on("read-only"), &given.texts("allow")).map_err(refused)?;
    let mode = given.text("socket-mode").unwrap_or("0660");
    let octal = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
    Ok(api::Options {
        hosts: hosts
            .iter()
            .map(|text| api::Host::parse(text, &access))
            .collect::<Result<_, _>>()
            .map_err(refused)?,
        tls: tls_files(session, given),
        group: given.text("group").map(str::to_owned),
        mode: octal
            .ok_or_else(|| Failure::new(format!("invalid socket mode {mode:?}: want octal, like 0660")))?,
        insecure: given.on("insecure-tcp-without-authentication"),
        pid_file: given.text("pidfile").map(PathBuf::from),
    })
}

/// The server's log: one line a notice.
fn tell(notice: api::Notice) {
    use std::io::Write;
    let lines = match notice {
        api::Notice::Ready(addresses) => {
            addresses.iter().map(|address| format!("API listen on {address}\n")).collect()
        }
        api::Notice::Line(line) => format!("{line}\n"),
    };
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

async fn serve(session: Session, given: ArgMatches) -> Outcome {
    let refused = |failure: api::Failure| Failure::new(failure.text());
    let options = serve_options(&session, &given)?;
    let registries = api::Registries {
        mirrors: given.texts("registry-mirror"),
        insecure: given.texts("insecure-registry"),
    };
    let roots = session.options().roots.clone();
    let engine = api::open_with(roots.root, roots.run_root, roots.config, registries).map_err(refused)?;
    // It ends with the channel.
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    if !given.on("no-tasks") {
        super::task::scheduler(&session, stopping)?;
    }
    // The server brings its own event loop, so it gets a thread without one.
    let server = std::thread::spawn(move || api::serve(&engine, &options, tell));
    match server.join() {
        Ok(served) => served.map(|()| 0).map_err(|error| refused(error.into())),
        Err(_) => Err("the server stopped unexpectedly".into()),
    }
}

async fn completion(session: Session, given: ArgMatches) -> Outcome {
    let shell = match given.text("shell").unwrap_or_default() {
        "bash" => clap_complete::Shell::Bash,
        "zsh" => clap_complete::Shell::Zsh,
        "fish" => clap_complete::Shell::Fish,
        other => {
            return Err(Failure::new(format!(
                "no completion for the shell \"{other}\": use bash, zsh or fish"
            )));
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::root("cauldron", None), "cauldron", &mut script);
    session.raw(&script)?;
    Ok(0)
}

async fn man(_session: Session, given: ArgMatches) -> Outcome {
    let dir = std::path::PathBuf::from(given.text("directory").unwrap_or_default());
    std::fs::create_dir_all(&dir).map_err(file("create", &dir))?;
    let root = cli::root("cauldron", None).disable_help_subcommand(true);
    clap_mangen::generate_to(root, &dir).map_err(file("write manual pages into", &dir))?;
    Ok(0)
}
