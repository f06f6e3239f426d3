//! Verbs about one service: `run`, `exec`, `cp`, `attach`, `stats`, and the images' `build`, `pull`, `push`.

use super::project::{host, load, load_or_name};
use crate::args::{Given, flag, list, number, opt, rest};
use crate::cli::delegate;
use crate::command::run::foreground;
use crate::fail::{Failure, Outcome};
use crate::options::{files, mount, ports};
use crate::session::Session;
use crate::stream::{self, DetachKeys, Ends};
use clap::{Arg, ArgMatches};
use client::bollard::models::HostConfig;
use compose::actual::{self, Container};
use compose::apply::{self, BuildHow, Host, Images, Made, Oneoff, Up};
use compose::body::{Body, Which};
use compose::plan::Wishes;
use compose::{Project, Service, labels};
use std::rc::Rc;

/// A running container of a service: the one with a number, or the first.
pub async fn container(
    session: &Session,
    service: &str,
    index: Option<u32>,
) -> Result<(Rc<Project>, Container), Failure> {
    let project = load_or_name(session, &[service.to_owned()])?;
    let containers = actual::containers(session.client()?, &project.name).await?;
    let found = containers.into_iter().find(|one| {
        one.service == service && one.runs() && !one.oneoff && index.is_none_or(|index| one.number == index)
    });
    match found {
        Some(one) => Ok((project, one)),
        None => Err(Failure::new(match index {
            Some(index) => format!("service \"{service}\" is not running container #{index}"),
            None => format!("service \"{service}\" is not running"),
        })),
    }
}

/// `--index`: 0 is any.
pub fn index(given: &ArgMatches) -> Result<Option<u32>, Failure> {
    Ok(number(given, "index")?.filter(|index| *index > 0))
}

/// `exec`.
pub async fn exec(session: Session, given: ArgMatches) -> Outcome {
    let words = given.texts("args");
    let Some((service, command)) = words.split_first() else { return Err("exec needs a service".into()) };
    let (_, one) = container(&session, service, index(&given)?).await?;
    let mut argv: Vec<String> = Vec::new();
    let terminal = stream::is_terminal(std::io::stdin()) && stream::is_terminal(std::io::stdout());
    let switches = [
        ("--detach", given.on("detach")),
        ("--privileged", given.on("privileged")),
        ("--interactive", given.switch("interactive").unwrap_or(true) && !given.on("detach")),
        ("--tty", !given.on("no-tty") && terminal),
    ];
    argv.extend(switches.iter().filter(|(_, on)| *on).map(|(flag, _)| (*flag).to_owned()));
    for value in given.texts("env") {
        argv.extend(["--env".to_owned(), value]);
    }
    for name in ["user", "workdir"] {
        if let Some(value) = given.text(name) {
            argv.extend([format!("--{name}"), value.to_owned()]);
        }
    }
    argv.push(one.id);
    argv.extend(command.iter().cloned());
    delegate(&session, "exec", argv).await
}

/// `cp`.
pub async fn cp(session: Session, given: ArgMatches) -> Outcome {
    let mut argv: Vec<String> = Vec::new();
    for (flag, name) in [("--archive", "archive"), ("--follow-link", "follow-link")] {
        if given.on(name) {
            argv.push(flag.to_owned());
        }
    }
    let mut ends = Vec::new();
    for name in ["source", "target"] {
        let text = given.text(name).unwrap_or_default();
        ends.push(match text.split_once(':') {
            Some((service, path)) if !text.starts_with(['/', '.']) => {
                let project = load_or_name(&session, &[service.to_owned()])?;
                let containers = actual::containers(session.client()?, &project.name).await?;
                let wanted = index(&given)?;
                let found = containers.into_iter().find(|one| {
                    one.service == service
                        && (given.on("all") || !one.oneoff)
                        && wanted.is_none_or(|index| one.number == index)
                });
                let one = found
                    .ok_or_else(|| Failure::new(format!("no container found for service \"{service}\"")))?;
                format!("{}:{path}", one.id)
            }
            _ => text.to_owned(),
        });
    }
    argv.extend(ends);
    delegate(&session, "cp", argv).await
}

