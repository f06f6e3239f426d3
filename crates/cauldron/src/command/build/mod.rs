//! `build`. A directory is built in place where the engine is this process; elsewhere it is sent as a tar stream.

mod cache;
mod output;
mod progress;
mod secrets;
mod services;

use super::credentials;
use super::filters::bit;
use super::image::body_of;
use super::pull::{Output, Progress};
use crate::args::{Given, flag, list, opt, some};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome, file};
use crate::options::files;
use crate::options::ignore::Ignore;
use crate::render::{size, time};
use crate::session::Session;
use cache::Caches;
use clap::{Arg, ArgMatches};
use client::{Lines, Method, encode, query};
use output::Outputs;
use progress::{Screen, Style};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

const BUILD: Verb = Verb {
    names: &["build", "b"],
    usage: "PATH | URL | - | SERVICE...",
    about: "Build an image from a Dockerfile",
    more: "Examples:\n  cauldron build -t app:1 .\n  cauldron build -t app -f docker/Dockerfile --build-arg VERSION=2 .\n  cauldron build -t tool - < Dockerfile\n  cauldron build web worker",
    args,
    run: |session, given| Box::pin(build(session, given)),
    ..VERB
};

pub const VERBS: &[Verb] = &[
    Verb { group: "image", top: &["build"], ..BUILD },
    Verb { group: "builder", ..BUILD },
    Verb { group: "buildx", ..BUILD },
];

