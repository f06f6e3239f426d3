//! `inspect`, of anything: the engine's JSON as it is, or through a template.

use super::filters::bit;
use super::image::for_platform;
use crate::args::{Given, flag, opt, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::json::indent;
use crate::render::template::Template;
use crate::session::Session;
use clap::{Arg, ArgMatches};
use client::{Client, Method, encode};

fn args() -> Vec<Arg> {
    vec![
        opt("format", "f", "string", "Format output using a Go template, or 'json'"),
        flag("size", "s", "Display total file sizes if the type is container"),
        flag("verbose", "v", "Verbose output for networks").hide(true),
        opt("platform", "", "string", "Inspect the image of this platform (os/architecture[/variant])"),
        some("names"),
    ]
}

const INSPECT: Verb = Verb {
    names: &["inspect"],
    usage: "NAME|ID [NAME|ID...]",
    about: "Display detailed information",
    args,
    ..VERB
};

pub const VERBS: &[Verb] = &[
    Verb {
        names: &[],
        top: &["inspect"],
        about: "Return low-level information on objects",
        more: "Example:\n  cauldron inspect -f '{{.State.Status}} {{json .Mounts}}' web",
        args: || {
            let mut args = args();
            args.push(opt("type", "", "string", "Only inspect objects of the given type"));
            args
        },
        run: |session, given| {
            let kinds = match given.text("type") {
                None | Some("") => vec!["container", "image", "network", "volume"],
                Some("container") => vec!["container"],
                Some("image") => vec!["image"],
                Some("network") => vec!["network"],
                Some("volume") => vec!["volume"],
                Some(other) => {
                    let failure = Failure::new(format!("\"{other}\" is not a valid value for --type"));
                    return Box::pin(async { Err(failure) });
                }
            };
            Box::pin(inspect(session, given, kinds))
        },
        ..INSPECT
    },
    Verb {
        group: "container",
        run: |session, given| Box::pin(inspect(session, given, vec!["container"])),
        ..INSPECT
    },
    Verb {
        group: "image",
        run: |session, given| Box::pin(inspect(session, given, vec!["image"])),
        ..INSPECT
    },
    Verb {
        group: "network",
        run: |session, given| Box::pin(inspect(session, given, vec!["network"])),
        ..INSPECT
    },
    Verb {
        group: "volume",
        run: |session, given| Box::pin(inspect(session, given, vec!["volume"])),
        ..INSPECT
    },
];

async fn find(
    client: &Client,
    name: &str,
    kinds: &[&str],
    sized: bool,
    platform: Option<&str>,
) -> Result<String, Failure> {
    for kind in kinds {
        let path = match *kind {
            "container" => format!(
                "/containers/{}/json{}",
                encode(name),
                if sized { format!("?size={}", bit(true)) } else { String::new() }
            ),
            // A name keeps its slashes: the API's path has them.
            "image" => for_platform(format!("/images/{}/json", encode(name).replace("%2F", "/")), platform),
            "network" => format!("/networks/{}", encode(name)),
            _ => format!("/volumes/{}", encode(name)),
        };
        match client.bytes(Method::GET, &path, None).await {
            Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) if kinds.len() > 1 && (error.status() == Some(404) || error.status() == Some(400)) => {
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(format!("No such object: {name}")))
}

async fn inspect(session: Session, given: ArgMatches, kinds: Vec<&'static str>) -> Outcome {
    let client = session.client()?;
    let template = match given.text("format").filter(|format| !format.is_empty()) {
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format).map_err(|error| Failure::new(error).code(64))?),
        None => None,
    };
    let mut found = Vec::new();
    let mut code = 0;
    for name in given.texts("names") {
        match find(client, &name, &kinds, given.on("size"), given.text("platform")).await {
            Ok(text) => found.push(text),
            Err(failure) => {
                session.complain(&failure);
                code = 1;
            }
        }
    }
    match template {
        None => session.line(&indent(&format!("[{}]", found.join(",")), "    "))?,
        Some(template) => {
            for text in found {
                if given.text("format") == Some("json") {
                    session.line(&text)?;
                    continue;
                }
                let value: serde_json::Value = serde_json::from_str(&text)
                    .map_err(|error| Failure::new(format!("malformed answer: {error}")))?;
                session.line(&template.render(&value)?)?;
            }
        }
    }
    Ok(code)
}