/// `attach`.
pub async fn attach(session: Session, given: ArgMatches) -> Outcome {
    let service = given.text("service").unwrap_or_default().to_owned();
    let (_, one) = container(&session, &service, index(&given)?).await?;
    let mut argv: Vec<String> = Vec::new();
    if given.on("no-stdin") {
        argv.push("--no-stdin".to_owned());
    }
    if let Some(keys) = given.text("detach-keys") {
        argv.extend(["--detach-keys".to_owned(), keys.to_owned()]);
    }
    if let Some(on) = given.switch("sig-proxy") {
        argv.push(format!("--sig-proxy={on}"));
    }
    argv.push(one.id);
    delegate(&session, "attach", argv).await
}

/// `stats`.
pub async fn stats(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load_or_name(&session, &names)?;
    let containers = actual::containers(session.client()?, &project.name).await?;
    let mut argv: Vec<String> = Vec::new();
    for (flag, name) in [("--no-stream", "no-stream"), ("--no-trunc", "no-trunc")] {
        if given.on(name) {
            argv.push(flag.to_owned());
        }
    }
    if let Some(format) = given.text("format") {
        argv.extend(["--format".to_owned(), format.to_owned()]);
    }
    let wanted =
        containers.into_iter().filter(|one| one.runs() && (names.is_empty() || names.contains(&one.service)));
    let wanted: Vec<String> = wanted.map(|one| one.name).collect();
    if wanted.is_empty() {
        return Err(Failure::new(format!("no container of project {} runs", project.name)));
    }
    argv.extend(wanted);
    delegate(&session, "stats", argv).await
}

/// Services of a project that are to be built; all without names.
pub struct Services {
    pub project: Rc<Project>,
    pub names: Vec<String>,
}

/// `build`.
pub async fn build(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load(&session, &names)?;
    let args = given.texts("build-arg");
    let how = BuildHow {
        no_cache: given.on("no-cache"),
        pull: given.on("pull"),
        quiet: given.on("quiet"),
        args: args.iter().map(|text| crate::command::build::build_arg(text)).collect(),
    };
    let services = Services { project, names };
    build_services(&session, &services, given.on("with-dependencies"), &how, given.on("push")).await
}

/// Builds services in the order of their need, and pushes the images where that is wanted.
pub async fn build_services(
    session: &Session,
    Services { project, names }: &Services,
    dependencies: bool,
    how: &BuildHow,
    push: bool,
) -> Outcome {
    let host = host(session)?;
    let wanted = match names.is_empty() {
        true => compose::order::by_need(project),
        false => compose::plan::selected(project, names, !dependencies)?,
    };
    for service in
        wanted.iter().filter_map(|name| project.services.get(name)).filter(|service| service.build.is_some())
    {
        if host.dry_run {
            host.tell("Image", &service.image_name(&project.name), "Building");
            continue;
        }
        apply::build(&host, project, service, how).await?;
        if push {
            delegate(session, "push", vec![service.image_name(&project.name)]).await?;
        }
    }
    Ok(0)
}

/// `pull`.
pub async fn pull(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load(&session, &names)?;
    let host = host(&session)?;
    let wanted = match names.is_empty() {
        true => compose::order::by_need(&project),
        false => compose::plan::selected(&project, &names, !given.on("include-deps"))?,
    };
    let mut seen: Vec<String> = Vec::new();
    for service in wanted.iter().filter_map(|name| project.services.get(name)) {
        let Some(image) = service.image.clone().filter(|image| !seen.contains(image)) else { continue };
        seen.push(image.clone());
        if service.build.is_some() && given.on("ignore-buildable") {
            continue;
        }
        if given.text("policy") == Some("missing") && apply::image_of(&host, &image).await?.is_some() {
            continue;
        }
        if ["never", "build"].contains(&service.pull_policy.as_deref().unwrap_or_default()) || host.dry_run {
            host.tell("Image", &image, "Skipped");
            continue;
        }
        match apply::pull(&host, service, &image, given.on("quiet")).await {
            // What can be built need not be in a registry.
            Err(error) if given.on("ignore-pull-failures") || service.build.is_some() => {
                session.say(&format!("warning: {error}"))
            }
            other => other?,
        }
    }
    Ok(0)
}

/// `push`.
pub async fn push(session: Session, given: ArgMatches) -> Outcome {
    let names = given.texts("services");
    let project = load(&session, &names)?;
    let wanted = match names.is_empty() {
        true => compose::order::by_need(&project),
        false => compose::plan::selected(&project, &names, !given.on("include-deps"))?,
    };
    for service in wanted.iter().filter_map(|name| project.services.get(name)) {
        let Some(image) = service.image.clone().filter(|_| service.build.is_some()) else { continue };
        match delegate(&session, "push", vec![image]).await {
            Err(failure) if given.on("ignore-push-failures") => session.complain(&failure),
            other => {
                other?;
            }
        }
    }
    Ok(0)
}

