//! The project that is meant, and the surroundings that its work is given.

use crate::args::{Given, flag, list, opt, read_number};
use crate::cli::delegate;
use crate::command::pull;
use crate::fail::Failure;
use crate::session::Session;
use clap::{Arg, ArgMatches};
use compose::apply::{BuildJob, BuildSecret, Host, PullJob};
use compose::{Error, Project, Request};
use futures_util::future::LocalBoxFuture;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;
use std::rc::Rc;

/// The flags between `compose` and the verb.
pub fn globals() -> Vec<Arg> {
    vec![
        list("file", "f", "path", "Compose configuration files"),
        opt("project-name", "p", "string", "Project name"),
        list("profile", "", "string", "Specify a profile to enable"),
        list("env-file", "", "path", "Specify an alternate environment file"),
        opt("project-directory", "", "path", "Specify an alternate working directory").alias("workdir"),
        opt("parallel", "", "int", "Control max parallelism, -1 for unlimited"),
        flag("dry-run", "", "Execute command in dry run mode"),
        flag("all-resources", "", "Include all resources, even those not used by services"),
        opt("ansi", "", "string", "Control when to print ANSI control characters (never|always|auto)"),
        opt("progress", "", "string", "Set type of progress output (auto, plain, json, quiet)"),
        flag("compatibility", "", "Accepted for compatibility").hide(true),
        flag("verbose", "", "Accepted for compatibility").hide(true),
    ]
}

/// What was given before the verb.
pub struct Globals<'a>(pub Option<&'a ArgMatches>);

impl Globals<'_> {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.and_then(|given| given.text(name))
    }
    pub fn texts(&self, name: &str) -> Vec<String> {
        self.0.map(|given| given.texts(name)).unwrap_or_default()
    }
    pub fn on(&self, name: &str) -> bool {
        self.0.is_some_and(|given| given.on(name))
    }
}

/// Compose files are read whole: what is beyond this is not one.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A file of a project; `-` is standard input.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    file.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Our variables.
pub fn environment() -> compose::Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Calls `work` with the request that the flags make.
pub fn with_request<T>(
    session: &Session,
    services: &[String],
    work: impl FnOnce(&Request<'_>) -> T,
) -> Result<T, Failure> {
    let globals = Globals(session.group());
    let cwd = std::env::current_dir().map_err(|error| Failure::new(format!("current directory: {error}")))?;
    // Standard input can be read once, but is asked for more than once.
    let stdin = std::cell::RefCell::new(None::<Vec<u8>>);
    let reader = |path: &Path| -> std::io::Result<Vec<u8>> {
        if path.as_os_str() != "-" {
            return read(path);
        }
        let mut kept = stdin.borrow_mut();
        match &*kept {
            Some(bytes) => Ok(bytes.clone()),
            None => {
                let bytes = read(path)?;
                Ok(kept.insert(bytes).clone())
            }
        }
    };
    let request = Request {
        cwd,
        files: globals.texts("file"),
        directory: globals.text("project-directory").map(str::to_owned),
        name: globals.text("project-name").map(str::to_owned),
        profiles: globals.texts("profile"),
        env_files: globals.texts("env-file"),
        environment: environment(),
        interpolate: true,
        resolve_environment: true,
        services: services.to_vec(),
        read: &reader,
    };
    Ok(work(&request))
}

/// The project of this place; `services`: those that the command names.
pub fn load(session: &Session, services: &[String]) -> Result<Rc<Project>, Failure> {
    let project = with_request(session, services, compose::load)??;
    for warning in &project.warnings {
        session.say(&format!("warning: {warning}"));
    }
    Ok(Rc::new(project))
}

/// The project, or its name alone (`-p`) where there are no files: its containers' labels say the rest.
pub fn load_or_name(session: &Session, services: &[String]) -> Result<Rc<Project>, Failure> {
    let name = Globals(session.group()).text("project-name").map(str::to_owned);
    let name = name.or_else(|| std::env::var("COMPOSE_PROJECT_NAME").ok()).filter(|name| !name.is_empty());
    match with_request(session, services, compose::load)? {
        Ok(project) => Ok(Rc::new(project)),
        Err(Error::Project(text)) if text.starts_with("no configuration file provided") => match name {
            Some(name) => Ok(Rc::new(Project { name, ..Project::default() })),
            None => Err(Failure::new(text)),
        },
        Err(error) => Err(error.into()),
    }
}

/// What a project's work needs of us.
pub fn host(session: &Session) -> Result<Host, Failure> {
    let globals = Globals(session.group());
    let parallel =
        globals.text("parallel").map(str::to_owned).or_else(|| std::env::var("COMPOSE_PARALLEL_LIMIT").ok());
    let parallel: Option<i64> =
        parallel.filter(|text| !text.is_empty()).map(|text| read_number("parallel", &text)).transpose()?;
    let dry_run = globals.on("dry-run");
    let quiet = globals.text("progress") == Some("quiet");
    let shown = session.clone();
    let warned = session.clone();
    Ok(Host {
        client: session.client()?.clone(),
        report: Rc::new(move |event| {
            if !quiet {
                let prefix = if dry_run { "DRY-RUN MODE - " } else { "" };
                shown.say(&format!("{prefix} {} {}  {}", event.kind, event.name, event.status));
            }
        }),
        warn: Rc::new(move |text| warned.say(&format!("warning: {text}"))),
        build: work(session, |session, job| Box::pin(build(session, job))),
        pull: work(session, |session, job| Box::pin(pulled(session, job))),
        once: Some(work(session, |session, job| Box::pin(crate::command::task::once(session, job)))),
        deliveries: Some(session.options().roots.root.join("tasks/deliveries")),
        parallel: usize::try_from(parallel.unwrap_or(-1)).unwrap_or(0),
        dry_run,
    })
}

fn work<J: 'static>(
    session: &Session,
    run: fn(Session, J) -> LocalBoxFuture<'static, Result<(), Failure>>,
) -> compose::apply::Work<J> {
    let session = session.clone();
    Rc::new(move |job| {
        let running = run(session.clone(), job);
        Box::pin(async move { running.await.map_err(failed) })
    })
}