fn args() -> Vec<Arg> {
    vec![
        list("allow", "", "list", "Allow extra privileged entitlement (network.host, security.insecure)"),
        list("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
        list("annotation", "", "stringArray", "Add annotation to the image"),
        list("build-arg", "", "list", "Set build-time variables"),
        list("build-context", "", "name=path", "Additional build contexts"),
        opt("call", "", "string", "Set method for evaluating build (check, build)"),
        flag("check", "", "Show the build checks' warnings and build nothing"),
        list(
            "cache-from",
            "",
            "stringArray",
            "External cache sources (type=registry,ref=NAME or type=local,src=DIR)",
        ),
        list(
            "cache-to",
            "",
            "stringArray",
            "Cache export destinations (type=registry|local|inline,mode=min|max)",
        ),
        list(
            "cache-ttl",
            "",
            "[stage=]duration",
            "Do not use cached steps that are older (e.g. 24h, or base=168h)",
        ),
        opt("cpu-shares", "c", "int", "CPU shares (relative weight)").hide(true),
        flag("disable-content-trust", "", "Accepted for compatibility").hide(true),
        opt("file", "f", "string", "Name of the Dockerfile (default: PATH/Dockerfile)"),
        flag("force-rm", "", "Always remove intermediate containers"),
        opt("iidfile", "", "string", "Write the image ID to the file"),
        list("label", "", "list", "Set metadata for an image"),
        flag("load", "", "Shorthand for --output=type=docker"),
        opt("metadata-file", "", "string", "Write build result metadata to a file"),
        opt("memory", "m", "bytes", "Memory limit"),
        opt("network", "", "string", "Set the networking mode for the RUN instructions during build"),
        flag("no-cache", "", "Do not use cache when building the image"),
        list("no-cache-filter", "", "stringArray", "Do not cache specified stages"),
        list("output", "o", "stringArray", "Output destination (format: \"type=local,dest=path\")"),
        opt("platform", "", "string", "Set platform"),
        opt("progress", "", "string", "Type of progress output (auto, plain, tty, quiet, rawjson)"),
        flag("debug", "D", "Keep the state before a step that fails as an image, for a shell in it"),
        opt("provenance", "", "string", "Attestations are not supported: only false").hide(true),
        opt("sbom", "", "string", "Attestations are not supported: only false").hide(true),
        opt("builder", "", "string", "Accepted for compatibility").hide(true),
        flag("push", "", "Shorthand for --output=type=registry"),
        flag("pull", "", "Always attempt to pull a newer version of the image"),
        flag("quiet", "q", "Suppress the build output and print image ID on success"),
        flag("silent", "", "As quiet, and no image ID").hide(true),
        flag("rm", "", "Remove intermediate containers after a successful build"),
        list(
            "secret",
            "",
            "string",
            "Secret to expose to the build: id=mysecret[,src=/local/secret|env=NAME]",
        ),
        opt("shm-size", "", "bytes", "Size of /dev/shm"),
        flag("squash", "", "Not supported").hide(true),
        list("ssh", "", "string", "SSH agent to expose to the build: default|ID[=SOCKET]"),
        list("tag", "t", "list", "Name and optionally a tag in the name:tag format"),
        opt("target", "", "string", "Set the target build stage to build"),
        list("ulimit", "", "ulimit", "Ulimit options"),
        some("context"),
    ]
}

/// Where the Dockerfile and the files come from.
enum Context {
    /// A directory, and the Dockerfile: relative to it, or outside of it.
    Directory(PathBuf, PathBuf),
    /// A tar stream on stdin: what was read of it already, the rest is stdin.
    Stream(Vec<u8>),
    /// A Dockerfile alone.
    Dockerfile(Vec<u8>),
    /// The engine fetches it.
    Remote(String),
}

fn is_remote(place: &str) -> bool {
    let prefixes = ["http://", "https://", "git://", "git@", "ssh://", "file://", "github.com/"];
    prefixes.iter().any(|prefix| place.starts_with(prefix))
}

fn context(given: &ArgMatches) -> Result<Context, Failure> {
    let places = given.texts("context");
    let place = places.first().map(String::as_str).unwrap_or_default();
    if place == "-" {
        if given.text("file") == Some("-") {
            return Err("invalid argument: can't use stdin for both build context and dockerfile".into());
        }
        let mut start = vec![0; 512];
        let mut filled = 0;
        while filled < start.len() {
            match std::io::stdin()
                .read(&mut start[filled..])
                .map_err(|error| Failure::new(format!("read stdin: {error}")))?
            {
                0 => break,
                count => filled += count,
            }
        }
        start.truncate(filled);
        let compressed = [&[0x1f, 0x8b][..], b"BZh", &[0xfd, b'7', b'z'], &[0x28, 0xb5, 0x2f, 0xfd]];
        if compressed.iter().any(|magic| start.starts_with(magic)) || start.get(257..262) == Some(b"ustar") {
            return Ok(Context::Stream(start));
        }
        std::io::stdin()
            .read_to_end(&mut start)
            .map_err(|error| Failure::new(format!("read stdin: {error}")))?;
        return Ok(Context::Dockerfile(start));
    }
    if is_remote(place) && !Path::new(place).exists() {
        return Ok(Context::Remote(place.to_owned()));
    }
    let dir = std::fs::canonicalize(place).map_err(|error| {
        Failure::new(format!(
            "unable to prepare context: path \"{place}\" not found: {}",
            crate::fail::reason(&error)
        ))
    })?;
    if !dir.is_dir() {
        return Err(Failure::new(format!(
            "unable to prepare context: context must be a directory: {}",
            dir.display()
        )));
    }
    // As Docker has it, -f is relative to where we are.
    let dockerfile = match given.text("file") {
        Some("-") => PathBuf::from("-"),
        Some(path) => {
            let path = std::path::absolute(path).map_err(file("resolve", path.as_ref()))?;
            let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
            let resolved =
                parent.map_or(path.clone(), |parent| parent.join(path.file_name().unwrap_or_default()));
            if !resolved.exists() {
                return Err(Failure::new(format!(
                    "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
                    path.display()
                )));
            }
            resolved.strip_prefix(&dir).map(Path::to_owned).unwrap_or(resolved)
        }
        None if !dir.join("Dockerfile").exists() && dir.join("dockerfile").exists() => "dockerfile".into(),
        None => "Dockerfile".into(),
    };
    if dockerfile.as_os_str() == "Dockerfile" && !dir.join(&dockerfile).exists() {
        return Err(Failure::new(format!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
            dir.join("Dockerfile").display()
        )));
    }
    Ok(Context::Directory(dir, dockerfile))
}

/// `NAME=value`, or `NAME` from our environment.
pub fn build_arg(flag: &str) -> (String, Option<String>) {
    match flag.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (flag.to_owned(), std::env::var(flag).ok()),
    }
}

