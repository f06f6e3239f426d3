//! `up`, `create`, `scale`.

use super::logs::{Follow, Printer, Starts};
use super::project::{Globals, host, load};
use super::{services, timeout};
use crate::args::{Given, flag, list, number, opt};
use crate::fail::{Failure, Outcome};
use crate::session::Session;
use crate::stop::Held;
use clap::{Arg, ArgMatches};
use compose::apply::{self, Host, Images, Standing, Up};
use compose::plan::Wishes;
use compose::{Error, Project};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

fn shared() -> Vec<Arg> {
    vec![
        flag("build", "", "Build images before starting containers"),
        flag("no-build", "", "Don't build an image, even if it's policy"),
        opt("pull", "", "string", "Pull image before running (\"always\"|\"missing\"|\"never\"|\"build\")"),
        flag("quiet-pull", "", "Pull without printing progress information"),
        list("scale", "", "SERVICE=NUM", "Scale SERVICE to NUM instances"),
        flag(
            "force-recreate",
            "",
            "Recreate containers even if their configuration and image haven't changed",
        ),
        flag("no-recreate", "", "If containers already exist, don't recreate them"),
        flag("remove-orphans", "", "Remove containers for services not defined in the Compose file"),
        flag("yes", "y", "Assume \"yes\" as answer to all prompts"),
    ]
}

/// The flags of `up`.
pub fn args() -> Vec<Arg> {
    let mut args = shared();
    args.extend([
        flag("abort-on-container-exit", "", "Stops all containers if any container was stopped"),
        flag("abort-on-container-failure", "", "Stops all containers if any container exited with failure"),
        flag("always-recreate-deps", "", "Recreate dependent containers"),
        list("attach", "", "SERVICE", "Restrict attaching to the specified services"),
        flag("attach-dependencies", "", "Automatically attach to log output of dependent services"),
        flag("detach", "d", "Detached mode: Run containers in the background"),
        opt("exit-code-from", "", "SERVICE", "Return the exit code of the selected service container"),
        flag("menu", "", "Accepted for compatibility").hide(true),
        list("no-attach", "", "SERVICE", "Do not attach (stream logs) to the specified services"),
        flag("no-color", "", "Produce monochrome output"),
        flag("no-deps", "", "Don't start linked services"),
        flag("no-log-prefix", "", "Don't print prefix in logs"),
        flag("no-start", "", "Don't start the services after creating them"),
        flag("quiet-build", "", "Suppress the build output"),
        flag(
            "renew-anon-volumes",
            "V",
            "Recreate anonymous volumes instead of retrieving data from the previous containers",
        ),
        timeout(),
        flag("timestamps", "", "Show timestamps"),
        flag("wait", "", "Wait for services to be running|healthy. Implies detached mode"),
        opt(
            "wait-timeout",
            "",
            "int",
            "Maximum duration in seconds to wait for the project to be running|healthy",
        ),
        services(),
    ]);
    args
}

/// The flags of `create`.
pub fn create_args() -> Vec<Arg> {
    let mut args = shared();
    args.push(services());
    args
}

fn scales(flags: &[String]) -> Result<BTreeMap<String, i64>, Failure> {
    let one = |text: &String| {
        let (name, count) = text.split_once('=').unwrap_or((text, ""));
        let count = count.parse::<i64>().ok().filter(|count| *count >= 0);
        let wrong = || Failure::new(format!("invalid --scale option \"{text}\": it must be SERVICE=NUM"));
        Ok((name.to_owned(), count.ok_or_else(wrong)?))
    };
    flags.iter().map(one).collect()
}

