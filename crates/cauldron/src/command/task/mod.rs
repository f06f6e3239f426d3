//! `task`: containers as binaries, declared, scheduled and remembered.

mod backup;
mod book;
mod control;
mod define;
mod helper;
mod history;
mod install;
mod live;
mod run;
mod schedule;

use crate::args::{Given as _, any, flag, format, list, maybe, one, opt, quiet, rest, some};
use crate::cli::{VERB, Verb};
use crate::fail::Failure;
use crate::options::create;
use crate::session::Session;
use clap::Arg;
use task::run::{Event, Runner};
use task::{History, Home};

const TASK: Verb = Verb { group: "task", ..VERB };

pub const VERBS: &[Verb] = &[
    Verb {
        names: &["run"],
        usage: "NAME | --image IMAGE [-- COMMAND...]",
        about: "Run a task now, on each of its targets, and wait",
        more: "Without targets the container's own output and exit code are those of the command. With targets the result is a\ntable; the exit code is 0 if all succeeded, the one that all failures share, or else 1; 124 is a time limit.\n\nExamples:\n  cauldron task run backup\n  cauldron task run backup --target db-1 --format json\n  cauldron task run --image do_backups --each label=role=database --link-target database --parallel 8\n\nThe container knows TASK_NAME, TASK_RUN, TASK_ATTEMPT, TASK_SLOT and, of its target, TARGET_NAME, TARGET_ID, TARGET_IMAGE,\nTARGET_PROJECT, TARGET_SERVICE, TARGET_NETWORK and TARGET_ADDRESS; a link gives Docker's variables.",
        args: || {
            let mut args = define::args();
            args.extend([
                flag("detach", "d", "Run in the background and print the run's id"),
                list("target", "", "name", "Only these of its targets"),
                opt("image", "", "string", "Run a container of this image as a task that is not kept"),
                format(),
                quiet(),
                opt("id", "", "string", "The run's id").hide(true),
                opt("slot", "", "time", "The time that the schedule meant").hide(true),
                opt("cause", "", "string", "Why it runs").hide(true),
                maybe("name"),
                any("command").last(true),
            ]);
            args
        },
        run: |session, given| Box::pin(run::run(session, given)),
        failure: 125,
        ..TASK
    },
    Verb {
        names: &["create"],
        usage: "NAME IMAGE [COMMAND] [ARG...]",
        about: "Define a task: the flags of `run`, and when and for whom it runs",
        more: "In a compose file the same is written under a service's `x-task` key, and `cauldron up` leaves such services alone.\n\nExamples:\n  cauldron task create backup --schedule '0 3 * * *' --timezone Europe/Berlin --each label=role=database --link-target database \\\n      -v /srv/backups:/backups do_backups\n  cauldron task create rotate --schedule '@every 4h' --volumes-from web logrotate",
        args: || {
            let mut args = vec![one("task")];
            args.extend(create::args());
            args.extend(define::args());
            args.push(flag("replace", "", "Define a task of that name anew"));
            args
        },
        run: |session, given| Box::pin(define::create(session, given)),
        ..TASK
    },
    Verb {
        names: &["rm", "remove"],
        usage: "NAME [NAME...]",
        about: "Forget tasks of the command line, and their history",
        args: || vec![some("names")],
        run: |session, given| Box::pin(define::rm(session, given)),
        ..TASK
    },
    Verb {
        names: &["ls", "list"],
        about: "List tasks: their schedules, next and last runs",
        args: || vec![format(), quiet()],
        run: |session, given| Box::pin(history::ls(session, given)),
        ..TASK
    },
    Verb {
        names: &["next"],
        usage: "[NAME...]",
        about: "List what runs next, and when",
        more: "The slot is what the schedule says; the start is later where the task has a jitter. Tasks that are paused do not run.",
        args: || vec![format(), quiet(), opt("last", "n", "int", "How many at most (10)"), any("names")],
        run: |session, given| Box::pin(history::next(session, given)),
        ..TASK
    },
    Verb {
        names: &["show"],
        usage: "NAME",
        about: "Show a task: its definition, its next slots, its last run",
        args: || {
            vec![
                format(),
                opt("next", "", "int", "How many slots to show (5)"),
                opt("from", "", "time", "Slots after this time"),
                one("name"),
            ]
        },
        run: |session, given| Box::pin(history::show(session, given)),
        ..TASK
    },
    Verb {
        names: &["history"],
        usage: "[NAME]",
        about: "Show what ran: each try with its target, image, times, exit code and error",
        more: "Newest first. --format json prints one object a line: task, project, run, target, attempt, image, image_id, started,\nfinished, exit_code, error, status, cpu_seconds, memory_peak, output_bytes.",
        args: || {
            vec![format(), quiet(), opt("last", "n", "int", "How many tries at most (100)"), maybe("name")]
        },
        run: |session, given| Box::pin(history::history(session, given)),
        ..TASK
    },
    Verb {
        names: &["logs"],
        usage: "[NAME]",
        about: "Print what a task's last run printed",
        args: || {
            vec![
                opt("run", "", "id", "This run"),
                list("target", "", "name", "Only these targets"),
                opt("tail", "n", "int", "This many lines from the end, of each try"),
                format(),
                maybe("name"),
            ]
        },
        run: |session, given| Box::pin(history::logs(session, given)),
        ..TASK
    },
    Verb {
        names: &["backups"],
        usage: "NAME",
        about: "List the backups that a task made",
        more: "Newest first. Only whole ones are there; verified are those that passed the check that x-task.backup.verify names.",
        args: || vec![format(), quiet(), list("target", "", "name", "Only of these targets"), one("name")],
        run: |session, given| Box::pin(backup::backups(session, given)),
        ..TASK
    },
    Verb {
        names: &["restore"],
        usage: "NAME",
        about: "Put a backup back: the newest that was verified, unless told otherwise",
        more: "The task that x-task.backup.restore names finds the backup where x-task.backup.mount says, linked to the container that the\nbackup is of. The files' checksums are looked at first.\n\nExamples:\n  cauldron task restore backup --dry-run\n  cauldron task restore backup --target shop-database-1 --at 2026-11-24T12:00:00Z --into shop-spare-1",
        args: || {
            vec![
                opt("at", "", "time", "The newest that was taken by then"),
                opt("run", "", "id", "The one of this run, verified or not"),
                list("target", "", "name", "One of this target"),
                opt("into", "", "container", "Into this container instead of the one that it is of"),
                opt("identity", "", "file", "The key that decrypts it, as of age"),
                flag("unverified", "", "Take one that was not verified as well"),
                flag("dry-run", "", "Check it, and say what would be done"),
                flag("quiet", "q", "Without the restoring task's output"),
                one("name"),
            ]
        },
        run: |session, given| Box::pin(backup::restore(session, given)),
        ..TASK
    },
    Verb {
        names: &["pause"],
        usage: "NAME [NAME...]",
        about: "Suspend tasks' schedules",
        args: || vec![some("names")],
        run: |session, given| Box::pin(control::pause(session, given, true)),
        ..TASK
    },
    Verb {
        names: &["resume", "unpause"],
        usage: "NAME [NAME...]",
        about: "Resume tasks' schedules; what passed meanwhile is not caught up",
        args: || vec![some("names")],
        run: |session, given| Box::pin(control::pause(session, given, false)),
        ..TASK
    },
    Verb {
        names: &["enable"],
        about: "Let the schedules of this directory's project run; `cauldron up` does the same",
        more: "Noted are the project's name and where its files are: they are read again when they change. Variables come from the\nproject's .env and from the environment of whoever runs the scheduler. `cauldron down` takes it back.",
        run: |session, given| Box::pin(control::enable(session, given, true)),
        ..TASK
    },
    Verb {
        names: &["disable"],
        usage: "[PROJECT]",
        about: "Let a project's schedules run no more",
        args: || vec![maybe("project")],
        run: |session, given| Box::pin(control::enable(session, given, false)),
        ..TASK
    },
    Verb {
        names: &["stop"],
        usage: "NAME [NAME...]",
        about: "Stop tasks that run: their containers are stopped and their targets get back what was taken",
        args: || vec![some("names")],
        run: |session, given| Box::pin(control::stop(session, given)),
        ..TASK
    },
    Verb {
        names: &["install"],
        usage: "NAME",
        about: "Put a task on PATH as a command: arguments, stdin, terminal, signals and exit code pass through",
        more: "Arguments are added to the task's command. The task is read again when its files have changed.\n\nExample:\n  cauldron task create say busybox echo && cauldron task install say --dir ~/bin && say hello",
        args: || {
            vec![
                opt("dir", "", "dir", "Where the command goes (/usr/local/bin)"),
                opt("as", "", "name", "The command's name, if not the task's"),
                one("name"),
            ]
        },
        run: |session, given| Box::pin(install::install(session, given)),
        ..TASK
    },
    Verb {
        names: &["uninstall"],
        usage: "NAME",
        about: "Take an installed command away",
        args: || vec![opt("dir", "", "dir", "Where the command is (/usr/local/bin)"), one("name")],
        run: |session, given| Box::pin(install::uninstall(session, given)),
        ..TASK
    },
    Verb {
        names: &["call"],
        usage: "NAME [ARG...]",
        about: "What an installed command does",
        args: || vec![rest("args", 1)],
        run: |session, given| Box::pin(install::call(session, given)),
        failure: 125,
        hidden: true,
        ..TASK
    },
    Verb {
        names: &["scheduler"],
        about: "Run tasks when they are due, in the foreground; `cauldron serve` does the same",
        more: "Each run is a process of its own: it goes on when the scheduler ends. Of several schedulers of one root one works, and\nthe next takes over.",
        run: |session, given| Box::pin(schedule::foreground(session, given)),
        ..TASK
    },
    Verb {
        names: &["timers"],
        usage: "--systemd",
        about: "Write schedules as systemd's units, instead of a scheduler",
        more: "Example:\n  cauldron task timers --systemd --dir /etc/systemd/system\n  systemctl daemon-reload && systemctl enable --now cauldron-task-backup.timer",
        args: || {
            vec![
                flag("systemd", "", "As .service and .timer units"),
                opt("dir", "", "dir", "Write them there instead of to stdout"),
            ]
        },
        run: |session, given| Box::pin(schedule::timers(session, given)),
        ..TASK
    },
];