/// The flags of `run`.
pub fn run_args() -> Vec<Arg> {
    vec![
        flag("build", "", "Build image before starting container"),
        list("cap-add", "", "list", "Add Linux capabilities"),
        list("cap-drop", "", "list", "Drop Linux capabilities"),
        flag("detach", "d", "Run container in background and print container ID"),
        opt("entrypoint", "", "string", "Override the entrypoint of the image"),
        list("env", "e", "list", "Set environment variables"),
        list("env-from-file", "", "list", "Set environment variables from file"),
        flag("interactive", "i", "Keep STDIN open even if not attached"),
        list("label", "l", "list", "Add or override a label"),
        opt("name", "", "string", "Assign a name to the container"),
        flag("no-tty", "T", "Disable pseudo-TTY allocation").alias("no-TTY"),
        flag("no-deps", "", "Don't start linked services"),
        list("publish", "p", "list", "Publish a container's port(s) to the host"),
        opt("pull", "", "string", "Pull image before running"),
        flag("quiet", "q", "Don't print anything to STDOUT"),
        flag("quiet-build", "", "Suppress progress output from the build process"),
        flag("quiet-pull", "", "Pull without printing progress information"),
        flag("remove-orphans", "", "Remove containers for services not defined in the Compose file"),
        flag("rm", "", "Automatically remove the container when it exits"),
        flag("service-ports", "P", "Run command with all service's ports enabled and mapped to the host"),
        flag("tty", "t", "Accepted for compatibility").hide(true),
        flag(
            "use-aliases",
            "",
            "Use the service's network aliases in the network(s) the container connects to",
        ),
        opt("user", "u", "string", "Run as specified username or uid"),
        list("volume", "v", "list", "Bind mount a volume"),
        opt("workdir", "w", "string", "Working directory inside the container"),
        rest("args", 1).value_name("SERVICE [COMMAND] [ARGS...]"),
    ]
}