/// All of them; `SOURCE_DATE_EPOCH` from our environment too, as buildx does.
fn build_args(flags: &[String]) -> HashMap<String, Option<String>> {
    let epoch =
        std::env::var("SOURCE_DATE_EPOCH").ok().map(|value| ("SOURCE_DATE_EPOCH".to_owned(), Some(value)));
    // What is given counts more.
    epoch.into_iter().chain(flags.iter().map(|flag| build_arg(flag))).collect()
}

async fn build(session: Session, given: ArgMatches) -> Outcome {
    let client = session.client()?;
    for path in ["iidfile", "metadata-file"].iter().filter_map(|flag| given.text(flag)) {
        let _ = std::fs::remove_file(path);
    }
    if let Some(services) = services::named(&session, &given)? {
        return services::build(&session, &given, services).await;
    }
    let style = Style::of(&given)?;
    let outputs =
        Outputs::parse(&given.texts("output"), given.on("push"), given.on("load"), given.texts("tag"))?;
    refuse(&given)?;
    let context = context(&given)?;
    let id = build_id(&session);
    let ask = Ask { tags: outputs.tags(&id), more: more(&given, style, &outputs)?, id: id.clone() };
    let in_place = match &context {
        Context::Stream(_) => None,
        _ if client.embedded() => in_place(&session, &given, &ask, &context).await?,
        _ => None,
    };
    let lines = match in_place {
        Some(lines) => lines,
        None => sent(&session, &given, &ask, context).await?,
    };
    if checks(&given)? {
        let aux = Progress::new(Output::Stdout, false).follow(lines).await?;
        let warnings = aux.iter().filter_map(|aux| aux["Warnings"].as_u64()).sum::<u64>();
        return Ok(u8::from(warnings > 0));
    }
    let mut screen = Screen::new(style, id.clone());
    let aux = if style == Style::Classic {
        Progress::new(if outputs.takes_stdout() { Output::Stderr } else { Output::Stdout }, false)
            .follow(lines)
            .await?
    } else {
        screen.follow(&session, lines).await?
    };
    let image = aux.iter().rev().find_map(|aux| aux["ID"].as_str()).unwrap_or_default().to_owned();
    let written = outputs.write(&session, &mut screen, &image, &id).await;
    screen.end();
    screen.finish();
    let descriptor = written?;
    if let Some(path) = given.text("iidfile") {
        std::fs::write(path, &image).map_err(file("write", path.as_ref()))?;
    }
    if let Some(path) = given.text("metadata-file") {
        let text = metadata(&session, &outputs, &image, descriptor).await?;
        output::document(&std::path::absolute(path).map_err(file("resolve", path.as_ref()))?, &text)?;
    }
    if style == Style::Quiet && !given.on("silent") && !outputs.takes_stdout() {
        session.line(&image)?;
    }
    Ok(0)
}

/// What `--metadata-file` holds (buildx, `build` reference): digests of the configuration and of the manifest, and the names.
async fn metadata(
    session: &Session,
    outputs: &Outputs,
    image: &str,
    descriptor: Option<Value>,
) -> Result<String, Failure> {
    let mut found = json!({ "containerimage.config.digest": image });
    let descriptor = match descriptor {
        Some(descriptor) => descriptor,
        // What is only files has no manifest any more.
        None => match session.client()?.get(&format!("/images/{}/json", encode(image))).await {
            Ok(inspected) => inspected["Descriptor"].clone(),
            Err(error) if error.status() == Some(404) => Value::Null,
            Err(error) => return Err(error.into()),
        },
    };
    found["containerimage.digest"] = match &descriptor["digest"] {
        Value::Null => json!(image),
        digest => digest.clone(),
    };
    if !descriptor.is_null() {
        found["containerimage.descriptor"] = descriptor;
    }
    let names: Vec<String> = outputs.names().iter().map(|name| output::full(name)).collect();
    if !names.is_empty() {
        found["image.name"] = json!(names.join(","));
    }
    serde_json::to_string_pretty(&found).map_err(|error| Failure::new(error.to_string()))
}

/// What other builders do and this one does not: said, rather than left out in silence.
fn refuse(given: &ArgMatches) -> Result<(), Failure> {
    for flag in ["provenance", "sbom"] {
        if given.text(flag).is_some_and(|value| !matches!(value, "" | "false" | "0")) {
            return Err(Failure::new(format!(
                "--{flag}: attestations are not supported; build without it, or with --{flag}=false"
            )));
        }
    }
    if given.on("squash") {
        return Err("--squash is not supported: copy what is wanted into a stage of its own (FROM scratch, COPY --from)".into());
    }
    Ok(())
}