pub use helper::VERBS as HELPER_VERBS;
pub use schedule::beside as scheduler;

/// Does what a service needs of a task of its project: a helper by its ledger, any other each time.
pub async fn once(session: Session, job: compose::apply::OnceJob) -> Result<(), Failure> {
    let known = match job.step {
        Some(step) => {
            book::steps(&job.project, &job.service)?.into_iter().find(|known| known.step == Some(step))
        }
        None => book::within(&job.project, &job.service)?,
    };
    let known = known.ok_or_else(|| Failure::new(format!("service {} is no task", job.service)))?;
    if known.task.definition.once.is_some() {
        return helper::ensure(&session, &known, task::once::Wish::Once, true).await;
    }
    match run::now(&session, &known).await? {
        0 => Ok(()),
        code => Err(Failure::new(format!("task {} failed: exit code {code}", known.task.key))),
    }
}

/// Whether the tasks of a project are sound.
pub fn check(session: &Session, project: &std::rc::Rc<compose::Project>) -> Result<(), Failure> {
    match project.services.values().chain(project.disabled.values()).any(compose::Service::is_task) {
        true => book::check(&home(session)?, project),
        false => Ok(()),
    }
}

/// `up` makes a project's schedules run, where a scheduler does.
pub fn enable(session: &Session, project: &std::rc::Rc<compose::Project>) -> Result<(), Failure> {
    let dry = session.group().is_some_and(|given| given.on("dry-run"));
    if !dry && project.services.values().chain(project.disabled.values()).any(compose::Service::is_task) {
        book::enable(&home(session)?, project)?;
    }
    Ok(())
}