fn how(given: &ArgMatches) -> Result<Up, Failure> {
    let conflict = |a: &str, b: &str| {
        if given.on(a) && given.on(b) {
            return Err(Failure::new(format!("--{a} and --{b} are incompatible")));
        }
        Ok(())
    };
    conflict("force-recreate", "no-recreate")?;
    conflict("build", "no-build")?;
    Ok(Up {
        wishes: Wishes {
            services: given.texts("services"),
            no_deps: given.on("no-deps"),
            force_recreate: given.on("force-recreate"),
            no_recreate: given.on("no-recreate"),
            always_recreate_deps: given.on("always-recreate-deps"),
            remove_orphans: given.on("remove-orphans")
                || std::env::var("COMPOSE_REMOVE_ORPHANS").is_ok_and(|on| on == "1" || on == "true"),
            renew_volumes: given.on("renew-anon-volumes"),
            scale: scales(&given.texts("scale"))?,
            timeout: number(given, "timeout")?,
            no_start: given.on("no-start"),
        },
        images: Images {
            build: given.on("build"),
            no_build: given.on("no-build"),
            pull: given.text("pull").map(str::to_owned),
            quiet: given.on("quiet-pull") || given.on("quiet-build"),
        },
    })
}

/// `up`.
pub async fn up(session: Session, given: ArgMatches) -> Outcome {
    let how = how(&given)?;
    let project = load(&session, &how.wishes.services)?;
    if project.services.is_empty() {
        return Err(Failure::new("no service selected"));
    }
    let host = host(&session)?;
    crate::command::task::enable(&session, &project)?;
    let detached = given.on("detach")
        || given.on("wait")
        || how.wishes.no_start
        || Globals(session.group()).on("dry-run");
    if detached {
        for name in ["abort-on-container-exit", "abort-on-container-failure", "exit-code-from"] {
            if given.switch(name) == Some(true) || given.text(name).is_some() {
                return Err(Failure::new(format!("--detach and --{name} are incompatible")));
            }
        }
        let standing = apply::up(&host, &project, &how).await?;
        if given.on("wait") {
            wait(&host, &standing, number(&given, "wait-timeout")?).await?;
        }
        return Ok(0);
    }
    attached(&session, &given, &host, &project, &how).await
}

/// Waits until every container is ready, or over with 0.
pub async fn wait(host: &Host, standing: &Standing, seconds: Option<i64>) -> Result<(), Failure> {
    let all = standing.iter().map(|(_, id, name)| async move {
        let runs = apply::settled(host, id, name, false).await?;
        host.tell("Container", name, if runs { "Healthy" } else { "Exited" });
        Ok::<(), Error>(())
    });
    let all = futures_util::future::try_join_all(all);
    match seconds.and_then(|seconds| u64::try_from(seconds).ok()) {
        None => all.await?,
        Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds), all).await {
            Ok(done) => done?,
            Err(_) => return Err(Failure::new("timeout waiting for the project to be running|healthy")),
        },
    };
    Ok(())
}

/// Which containers end an attached `up`.
struct Ending {
    any: bool,
    failure: bool,
    from: Option<String>,
}

/// An `up` that stays.
struct Attached<'a> {
    session: &'a Session,
    given: &'a ArgMatches,
    host: &'a Host,
    project: &'a Project,
    how: &'a Up,
    /// What is older was said to someone else.
    since: (i64, u32),
    ending: Ending,
}

async fn attached(
    session: &Session,
    given: &ArgMatches,
    host: &Host,
    project: &Rc<Project>,
    how: &Up,
) -> Outcome {
    let from = given.text("exit-code-from").map(str::to_owned);
    if let Some(name) = &from {
        project.service(name)?;
    }
    let ending = Ending {
        any: given.on("abort-on-container-exit") || from.is_some(),
        failure: given.on("abort-on-container-failure"),
        from,
    };
    let (mut interrupt, mut terminate) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
            _ => return Err(Failure::new("signals cannot be received")),
        };
    let held = Held::new();
    let own = Attached { session, given, host, project, how, since: session.now(), ending };
    let outcome = {
        let running = async {
            let standing = apply::up(host, project, how).await?;
            own.follow(&standing).await
        };
        tokio::pin!(running);
        let outcome = tokio::select! {
            outcome = &mut running => Some(outcome),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        if outcome.is_none() && !held.alone() {
            // A helper was told as well, and puts things in order.
            let _ = running.await;
        }
        outcome
    };
    let code = match outcome {
        Some(Ok(None)) => return Ok(0),
        Some(Err(failure)) => return Err(failure),
        Some(Ok(Some(code))) => Some(code),
        None => {
            session.say("Gracefully Stopping... press Ctrl+C again to force");
            None
        }
    };
    let names = how.wishes.services.clone();
    let stopping = apply::stop(host, project, &names, how.wishes.timeout);
    tokio::select! {
        stopped = stopping => stopped?,
        _ = interrupt.recv() => apply::kill(host, project, &names, "KILL").await?,
    }
    Ok(code.unwrap_or(130))
}