/// What a build can be asked beyond Docker's API.
fn more(given: &ArgMatches, style: Style, outputs: &Outputs) -> Result<Value, Failure> {
    let mut annotations: BTreeMap<String, String> = outputs.annotations().collect();
    for flag in given.texts("annotation") {
        let (key, value) = flag
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("invalid annotation \"{flag}\": key=value is expected")))?;
        let key = match key.split_once(':') {
            None | Some(("manifest", "")) => key,
            Some((level, key)) if level.split('[').next() == Some("manifest") => key,
            Some((level, _)) if ["index", "index-descriptor", "manifest-descriptor"].contains(&level) => {
                return Err(Failure::new(format!(
                    "annotation \"{flag}\": only an image's manifest is annotated"
                )));
            }
            Some(_) => key,
        };
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let mut ttl = BTreeMap::new();
    for flag in given.texts("cache-ttl") {
        let (stage, age) = flag.split_once('=').unwrap_or(("", &flag));
        let nanos =
            time::duration(age).map_err(|error| Failure::new(format!("--cache-ttl {flag}: {error}")))?;
        let seconds = u64::try_from(nanos / 1_000_000_000)
            .map_err(|_| Failure::new(format!("--cache-ttl {flag}: it is negative")))?;
        ttl.insert(stage.to_owned(), seconds);
    }
    let stages = given.texts("no-cache-filter");
    let stages: Vec<&str> =
        stages.iter().flat_map(|list| list.split(',')).filter(|stage| !stage.is_empty()).collect();
    let mut more = json!({
        "steps": style != Style::Classic, "check": checks(given)?, "keep_failed": given.on("debug"), "annotations": annotations,
        "no_cache_stages": stages, "cache_ttl": ttl,
    });
    Caches::parse(&given.texts("cache-from"), &given.texts("cache-to"))?.onto(&mut more);
    Ok(more)
}

/// `--check`, or `--call check`.
fn checks(given: &ArgMatches) -> Result<bool, Failure> {
    match given.text("call") {
        None | Some("build") => Ok(given.on("check")),
        Some("check" | "lint") => Ok(true),
        Some(other) => Err(Failure::new(format!("--call {other}: check or build"))),
    }
}

/// `--ssh ID[=SOCKET]`: the sockets of agents, by id.
fn agents(flags: &[String]) -> Result<HashMap<String, PathBuf>, Failure> {
    let mut out = HashMap::new();
    for flag in flags {
        let (id, path) = flag.split_once('=').map_or((flag.as_str(), None), |(id, path)| (id, Some(path)));
        let socket = match path {
            Some(path) => PathBuf::from(path),
            None => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
                Failure::new(format!("invalid empty ssh agent socket: SSH_AUTH_SOCK is not set (--ssh {id})"))
            })?,
        };
        use std::os::unix::fs::FileTypeExt as _;
        let data = std::fs::metadata(&socket).map_err(file("ssh agent", &socket))?;
        if !data.file_type().is_socket() {
            return Err(Failure::new(format!(
                "--ssh {id}: {} is no agent's socket: load the key into an agent (ssh-add) and name its socket",
                socket.display()
            )));
        }
        out.insert(id.to_owned(), socket);
    }
    Ok(out)
}

/// What `--build-context` names: a directory is made absolute, anything else is the engine's to fetch.
fn named_context(place: String) -> Result<String, Failure> {
    if let Some(layout) = place.strip_prefix("oci-layout://") {
        let path = std::path::absolute(layout).map_err(file("resolve", layout.as_ref()))?;
        return Ok(format!("oci-layout://{}", path.display()));
    }
    let schemes = ["://", "git@", "github.com/", "target:"];
    if schemes.iter().any(|scheme| place.contains(scheme)) && !Path::new(&place).exists() {
        return Ok(place);
    }
    let dir = std::fs::canonicalize(&place).map_err(file("build context", place.as_ref()))?;
    Ok(dir.to_string_lossy().into_owned())
}

/// How the engine is asked.
struct Ask {
    /// The build's name, to cancel it by.
    id: String,
    /// Names for the image.
    tags: Vec<String>,
    /// What Docker's API does not know.
    more: Value,
}

