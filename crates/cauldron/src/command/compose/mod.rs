//! `compose`: projects of services from compose files. Loading, planning and carrying out are the `compose` crate's; here are
//! flags, the surroundings that it is given (builds, pulls, words), and what is printed.

mod config;
mod lifecycle;
mod list;
mod logs;
mod one;
pub mod project;
mod up;
mod watch;

pub use compose::apply::BuildHow;
pub use one::{Services, build_services};
pub use project::globals;

use crate::args::{any, flag, format, list, one, opt, rest, some};
use crate::cli::{VERB, Verb};
use clap::Arg;

const COMPOSE: Verb = Verb { group: "compose", usage: "[SERVICE...]", ..VERB };

fn services() -> Arg {
    any("services")
}

fn timeout() -> Arg {
    opt("timeout", "t", "int", "Specify a shutdown timeout in seconds")
}

/// The short forms that a project's directory is enough for.
pub const SHORT: &[Verb] = &[
    Verb {
        top: &["up"],
        usage: "[SERVICE...]",
        about: "Bring up the project of this directory (compose up)",
        args: || [project::globals(), up::args()].concat(),
        run: |session, given| Box::pin(up::up(session, given)),
        ..VERB
    },
    Verb {
        top: &["down"],
        usage: "[SERVICE...]",
        about: "Take down the project of this directory (compose down)",
        args: || [project::globals(), lifecycle::down_args()].concat(),
        run: |session, given| Box::pin(lifecycle::down(session, given)),
        ..VERB
    },
];

