//! Images: `images`, `rmi`, `tag`, `history`, `import`, `export`, `save`, `load`, `image prune`, `image bootstrap`, `search`.

use super::container::pruned;
use super::filters::{bit, filters};
use super::pull::{Output, Progress, split};
use crate::args::{
    Given, any, filter, flag, force, format, list, maybe, no_trunc, one, opt, prune_filter, quiet, some,
};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::render::list::{Listing, Style};
use crate::render::{size, table, template, time};
use crate::session::Session;
use clap::ArgMatches;
use client::{Body, Chunks, Lines, Method, encode, query};
use serde_json::{Value, json};
use std::io::{Read, Write};

pub const VERBS: &[Verb] = &[
    Verb {
        group: "image",
        names: &["ls", "list"],
        top: &["images"],
        usage: "[REPOSITORY[:TAG]]",
        about: "List images",
        args: || {
            vec![
                flag("all", "a", "Show all images (default hides intermediate images)"),
                flag("digests", "", "Show digests"),
                filter(),
                format(),
                no_trunc(),
                quiet(),
                maybe("reference"),
            ]
        },
        run: |session, given| Box::pin(images(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["rm", "remove"],
        top: &["rmi"],
        usage: "IMAGE [IMAGE...]",
        about: "Remove one or more images",
        args: || {
            vec![
                flag("force", "f", "Force removal of the image"),
                flag("no-prune", "", "Do not delete untagged parents"),
                opt("platform", "", "string", "Remove only what is of the given platform"),
                any("images"),
            ]
        },
        run: |session, given| Box::pin(rmi(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["tag"],
        top: &["tag"],
        usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
        about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
        args: || vec![one("source"), one("target")],
        run: |session, given| Box::pin(tag(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["history"],
        top: &["history"],
        usage: "IMAGE",
        about: "Show the history of an image",
        args: || {
            vec![
                format(),
                flag("human", "H", "Print sizes and dates in human readable format"),
                no_trunc(),
                opt("platform", "", "string", "Show history for the given platform"),
                quiet(),
                one("image"),
            ]
        },
        run: |session, given| Box::pin(history(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["import"],
        top: &["import"],
        usage: "FILE|URL|- [REPOSITORY[:TAG]]",
        about: "Import the contents from a tarball to create a filesystem image",
        more: "Examples:\n  cauldron import rootfs.tar base:1\n  cauldron import -c 'CMD [\"sh\"]' - base < rootfs.tar",
        args: || {
            vec![
                list("change", "c", "list", "Apply Dockerfile instruction to the created image"),
                opt("message", "m", "string", "Set commit message for imported image"),
                opt("platform", "", "string", "Set platform of the image"),
                one("file"),
                maybe("image"),
            ]
        },
        run: |session, given| Box::pin(import(session, given)),
        ..VERB
    },
    Verb {
        group: "container",
        names: &["export"],
        top: &["export"],
        usage: "CONTAINER",
        about: "Export a container's filesystem as a tar archive",
        args: || vec![opt("output", "o", "string", "Write to a file, instead of STDOUT"), one("container")],
        run: |session, given| {
            Box::pin(async move {
                let path =
                    format!("/containers/{}/export", encode(given.text("container").unwrap_or_default()));
                download(&session, &path, given.text("output")).await
            })
        },
        ..VERB
    },
    Verb {
        group: "image",
        names: &["save"],
        top: &["save"],
        usage: "IMAGE [IMAGE...]",
        about: "Save one or more images to a tar archive",
        more: "Example:\n  cauldron save app:1 base | gzip > app.tar.gz",
        args: || {
            vec![
                opt("output", "o", "string", "Write to a file, instead of STDOUT"),
                opt("platform", "", "string", "Save only the given platform"),
                some("images"),
            ]
        },
        run: |session, given| {
            Box::pin(async move {
                let names: Vec<String> =
                    given.texts("images").iter().map(|name| format!("names={}", encode(name))).collect();
                let path = for_platform(format!("/images/get?{}", names.join("&")), given.text("platform"));
                download(&session, &path, given.text("output")).await
            })
        },
        ..VERB
    },
    Verb {
        group: "image",
        names: &["load"],
        top: &["load"],
        about: "Load images from a tar archive or STDIN",
        args: || {
            vec![
                opt("input", "i", "string", "Read from tar archive file, instead of STDIN"),
                flag("quiet", "q", "Suppress the load output"),
                opt("platform", "", "string", "Load only the given platform").hide(true),
            ]
        },
        run: |session, given| Box::pin(load(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["prune"],
        about: "Remove unused images",
        args: || {
            vec![
                flag("all", "a", "Remove all unused images, not just dangling ones"),
                prune_filter(),
                force(),
            ]
        },
        run: |session, given| Box::pin(prune(session, given)),
        ..VERB
    },
    Verb {
        group: "image",
        names: &["bootstrap"],
        usage: "[OPTIONS] DISTRIBUTION:SUITE",
        about: "Make a base image from a distribution's own archive",
        more: "Example:\n  cauldron image bootstrap debian:bookworm\n\nUses mmdebstrap or debootstrap; needs no registry.",
        args: || {
            vec![
                opt("tag", "t", "name", "Name of the image, where it is not the distribution's"),
                opt("mirror", "", "url", "Archive to take the packages from"),
                opt("variant", "", "string", "Set of packages (minbase)"),
                list("include", "", "package", "Install this package too"),
                one("distribution"),
            ]
        },
        run: |session, given| Box::pin(bootstrap(session, given)),
        ..VERB
    },
    Verb {
        top: &["search"],
        usage: "TERM",
        about: "Search a registry for images",
        args: || {
            vec![
                filter(),
                format(),
                opt("limit", "", "int", "Max number of search results"),
                no_trunc(),
                one("term"),
            ]
        },
        run: |session, given| Box::pin(search(session, given)),
        ..VERB
    },
];

/// A path segment that may have slashes.
fn name(reference: &str) -> String {
    encode(reference).replace("%2F", "/")
}

const IMAGES: Listing =
    Listing { table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}", headers: HEADERS };
const DIGESTS: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    headers: HEADERS,
};
pub const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

async fn images(session: Session, given: ArgMatches) -> Outcome {
    let mut wanted = given.texts("filter");
    wanted.extend(given.text("reference").map(|reference| format!("reference={reference}")));
    let path = query(
        "/images/json",
        [
            ("all", bit(given.on("all"))),
            ("filters", filters(&wanted)?),
            ("digests", bit(given.on("digests"))),
        ],
    );
    let found = session.client()?.get(&path).await?;
    let (now, full) = (session.now().0, given.on("no-trunc"));
    let mut rows = Vec::new();
    for image in found.as_array().into_iter().flatten() {
        rows.extend(image_rows(image, now, full, given.on("digests")));
    }
    if given.on("quiet") {
        let mut seen = std::collections::HashSet::new();
        rows.retain(|row: &Value| seen.insert(row["ID"].as_str().unwrap_or_default().to_owned()));
    }
    let listing = if given.on("digests") { DIGESTS } else { IMAGES };
    session.out(
        &listing
            .render(&rows, &Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" })?,
    )?;
    Ok(0)
}

/// One row a tag; `<none>` for what has none.
pub fn image_rows(image: &Value, now: i64, full: bool, digests: bool) -> Vec<Value> {
    let list = |name: &str| -> Vec<String> {
        image[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|text| !text.starts_with("<none>"))
            .map(str::to_owned)
            .collect()
    };
    let id = image["Id"].as_str().unwrap_or_default();
    let created = image["Created"].as_i64().unwrap_or(0);
    let digest_of = list("RepoDigests");
    let mut tags: Vec<(String, String)> = list("RepoTags")
        .iter()
        .map(|tag| split(tag))
        .map(|(name, tag)| (name.to_owned(), tag.to_owned()))
        .collect();
    if tags.is_empty() {
        let repository =
            digest_of.first().and_then(|digest| digest.split_once('@')).map_or("<none>", |(name, _)| name);
        tags.push((repository.to_owned(), "<none>".to_owned()));
    }
    tags.into_iter().map(|(repository, tag)| {
        let digest = digest_of.iter().filter_map(|digest| digest.split_once('@')).find(|(name, _)| *name == repository).map_or("<none>", |(_, digest)| digest);
        let bytes = image["Size"].as_i64().unwrap_or(0);
        let mut row = json!({
            "Repository": repository, "Tag": tag, "Digest": if digests || digest != "<none>" { digest } else { "<none>" },
            "ID": if full { id } else { table::short_id(id) },
            "CreatedSince": format!("{} ago", time::human_duration(now - created)), "CreatedAt": time::printed(created),
            "Size": size::human(bytes), "VirtualSize": size::human(bytes), "Containers": "N/A", "SharedSize": "N/A", "UniqueSize": "N/A",
        });
        row[template::LABELS] = image["Labels"].clone();
        row
    }).collect()
}

/// A path with the parameter `platform` in the JSON that engines take since API 1.48.
pub(super) fn for_platform(path: String, platform: Option<&str>) -> String {
    let Some(platform) = platform.filter(|platform| !platform.is_empty()) else { return path };
    let mut parts = platform.splitn(3, '/');
    let keys =
        if platform.contains('/') { &["os", "architecture", "variant"][..] } else { &["architecture"] };
    let json: serde_json::Map<String, Value> =
        keys.iter().zip(&mut parts).map(|(key, part)| ((*key).to_owned(), part.into())).collect();
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}platform={}", encode(&Value::Object(json).to_string()))
}

async fn rmi(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    let images = given.texts("images");
    if images.is_empty() {
        return if given.on("force") { Ok(0) } else { Err("'rmi' requires at least 1 argument".into()) };
    }
    let mut code = 0;
    for image in images {
        if let Some(platform) = given.text("platform") {
            let path = for_platform(format!("/images/{}/json", name(&image)), Some(platform));
            if let Err(error) = client.get(&path).await {
                session.complain(&error.into());
                code = 1;
                continue;
            }
        }
        let path = query(
            &format!("/images/{}", name(&image)),
            [("force", bit(given.on("force"))), ("noprune", bit(given.on("no-prune")))],
        );
        match client.json(Method::DELETE, &path, None).await {
            Ok(deleted) => {
                for item in deleted.as_array().into_iter().flatten() {
                    if let Some(id) = item["Untagged"].as_str() {
                        session.line(&format!("Untagged: {id}"))?;
                    }
                    if let Some(id) = item["Deleted"].as_str() {
                        session.line(&format!("Deleted: {id}"))?;
                    }
                }
            }
            Err(error) => {
                let missing = error.status() == Some(404);
                session.complain(&error.into());
                if !(missing && given.on("force")) {
                    code = 1;
                }
            }
        }
    }
    Ok(code)
}

async fn tag(session: Session, given: ArgMatches) -> Outcome {
    let (repo, tag) = split(given.text("target").unwrap_or_default());
    let path = query(
        &format!("/images/{}/tag", name(given.text("source").unwrap_or_default())),
        [("repo", repo.to_owned()), ("tag", tag.to_owned())],
    );
    session.client()?.post(&path).await?;
    Ok(0)
}

const HISTORY: Listing = Listing {
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
    ],
};

async fn history(session: Session, given: ArgMatches) -> Outcome {
    let path = format!("/images/{}/history", name(given.text("image").unwrap_or_default()));
    let path = for_platform(path, given.text("platform"));
    let found = session.client()?.get(&path).await?;
    let (now, full, human) = (session.now().0, given.on("no-trunc"), given.switch("human").unwrap_or(true));
    let rows: Vec<Value> = found.as_array().into_iter().flatten().map(|step| {
        let id = step["Id"].as_str().unwrap_or("<missing>");
        let created = step["Created"].as_i64().unwrap_or(0);
        let by = step["CreatedBy"].as_str().unwrap_or_default().replace('\t', " ");
        let bytes = step["Size"].as_i64().unwrap_or(0);
        json!({
            "ID": if full || id == "<missing>" { id } else { table::short_id(id) },
            "CreatedSince": if human { format!("{} ago", time::human_duration(now - created)) } else { time::printed(created) },
            "CreatedAt": time::printed(created), "CreatedBy": if full { by } else { table::ellipsis(&by, 45) },
            "Size": if human { size::human(bytes) } else { bytes.to_string() },
            "Comment": step["Comment"].as_str().unwrap_or_default(),
        })
    }).collect();
    session.out(
        &HISTORY
            .render(&rows, &Style { format: given.text("format"), quiet: given.on("quiet"), key: "ID" })?,
    )?;
    Ok(0)
}

/// A request's body from a file, read by a thread of its own.
pub fn body_of(mut source: Box<dyn Read + Send>) -> Body {
    let (sender, body) = client::body_channel(4);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0; 256 * 1024];
            match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    buffer.truncate(count);
                    if sender.blocking_send(Ok(buffer.into())).is_err() {
                        break;
                    }
                }
                Err(error) => {
                    let _ = sender.blocking_send(Err(error));
                    break;
                }
            }
        }
    });
    body
}

fn source(path: &str) -> Result<Box<dyn Read + Send>, Failure> {
    if path == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    Ok(Box::new(std::fs::File::open(path).map_err(file("open", path.as_ref()))?))
}

async fn import(session: Session, given: ArgMatches) -> Outcome {
    let from = given.text("file").unwrap_or_default();
    let (repo, tag) = given.text("image").map_or(("", ""), split);
    let remote = from.starts_with("http://") || from.starts_with("https://");
    let text = |name: &str| given.text(name).unwrap_or_default().to_owned();
    let mut path = query(
        "/images/create",
        [
            ("fromSrc", if remote { from } else { "-" }.to_owned()),
            ("repo", repo.to_owned()),
            ("tag", tag.to_owned()),
            ("message", text("message")),
            ("platform", text("platform")),
        ],
    );
    for change in given.texts("change") {
        path.push_str(&format!("&changes={}", encode(&change)));
    }
    let body = body_of(if remote { Box::new(std::io::empty()) } else { source(from)? });
    let response =
        session.client()?.upload(Method::POST, &path, &[("Content-Type", "application/x-tar")], body).await?;
    Progress::new(Output::Stdout, false).follow(Lines::new(response)).await?;
    Ok(0)
}

async fn load(session: Session, given: ArgMatches) -> Outcome {
    let from = given.text("input").unwrap_or("-");
    if from == "-" && crate::stream::is_terminal(std::io::stdin()) {
        return Err("requested load from stdin, but stdin is empty".into());
    }
    let quiet = given.on("quiet") || !crate::stream::is_terminal(std::io::stdout());
    let path = query("/images/load", [("quiet", if quiet { "1" } else { "0" }.to_owned())]);
    let response = session
        .client()?
        .upload(Method::POST, &path, &[("Content-Type", "application/x-tar")], body_of(source(from)?))
        .await?;
    Progress::new(Output::Stdout, false).follow(Lines::new(response)).await?;
    Ok(0)
}

/// A stream of bytes to a file (whole or not at all) or to stdout.
pub(super) async fn download(session: &Session, path: &str, output: Option<&str>) -> Outcome {
    if output.is_none() && crate::stream::is_terminal(std::io::stdout()) {
        return Err("cowardly refusing to save to a terminal. Use the -o flag or redirect".into());
    }
    if let Some(directory) = output.and_then(|output| std::path::Path::new(output).parent())
        && !directory.as_os_str().is_empty()
        && !directory.is_dir()
    {
        return Err(format!("invalid output path: directory {directory:?} does not exist").into());
    }
    let mut chunks = Chunks::new(session.client()?.call(Method::GET, path, None).await?);
    let Some(output) = output else {
        while let Some(bytes) = chunks.next().await? {
            session.raw(&bytes)?;
        }
        return Ok(0);
    };
    let target = std::path::Path::new(output);
    // A device or a pipe is written as it is; a file appears when it is complete.
    let whole = std::fs::symlink_metadata(target).map_or(true, |found| found.is_file());
    let part = if whole {
        target.with_file_name(format!(
            ".{}.{}",
            target.file_name().unwrap_or_default().to_string_lossy(),
            std::process::id()
        ))
    } else {
        target.to_owned()
    };
    let write = async {
        let mut out = std::fs::File::create(&part).map_err(file("create", target))?;
        while let Some(bytes) = chunks.next().await? {
            out.write_all(&bytes).map_err(file("write", target))?;
        }
        Ok::<_, Failure>(())
    };
    let written = write.await;
    if whole {
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        } else {
            std::fs::rename(&part, target).map_err(file("write", target))?;
        }
    }
    written.map(|()| 0)
}

async fn prune(session: Session, given: ArgMatches) -> Outcome {
    let all = given.on("all");
    let what = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    if !given.on("force")
        && !session.confirm(&format!("WARNING! This will remove {what}.\nAre you sure you want to continue?"))
    {
        return Ok(0);
    }
    let mut wanted = given.texts("filter");
    if !wanted.iter().any(|filter| filter.starts_with("dangling=")) {
        wanted.push(format!("dangling={}", if all { "false" } else { "true" }));
    }
    let answer = session
        .client()?
        .json(Method::POST, &query("/images/prune", [("filters", filters(&wanted)?)]), None)
        .await?;
    session.out(&pruned(
        "Deleted Images:",
        &deleted_images(&answer["ImagesDeleted"]),
        &answer["SpaceReclaimed"],
    ))?;
    Ok(0)
}

/// `untagged: x` and `deleted: y` lines.
pub fn deleted_images(items: &Value) -> Value {
    let lines = items.as_array().into_iter().flatten().filter_map(|item| {
        match (item["Untagged"].as_str(), item["Deleted"].as_str()) {
            (Some(id), _) => Some(format!("untagged: {id}")),
            (_, Some(id)) => Some(format!("deleted: {id}")),
            _ => None,
        }
    });
    Value::from(lines.collect::<Vec<_>>())
}

async fn bootstrap(session: Session, given: ArgMatches) -> Outcome {
    let name = given.text("distribution").unwrap_or_default();
    let text = |name: &str| given.text(name).unwrap_or_default();
    let body = serde_json::json!({
        "distribution": name,
        "tag": text("tag"),
        "mirror": text("mirror"),
        "variant": text("variant"),
        "include": given.texts("include"),
    });
    let lines = session
        .client()?
        .lines(Method::POST, "/cauldron/v1/images/bootstrap", Some(&body))
        .await
        .map_err(only_here)?;
    Progress::new(Output::Stdout, false).follow(lines).await?;
    Ok(0)
}

/// A foreign engine does not have `/cauldron/v1`.
pub fn only_here(error: client::Error) -> Failure {
    if error.status() == Some(404) && error.to_string().contains("page not found") {
        return Failure::new(
            "this engine cannot do that: it is not a Cauldron\nWithout -H, DOCKER_HOST or a context the engine is this process",
        );
    }
    error.into()
}

const SEARCH: Listing = Listing {
    table: "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}",
    headers: &[("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")],
};

async fn search(session: Session, given: ArgMatches) -> Outcome {
    let text = |name: &str| given.text(name).unwrap_or_default().to_owned();
    let path = query(
        "/images/search",
        [("term", text("term")), ("limit", text("limit")), ("filters", filters(&given.texts("filter"))?)],
    );
    let auth = super::credentials::header(&session, &text("term"))?;
    let (_, empty) = client::body_channel(1);
    let response = session.client()?.upload(Method::GET, &path, &[("X-Registry-Auth", &auth)], empty).await?;
    let found = Lines::new(response).next().await?.unwrap_or_default();
    let full = given.on("no-trunc");
    let rows: Vec<Value> = found.as_array().into_iter().flatten().map(|item| {
        let description = item["description"].as_str().unwrap_or_default().replace('\n', " ");
        json!({
            "Name": item["name"], "Description": if full { description } else { table::ellipsis(&description, 45) },
            "StarCount": item["star_count"].to_string(), "IsOfficial": if item["is_official"].as_bool().unwrap_or(false) { "[OK]" } else { "" },
        })
    }).collect();
    session
        .out(&SEARCH.render(&rows, &Style { format: given.text("format"), quiet: false, key: "Name" })?)?;
    Ok(0)
}