fn build_id(session: &Session) -> String {
    let (seconds, nanos) = session.now();
    format!("{}-{seconds}{nanos:09}", std::process::id())
}

/// `None`: this engine does not build in place.
async fn in_place(
    session: &Session,
    given: &ArgMatches,
    ask: &Ask,
    context: &Context,
) -> Result<Option<Lines>, Failure> {
    let mut body = json!({
        "id": ask.id, "more": ask.more,
        "agents": agents(&given.texts("ssh"))?, "allow": given.texts("allow"),
        "tags": ask.tags, "build_args": build_args(&given.texts("build-arg")),
        "target": given.text("target").unwrap_or_default(), "labels": files::labels(&[], &given.texts("label"))?,
        "no_cache": given.on("no-cache"), "pull": given.on("pull"), "network": given.text("network").unwrap_or_default(),
        "platform": given.text("platform").unwrap_or_default(),
        "extra_hosts": given.texts("add-host"), "secrets": secrets::read(&given.texts("secret"))?,
    });
    for (name, key) in [("memory", "memory"), ("shm-size", "shm_bytes")] {
        if let Some(text) = given.text(name) {
            body[key] = Value::from(size::parse(text)?);
        }
    }
    for (name, place) in files::pairs(&given.texts("build-context")) {
        body["contexts"][name] = json!(named_context(place)?);
    }
    match context {
        Context::Directory(dir, dockerfile) => {
            body["context_dir"] = json!(dir);
            body["dockerfile"] = json!(dockerfile);
        }
        Context::Remote(url) => {
            body["remote"] = json!(url);
            body["dockerfile"] = json!(given.text("file").filter(|name| *name != "-").unwrap_or_default());
        }
        Context::Dockerfile(text) => body["dockerfile_text"] = json!(String::from_utf8_lossy(text)),
        Context::Stream(_) => return Ok(None),
    }
    if given.text("file") == Some("-") {
        body["dockerfile"] = Value::from("");
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(format!("read stdin: {error}")))?;
        body["dockerfile_text"] = Value::from(text);
    }
    let credentials = credentials::all(session)?;
    if credentials.as_object().is_some_and(|hosts| !hosts.is_empty()) {
        body["credentials"] = credentials;
    }
    match session.client()?.lines(Method::POST, "/cauldron/v1/build", Some(&body)).await {
        Ok(lines) => Ok(Some(lines)),
        Err(error) if error.status() == Some(404) && error.to_string().contains("page not found") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn sent(session: &Session, given: &ArgMatches, ask: &Ask, context: Context) -> Result<Lines, Failure> {
    let secrets = secrets::header(session, &given.texts("secret")).await?;
    let mut dockerfile = given.text("file").unwrap_or("Dockerfile").to_owned();
    let mut remote = String::new();
    let body = match context {
        Context::Remote(url) => {
            remote = url;
            body_of(Box::new(std::io::empty()))
        }
        Context::Stream(start) => body_of(Box::new(std::io::Cursor::new(start).chain(std::io::stdin()))),
        Context::Dockerfile(text) => {
            "Dockerfile".clone_into(&mut dockerfile);
            let mut archive = tar::Builder::new(Vec::new());
            add_text(&mut archive, "Dockerfile", &text)
                .map_err(|error| Failure::new(format!("context: {error}")))?;
            let bytes = archive.into_inner().map_err(|error| Failure::new(format!("context: {error}")))?;
            body_of(Box::new(std::io::Cursor::new(bytes)))
        }
        Context::Directory(dir, path) => {
            let outside = if path.as_os_str() == "-" {
                let mut text = Vec::new();
                std::io::stdin()
                    .read_to_end(&mut text)
                    .map_err(|error| Failure::new(format!("read stdin: {error}")))?;
                Some(text)
            } else if path.is_absolute() {
                Some(std::fs::read(&path).map_err(file("open", &path))?)
            } else {
                None
            };
            dockerfile = if outside.is_some() {
                ".dockerfile.cauldron".to_owned()
            } else {
                path.to_string_lossy().into_owned()
            };
            tarred(dir, dockerfile.clone(), outside)?
        }
    };
    let args = serde_json::to_string(&build_args(&given.texts("build-arg"))).unwrap_or_default();
    let labels = serde_json::to_string(&files::labels(&[], &given.texts("label"))?).unwrap_or_default();
    let memory =
        given.text("memory").map(size::parse).transpose()?.map(|bytes| bytes.to_string()).unwrap_or_default();
    let shm = given
        .text("shm-size")
        .map(size::parse)
        .transpose()?
        .map(|bytes| bytes.to_string())
        .unwrap_or_default();
    let text = |name: &str| given.text(name).unwrap_or_default().to_owned();
    let mut path = query(
        "/build",
        [
            ("dockerfile", dockerfile),
            ("remote", remote),
            ("buildargs", args),
            ("labels", labels),
            ("target", text("target")),
            ("nocache", bit(given.on("no-cache"))),
            ("pull", bit(given.on("pull"))),
            ("buildid", ask.id.clone()),
            ("cauldron", ask.more.to_string()),
            ("rm", if given.switch("rm").unwrap_or(true) { "1" } else { "0" }.to_owned()),
            ("forcerm", bit(given.on("force-rm"))),
            ("networkmode", text("network")),
            ("platform", text("platform")),
            ("memory", memory),
            ("shmsize", shm),
        ],
    );
    for (name, values) in [("t", ask.tags.clone()), ("extrahosts", given.texts("add-host"))] {
        for value in values {
            path.push_str(&format!("&{name}={}", encode(&value)));
        }
    }
    let config = credentials::encoded(&credentials::all(session)?);
    let response = session
        .client()?
        .upload(
            Method::POST,
            &path,
            &[
                ("Content-Type", "application/x-tar"),
                ("X-Registry-Config", &config),
                ("X-Build-Secrets", &secrets),
            ],
            body,
        )
        .await?;
    Ok(Lines::new(response))
}

fn add_text<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    text: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, text)
}