/// Every verb of `compose`.
pub const VERBS: &[Verb] = &[
    Verb {
        names: &["up"],
        about: "Create and start containers",
        more: "Examples:\n  cauldron compose up -d --wait\n  cauldron compose up --build --scale web=3\n  cauldron compose --dry-run up -d",
        args: up::args,
        run: |session, given| Box::pin(up::up(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["create"],
        about: "Create containers for a service",
        args: up::create_args,
        run: |session, given| Box::pin(up::create(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["scale"],
        usage: "SERVICE=REPLICAS [SERVICE=REPLICAS...]",
        about: "Scale services",
        args: || vec![flag("no-deps", "", "Don't start linked services"), some("services")],
        run: |session, given| Box::pin(up::scale(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["down"],
        about: "Stop and remove containers, networks",
        args: lifecycle::down_args,
        run: |session, given| Box::pin(lifecycle::down(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["start"],
        about: "Start services",
        args: || {
            vec![
                flag("wait", "", "Wait for services to be running|healthy"),
                opt("wait-timeout", "", "int", "Maximum duration in seconds to wait"),
                services(),
            ]
        },
        run: |session, given| Box::pin(lifecycle::start(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["stop"],
        about: "Stop services",
        args: || vec![timeout(), services()],
        run: |session, given| Box::pin(lifecycle::stop(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["restart"],
        about: "Restart service containers",
        args: || vec![flag("no-deps", "", "Don't restart dependent services"), timeout(), services()],
        run: |session, given| Box::pin(lifecycle::restart(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["kill"],
        about: "Force stop service containers",
        args: || {
            vec![
                opt("signal", "s", "string", "SIGNAL to send to the container"),
                flag("remove-orphans", "", "Remove containers for services not defined in the Compose file"),
                services(),
            ]
        },
        run: |session, given| Box::pin(lifecycle::kill(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["pause"],
        about: "Pause services",
        args: || vec![services()],
        run: |session, given| Box::pin(lifecycle::pause(session, given, true)),
        ..COMPOSE
    },
    Verb {
        names: &["unpause"],
        about: "Unpause services",
        args: || vec![services()],
        run: |session, given| Box::pin(lifecycle::pause(session, given, false)),
        ..COMPOSE
    },
    Verb {
        names: &["rm"],
        about: "Removes stopped service containers",
        args: || {
            vec![
                flag("force", "f", "Don't ask to confirm removal"),
                flag("stop", "s", "Stop the containers, if required, before removing"),
                flag("volumes", "v", "Remove any anonymous volumes attached to containers"),
                services(),
            ]
        },
        run: |session, given| Box::pin(lifecycle::rm(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["wait"],
        usage: "SERVICE [SERVICE...]",
        about: "Block until containers of all (or specified) services stop",
        args: || {
            vec![flag("down-project", "", "Drops project when the first container stops"), some("services")]
        },
        run: |session, given| Box::pin(lifecycle::wait(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["ps"],
        about: "List containers",
        args: || {
            vec![
                flag("all", "a", "Show all stopped containers (including those created by the run command)"),
                list("filter", "", "string", "Filter services by a property (supported filters: status)"),
                format(),
                flag("no-trunc", "", "Don't truncate output"),
                flag("orphans", "", "Include orphaned services (not declared by project)"),
                flag("quiet", "q", "Only display IDs"),
                flag("services", "", "Display services"),
                list("status", "", "string", "Filter services by status"),
                Arg::new("names").num_args(0..),
            ]
        },
        run: |session, given| Box::pin(list::ps(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["images"],
        about: "List images used by the created containers",
        args: || vec![format(), flag("quiet", "q", "Only display IDs"), services()],
        run: |session, given| Box::pin(list::images(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["ls"],
        usage: "",
        about: "List running compose projects",
        args: || {
            vec![
                flag("all", "a", "Show all stopped Compose projects"),
                list("filter", "", "filter", "Filter output based on conditions provided"),
                format(),
                flag("quiet", "q", "Only display project names"),
            ]
        },
        run: |session, given| Box::pin(list::ls(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["top"],
        about: "Display the running processes",
        args: || vec![services()],
        run: |session, given| Box::pin(list::top(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["volumes"],
        about: "List volumes",
        args: || vec![format(), flag("quiet", "q", "Only display volume names"), services()],
        run: |session, given| Box::pin(list::volumes(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["port"],
        usage: "SERVICE PRIVATE_PORT",
        about: "Print the public port for a port binding",
        args: || {
            vec![
                opt("index", "", "int", "Index of the container if service has multiple replicas"),
                opt("protocol", "", "string", "tcp or udp"),
                one("service"),
                one("port"),
            ]
        },
        run: |session, given| Box::pin(list::port(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["events"],
        about: "Receive real time events from containers",
        args: || {
            vec![
                flag("json", "", "Output events as a stream of json objects"),
                opt("since", "", "string", "Show all events created since timestamp"),
                opt("until", "", "string", "Stream events until this timestamp"),
                services(),
            ]
        },
        run: |session, given| Box::pin(list::events(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["logs"],
        about: "View output from containers",
        args: || {
            vec![
                flag("follow", "f", "Follow log output"),
                opt("index", "", "int", "Index of the container if service has multiple replicas"),
                flag("no-color", "", "Produce monochrome output"),
                flag("no-log-prefix", "", "Don't print prefix in logs"),
                opt("since", "", "string", "Show logs since timestamp or relative (e.g. \"42m\")"),
                opt("until", "", "string", "Show logs before a timestamp or relative"),
                opt(
                    "tail",
                    "n",
                    "string",
                    "Number of lines to show from the end of the logs for each container",
                ),
                flag("timestamps", "t", "Show timestamps"),
                services(),
            ]
        },
        run: |session, given| Box::pin(logs::logs(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["config", "convert"],
        about: "Parse, resolve and render compose file in canonical format",
        args: config::args,
        run: |session, given| Box::pin(config::config(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["version"],
        usage: "",
        about: "Show the version information",
        args: || vec![format(), flag("short", "", "Shows only the version number")],
        run: |session, given| Box::pin(config::version(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["build"],
        about: "Build or rebuild services",
        args: || {
            vec![
                list("build-arg", "", "list", "Set build-time variables for services"),
                flag("no-cache", "", "Do not use cache when building the image"),
                flag("pull", "", "Always attempt to pull a newer version of the image"),
                flag("push", "", "Push service images"),
                flag("quiet", "q", "Suppress the build output"),
                flag("with-dependencies", "", "Also build dependencies (transitively)"),
                opt("memory", "m", "bytes", "Accepted for compatibility").hide(true),
                opt("progress", "", "string", "Accepted for compatibility").hide(true),
                opt("ssh", "", "string", "Accepted for compatibility").hide(true),
                opt("builder", "", "string", "Accepted for compatibility").hide(true),
                services(),
            ]
        },
        run: |session, given| Box::pin(one::build(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["pull"],
        about: "Pull service images",
        args: || {
            vec![
                flag("ignore-buildable", "", "Ignore images that can be built"),
                flag("ignore-pull-failures", "", "Pull what it can and ignores images with pull failures"),
                flag("include-deps", "", "Also pull services declared as dependencies"),
                opt("policy", "", "string", "Apply pull policy (\"missing\"|\"always\")"),
                flag("quiet", "q", "Pull without printing progress information"),
                services(),
            ]
        },
        run: |session, given| Box::pin(one::pull(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["push"],
        about: "Push service images",
        args: || {
            vec![
                flag("ignore-push-failures", "", "Push what it can and ignores images with push failures"),
                flag("include-deps", "", "Also push images of services declared as dependencies"),
                flag("quiet", "q", "Push without printing progress information"),
                services(),
            ]
        },
        run: |session, given| Box::pin(one::push(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["run"],
        usage: "SERVICE [COMMAND] [ARGS...]",
        about: "Run a one-off command on a service",
        args: one::run_args,
        run: |session, given| Box::pin(one::run(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["exec"],
        usage: "SERVICE COMMAND [ARGS...]",
        about: "Execute a command in a running container",
        args: || {
            vec![
                flag("detach", "d", "Detached mode: Run command in the background"),
                list("env", "e", "list", "Set environment variables"),
                opt("index", "", "int", "Index of the container if service has multiple replicas"),
                flag("interactive", "i", "Keep STDIN open even if not attached"),
                flag("tty", "t", "Accepted for compatibility").hide(true),
                flag("no-tty", "T", "Disable pseudo-TTY allocation").alias("no-TTY"),
                flag("privileged", "", "Give extended privileges to the process"),
                opt("user", "u", "string", "Run the command as this user"),
                opt("workdir", "w", "string", "Path to workdir directory for this command"),
                rest("args", 2).value_name("SERVICE COMMAND [ARGS...]"),
            ]
        },
        run: |session, given| Box::pin(one::exec(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["cp"],
        usage: "SERVICE:SRC_PATH DEST_PATH|- | SRC_PATH|- SERVICE:DEST_PATH",
        about: "Copy files/folders between a service container and the local filesystem",
        args: || {
            vec![
                flag("all", "", "Include containers created by the run command"),
                flag("archive", "a", "Archive mode (copy all uid/gid information)"),
                flag("follow-link", "L", "Always follow symbol link in SRC_PATH"),
                opt("index", "", "int", "Index of the container if service has multiple replicas"),
                one("source"),
                one("target"),
            ]
        },
        run: |session, given| Box::pin(one::cp(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["attach"],
        usage: "SERVICE",
        about: "Attach local standard input, output, and error streams to a service's running container",
        args: || {
            vec![
                opt("detach-keys", "", "string", "Override the key sequence for detaching from a container"),
                opt("index", "", "int", "Index of the container if service has multiple replicas"),
                flag("no-stdin", "", "Do not attach STDIN"),
                flag("sig-proxy", "", "Proxy all received signals to the process"),
                one("service"),
            ]
        },
        run: |session, given| Box::pin(one::attach(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["watch"],
        about: "Watch build context for service and rebuild/refresh containers when files are updated",
        args: || {
            vec![
                flag("no-up", "", "Do not build & start services before watching"),
                flag("quiet", "", "Hide build output"),
                services(),
            ]
        },
        run: |session, given| Box::pin(watch::watch(session, given)),
        ..COMPOSE
    },
    Verb {
        names: &["stats"],
        about: "Display a live stream of container(s) resource usage statistics",
        args: || {
            vec![
                format(),
                flag("no-stream", "", "Disable streaming stats and only pull the first result"),
                flag("no-trunc", "", "Do not truncate output"),
                services(),
            ]
        },
        run: |session, given| Box::pin(one::stats(session, given)),
        ..COMPOSE
    },
];