/// A name's part that no other run has.
fn slug() -> Result<String, Failure> {
    let mut bytes = [0u8; 6];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::new(format!("random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The service as `run` changes it.
fn changed(
    service: &Service,
    given: &ArgMatches,
    command: &[String],
    tty: bool,
    stdin: bool,
) -> Result<Service, Failure> {
    let mut own = service.clone();
    own.container_name = None;
    own.tty = Some(tty);
    own.stdin_open = Some(stdin);
    if !command.is_empty() {
        own.command = Some(command.to_vec());
    }
    if let Some(entrypoint) = given.text("entrypoint") {
        own.entrypoint = Some(compose::schema::words(entrypoint)?);
        if command.is_empty() {
            own.command = Some(Vec::new());
        }
    }
    for line in files::env(&given.texts("env-from-file"), &given.texts("env"))? {
        let (name, value) =
            line.split_once('=').map_or((line.as_str(), None), |(name, value)| (name, Some(value)));
        own.environment.insert(name.to_owned(), value.map(str::to_owned));
    }
    for text in given.texts("label") {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        own.labels.insert(name.to_owned(), Some(value.to_owned()));
    }
    own.user = given.text("user").map(str::to_owned).or(own.user);
    own.working_dir = given.text("workdir").map(str::to_owned).or(own.working_dir);
    own.cap_add.extend(given.texts("cap-add"));
    own.cap_drop.extend(given.texts("cap-drop"));
    Ok(own)
}

/// What `-v` and `-p` add.
struct Extra {
    volumes: Vec<mount::Volume>,
    bindings: ports::Bindings,
}

impl Extra {
    fn read(given: &ArgMatches) -> Result<Self, Failure> {
        let cwd =
            std::env::current_dir().map_err(|error| Failure::new(format!("current directory: {error}")))?;
        let volumes = given.texts("volume");
        let volumes = volumes.iter().map(|flag| mount::volume(flag, &cwd)).collect::<Result<_, _>>()?;
        let mut bindings = ports::Bindings::default();
        for flag in given.texts("publish") {
            ports::publish(&flag, &mut bindings)?;
        }
        Ok(Self { volumes, bindings })
    }

    fn add(self, body: &mut Body) {
        let host = body.create.host_config.get_or_insert_with(HostConfig::default);
        for volume in self.volumes {
            match volume {
                mount::Volume::Bind(bind) => host.binds.get_or_insert_default().push(bind),
                mount::Volume::Anonymous(target) => {
                    body.create.volumes.get_or_insert_default().push(target);
                }
            }
        }
        let bindings = host.port_bindings.get_or_insert_default();
        for (port, more) in self.bindings {
            bindings.entry(port).or_default().get_or_insert_default().extend(more.unwrap_or_default());
        }
        let exposed = body.create.exposed_ports.get_or_insert_default();
        exposed.extend(bindings.keys().filter(|port| !exposed.contains(port)).cloned().collect::<Vec<_>>());
    }
}

/// Brings up what a service needs; the containers that it may refer to.
async fn needed(
    host: &Host,
    project: &Rc<Project>,
    service: &Service,
    given: &ArgMatches,
) -> Result<Made, Failure> {
    let needs: Vec<String> =
        service.depends_on.keys().filter(|name| project.services.contains_key(*name)).cloned().collect();
    let images = Images { quiet: given.on("quiet-pull"), pull: None, ..Images::default() };
    let made = Made::default();
    if !needs.is_empty() && !given.on("no-deps") {
        let wishes =
            Wishes { services: needs, remove_orphans: given.on("remove-orphans"), ..Wishes::default() };
        apply::up(host, project, &Up { wishes, images }).await?;
        // The conditions are waited for by whoever starts; here that is us.
        apply::reached(host, project, service).await?;
    }
    for one in actual::containers(&host.client, &project.name).await? {
        if !one.oneoff {
            made.borrow_mut().entry(one.service).or_default().push((one.id, one.name));
        }
    }
    Ok(made)
}

/// `run`.
pub async fn run(session: Session, given: ArgMatches) -> Outcome {
    let words = given.texts("args");
    let Some((name, command)) = words.split_first() else { return Err("run needs a service".into()) };
    let project = load(&session, std::slice::from_ref(name))?;
    let service = project.service(name)?;
    let extra = Extra::read(&given)?;
    let host = host(&session)?;
    let detach = given.on("detach");
    let terminal = stream::is_terminal(std::io::stdin()) && stream::is_terminal(std::io::stdout());
    let tty = !given.on("no-tty") && terminal && !detach;
    let stdin = given.switch("interactive").unwrap_or(!detach);
    let made = needed(&host, &project, service, &given).await?;
    let images = Images {
        build: given.on("build"),
        pull: given.text("pull").map(str::to_owned),
        quiet: given.on("quiet-pull") || given.on("quiet-build"),
        no_build: false,
    };
    let ids = apply::ensure(&host, &project, std::slice::from_ref(name), &images).await?;
    // What it needs has been made by `up`, its own networks and volumes may not.
    let found = compose::plan::Actual {
        networks: actual::networks(&host.client).await?,
        volumes: actual::volumes(&host.client).await?,
        ..compose::plan::Actual::default()
    };
    let wishes = Wishes { services: vec![name.clone()], no_deps: true, ..Wishes::default() };
    let plan = compose::plan::plan(&project, &found, &wishes, false)?;
    apply::resources(&host, &project, &plan).await?;
    let own = changed(service, &given, command, tty, stdin)?;
    let slug = slug()?;
    let shown =
        given.text("name").map_or_else(|| format!("{}-{name}-run-{slug}", project.name), str::to_owned);
    let which =
        Which { number: 1, oneoff: true, aliases: given.on("use-aliases"), ports: given.on("service-ports") };
    let image_id = ids.get(name).map(String::as_str).unwrap_or_default();
    let one = Oneoff { name: &shown, which, image_id, made: &made };
    let id = apply::oneoff(&host, &project, &own, &one, |body| {
        body.create.stdin_once = Some(stdin && !detach);
        (body.create.attach_stdin, body.create.attach_stdout, body.create.attach_stderr) =
            (Some(stdin && !detach), Some(!detach), Some(!detach));
        if let Some(labels) = &mut body.create.labels {
            labels.insert("com.docker.compose.slug".to_owned(), slug.clone());
            labels.insert(labels::ONEOFF.to_owned(), "True".to_owned());
        }
        extra.add(body);
        body.create.host_config.get_or_insert_default().auto_remove = Some(given.on("rm"));
    });
    let id = id.await?;
    if detach {
        host.client.post(&format!("/containers/{id}/start")).await?;
        session.line(&shown)?;
        return Ok(0);
    }
    let ends = Ends { stdin, stdout: true, stderr: true, tty };
    foreground(&session, &id, ends, DetachKeys::parse("")?, true, given.on("rm")).await
}