impl Attached<'_> {
    /// Whether a service's output is printed.
    fn shown(&self, service: &str) -> bool {
        let (only, without) = (self.given.texts("attach"), self.given.texts("no-attach"));
        let is = |names: &[String]| names.iter().any(|name| name == service);
        let named = self.how.wishes.services.is_empty() || is(&self.how.wishes.services);
        let own = self.project.services.get(service).and_then(|service| service.attach) != Some(false);
        let chosen = match only.is_empty() {
            true => own && (named || self.given.on("attach-dependencies")),
            false => is(&only),
        };
        chosen && !is(&without)
    }

    /// Prints what the containers say until all are over, or one is that ends it: its code.
    async fn follow(&self, standing: &Standing) -> Result<Option<u8>, Failure> {
        let names =
            standing.iter().filter(|(service, ..)| self.shown(service)).map(|(_, _, name)| name.as_str());
        let printer = Printer::new(self.session, self.given, &self.project.name, names);
        let mut starts = Starts::watch(self.session, &self.project.name).await?;
        let mut running = FuturesUnordered::new();
        let printer = &printer;
        let one = |service: String, id: String, name: String, since: String| async move {
            let follow =
                Follow { since, timestamps: self.given.on("timestamps"), follow: true, ..Follow::default() };
            let silent = !self.shown(&service);
            let code = printer.until_over(&self.host.client, &id, &name, follow, silent).await?;
            Ok::<_, Failure>((service, id, name, code))
        };
        let since = format!("{}.{:09}", self.since.0, self.since.1);
        let mut open: BTreeSet<String> = standing.iter().map(|(_, id, _)| id.clone()).collect();
        for (service, id, name) in standing.iter().cloned() {
            running.push(one(service, id, name, since.clone()));
        }
        while !running.is_empty() {
            let (service, id, name, code) = tokio::select! {
                // One that is over is no longer followed before it starts again.
                biased;
                Some(over) = running.next() => over?,
                started = starts.next() => {
                    // Started by another command: scaled up, or started again.
                    let (container, since) = started?;
                    if self.project.services.contains_key(&container.service) && open.insert(container.id.clone()) {
                        running.push(one(container.service, container.id, container.name, since));
                    }
                    continue;
                }
            };
            open.remove(&id);
            if self.shown(&service) {
                self.session.line(&format!("{} exited with code {code}", printer.short(&name)))?;
            }
            let code = u8::try_from(code & 0xff).unwrap_or(125);
            match &self.ending.from {
                Some(from) if *from == service => return Ok(Some(code)),
                Some(_) => {}
                None if self.ending.any || (self.ending.failure && code != 0) => return Ok(Some(code)),
                None => {}
            }
        }
        Ok(None)
    }
}

/// `create`.
pub async fn create(session: Session, given: ArgMatches) -> Outcome {
    let mut how = how(&given)?;
    how.wishes.no_start = true;
    let project = load(&session, &how.wishes.services)?;
    apply::up(&host(&session)?, &project, &how).await?;
    Ok(0)
}

/// `scale`.
pub async fn scale(session: Session, given: ArgMatches) -> Outcome {
    let scale = scales(&given.texts("services"))?;
    let services: Vec<String> = scale.keys().cloned().collect();
    let project = load(&session, &services)?;
    let wishes =
        Wishes { services, scale, no_deps: given.on("no-deps"), no_recreate: true, ..Wishes::default() };
    apply::up(&host(&session)?, &project, &Up { wishes, images: Images::default() }).await?;
    Ok(0)
}