/// The context as a tar stream, made while it is sent; `.dockerignore` holds, but never for the Dockerfile.
fn tarred(dir: PathBuf, dockerfile: String, outside: Option<Vec<u8>>) -> Result<client::Body, Failure> {
    let ignore = match std::fs::read_to_string(dir.join(".dockerignore")) {
        Ok(text) => Ignore::parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ignore::parse(""),
        Err(error) => return Err(file("open", &dir.join(".dockerignore"))(error)),
    };
    let (reader, writer) = std::io::pipe().map_err(|error| Failure::new(format!("pipe: {error}")))?;
    let writer = std::thread::spawn(move || {
        let mut archive = tar::Builder::new(std::io::BufWriter::with_capacity(256 * 1024, writer));
        archive.follow_symlinks(false);
        let keep = |path: &str| path == dockerfile || path == ".dockerignore" || !ignore.ignores(path);
        let mut done = walk(&mut archive, &dir, "", &keep, ignore.has_exceptions());
        if let (Ok(()), Some(text)) = (&done, &outside) {
            done = add_text(&mut archive, &dockerfile, text);
        }
        done.and_then(|()| archive.into_inner().map(drop)).err()
    });
    Ok(body_of(Box::new(Tarred { reader, writer: Some(writer) })))
}

/// The reading end; at its end the writer's error, so that a context that breaks off is no shorter context.
struct Tarred {
    reader: std::io::PipeReader,
    writer: Option<std::thread::JoinHandle<Option<std::io::Error>>>,
}

impl Read for Tarred {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Some(writer) = self.writer.take()
        {
            match writer.join() {
                Ok(None) => {}
                Ok(Some(error)) => return Err(error),
                Err(_) => return Err(std::io::Error::other("the context could not be read")),
            }
        }
        Ok(count)
    }
}

fn walk<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    dir: &Path,
    prefix: &str,
    keep: &dyn Fn(&str) -> bool,
    exceptions: bool,
) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(dir.join(prefix))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = Path::new(prefix).join(&name);
        let text = path.to_string_lossy();
        let kept = keep(&text);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if kept {
                archive.append_dir(&path, entry.path())?;
            }
            if kept || exceptions {
                walk(archive, dir, &text, keep, exceptions)?;
            }
        } else if kept && (kind.is_file() || kind.is_symlink()) {
            archive.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(build_args(&["A=b=c".to_owned()])["A"].as_deref(), Some("b=c"));
    }
}
