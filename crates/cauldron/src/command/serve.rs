//! What the binary does beside being a client: `serve`, and the pages made from the command line's own definition.

use crate::args::{Given, list, one};
use crate::cli::{self, VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use clap::ArgMatches;

pub const VERBS: &[Verb] = &[
    Verb {
        top: &["serve"],
        about: "Serve the Docker Engine API, for Docker's own clients",
        more: "Example:\n  cauldron serve -H unix:///run/cauldron.sock &\n  DOCKER_HOST=unix:///run/cauldron.sock docker ps",
        args: || {
            vec![list(
                "listen",
                "H",
                "list",
                "Where to listen: unix://PATH or tcp://ADDRESS:PORT (loopback only)",
            )]
        },
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

async fn serve(session: Session, given: ArgMatches) -> Outcome {
    let roots = session.options().roots.clone();
    let mut texts = given.texts("listen");
    if texts.is_empty() {
        texts.extend(session.options().host.clone());
    }
    if texts.is_empty() {
        texts.push(format!("unix://{}", roots.run_root.join("cauldron.sock").display()));
    }
    let refused = |failure: api::Failure| Failure::new(failure.text());
    let hosts: Vec<api::Host> = texts
        .iter()
        .map(|text| api::Host::parse(text))
        .collect::<Result<_, _>>()
        .map_err(|error| refused(error.into()))?;
    let engine = api::open(roots.root, roots.run_root, roots.config).map_err(refused)?;
    // The server brings its own event loop, so it gets a thread without one.
    let server = std::thread::spawn(move || {
        api::serve(&engine, &hosts, |addresses| {
            use std::io::Write;
            for address in addresses {
                let _ = writeln!(std::io::stderr(), "API listen on {address}");
            }
        })
    });
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