/// A failure of ours as one of a project's.
fn failed(failure: Failure) -> Error {
    match failure.code {
        Some(code) if failure.message.is_empty() => Error::Exit(code),
        _ => Error::project(failure.message),
    }
}

async fn pulled(session: Session, job: PullJob) -> Result<(), Failure> {
    pull::to_stderr(&session, &job.image, job.platform.as_deref().unwrap_or_default(), job.quiet).await
}

/// A file that only we and our children can open.
fn unnamed(bytes: &[u8]) -> Result<std::fs::File, Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("memory file: {error}"));
    let fd = rustix::fs::memfd_create("secret", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|error| wrong(error.into()))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(wrong)?;
    Ok(file)
}

/// Builds as `cauldron build` does.
async fn build(session: Session, job: BuildJob) -> Result<(), Failure> {
    let build = &job.build;
    let mut argv: Vec<String> = vec!["--tag".to_owned(), job.image.clone()];
    let mut add = |flag: &str, value: String| argv.extend([flag.to_owned(), value]);
    build.tags.iter().for_each(|tag| add("--tag", tag.clone()));
    for (name, value) in &build.args {
        add("--build-arg", value.as_ref().map_or(name.clone(), |value| format!("{name}={value}")));
    }
    for (name, value) in &build.labels {
        add("--label", format!("{name}={}", value.as_deref().unwrap_or_default()));
    }
    for (name, place) in &build.additional_contexts {
        add("--build-context", format!("{name}={}", place.as_deref().unwrap_or_default()));
    }
    for (name, addresses) in &build.extra_hosts {
        addresses.iter().for_each(|address| add("--add-host", format!("{name}:{address}")));
    }
    build.cache_from.iter().for_each(|place| add("--cache-from", place.clone()));
    build.cache_to.iter().for_each(|place| add("--cache-to", place.clone()));
    for (id, socket) in &build.ssh {
        add("--ssh", socket.as_ref().map_or(id.clone(), |socket| format!("{id}={socket}")));
    }
    for (flag, list) in [("--allow", &build.entitlements), ("--no-cache-filter", &build.no_cache_filter)] {
        list.iter().for_each(|value| add(flag, value.clone()));
    }
    for (name, limit) in &build.ulimits {
        add("--ulimit", format!("{name}={}:{}", limit.soft, limit.hard));
    }
    // Of several platforms this machine's, where it is one of them.
    let own = if std::env::consts::ARCH == "aarch64" { "linux/arm64" } else { "linux/amd64" };
    let own = build.platforms.iter().find(|platform| *platform == own);
    let platform = job.platform.clone().or_else(|| own.or(build.platforms.first()).cloned());
    for (flag, value) in
        [("--target", &build.target), ("--network", &build.network), ("--platform", &platform)]
    {
        if let Some(value) = value {
            add(flag, value.clone());
        }
    }
    if let Some(bytes) = build.shm_size {
        add("--shm-size", bytes.to_string());
    }
    let mut kept = Vec::new();
    for (id, source) in &job.secrets {
        let path = match source {
            BuildSecret::File(path) => path.display().to_string(),
            BuildSecret::Bytes(bytes) => {
                use std::os::fd::AsRawFd as _;
                let file = unnamed(bytes)?;
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                kept.push(file);
                path
            }
        };
        add("--secret", format!("id={id},src={path}"));
    }
    let mut inline = None;
    if let Some(text) = &build.dockerfile_inline {
        let own = Inline::write(text)?;
        add("--file", own.0.display().to_string());
        inline = Some(own);
    } else if let Some(file) = &build.dockerfile {
        // In a context that is fetched the path is the context's own.
        match remote(&build.context) {
            true => add("--file", file.clone()),
            false => add("--file", Path::new(&build.context).join(file).display().to_string()),
        }
    }
    for (flag, on) in [("--no-cache", job.no_cache), ("--pull", job.pull), ("--silent", job.quiet)] {
        if on {
            argv.push(flag.to_owned());
        }
    }
    argv.push(build.context.clone());
    let outcome = delegate(&session, "build", argv).await;
    drop((kept, inline));
    match outcome? {
        0 => Ok(()),
        code => Err(Failure::silent(code)),
    }
}

fn remote(context: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://", "github.com/"]
        .iter()
        .any(|prefix| context.starts_with(prefix))
}

/// A Dockerfile that stands in the compose file: a file while the build runs.
struct Inline(std::path::PathBuf);

impl Inline {
    fn write(text: &str) -> Result<Self, Failure> {
        let dir = std::env::temp_dir();
        for number in 0..1000 {
            let path = dir.join(format!("cauldron-dockerfile-{}-{number}", std::process::id()));
            match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    let own = Self(path);
                    file.write_all(text.as_bytes()).map_err(crate::fail::file("write", &own.0))?;
                    return Ok(own);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(crate::fail::file("write", &path)(error)),
            }
        }
        Err(Failure::new(format!("no free name below {}", dir.display())))
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