/// `down` ends them.
pub fn disable(session: &Session, project: &compose::Project) -> Result<(), Failure> {
    if session.options().roots.root.join("tasks").exists() {
        book::disable(&home(session)?, &project.name)?;
    }
    Ok(())
}

/// Where tasks are kept.
fn home(session: &Session) -> Result<Home, Failure> {
    Ok(Home::open(&session.options().roots.root)?)
}

/// What runs need; `listener` is told what happens.
fn runner<'a>(session: &Session, listener: &'a dyn Fn(Event)) -> Result<Runner<'a>, Failure> {
    let home = home(session)?;
    Ok(Runner { client: session.client()?.clone(), history: open_history(&home)?, home, listener })
}

/// Says warnings, and nothing else of what happens.
fn warnings(session: &Session) -> impl Fn(Event) + use<> {
    let session = session.clone();
    move |event| {
        if let Event::Warning(text) = event {
            session.say(&format!("WARNING: {text}"));
        }
    }
}

/// What ran.
fn open_history(home: &Home) -> Result<History, Failure> {
    Ok(History::open(&home.history())?)
}

impl From<task::Error> for Failure {
    fn from(error: task::Error) -> Self {
        let mut failure = Self::new(error.to_string());
        failure.from_engine = error.status().is_some();
        failure
    }
}

/// Arguments that a verb shares with others.
type Args = Vec<Arg>;
