//! The monitor: one a container, the engine's binary re-executed, single-threaded, in its own session.
//!
//! It owns, from launch to exit: the process (it is its parent), `state.json`, `live.json`, `monitor.sock`, the log, the
//! cgroups, the host's sockets of published ports. It never changes `spec.json` and takes no lock. Killing it kills the container (parent death signal; the kernel
//! then kills the rest of the pid namespace). It was started with: stdin, the launcher's control socket; argv, the run
//! directory. Before it does anything it waits for its bundle.

mod client;
mod exec;
mod firewall;
mod health;
mod log;
mod poll;
mod ports;
pub mod record;
mod requests;
mod resolver;
mod session;
mod start;
mod streams;

use model::bundle::{Bundle, Namespace};
use model::container::Lifecycle;
use model::error::Context as _;
use model::state::{Live, State};
use model::{Error, Kind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::wire::{self, BUNDLE, FromMonitor, GO};
use client::{Client, Purpose};
use log::Log;
use poll::{Poll, Token};
pub use ports::PORTS;
use ports::Ports;
use record::Wait;
use resolver::Resolver;
use session::Session;
use start::Starting;

/// The container's own process among the sessions.
const MAIN: usize = 0;
/// So long after a start, an exec or a look-up the pages that it needed are given back.
const REST: Duration = Duration::from_secs(1);

/// Everything that the monitor knows.
pub struct Monitor {
    bundle: Bundle,
    cgroup: Cgroup,
    netns: Option<OwnedFd>,
    poll: Poll,
    listener: Option<UnixListener>,
    sessions: Vec<Option<Session>>,
    clients: Vec<Option<Client>>,
    resolver: Option<Box<Resolver>>,
    log: Log,
    state: State,
    live: Live,
    started: Instant,
    /// When the next run starts, while restarting, and the wait before it.
    restart: Option<Instant>,
    last_wait: Duration,
    /// When pages are given back.
    rest: Option<Instant>,
    next_probe: Option<Instant>,
    ports: Ports,
    firewall: firewall::Watching,
    /// Where this run has a limit of memory.
    memory: Option<Memory>,
}

/// What tells of the out-of-memory killer.
struct Memory {
    told: OwnedFd,
    /// It is v2's `memory.events`.
    unified: bool,
    /// How often it told.
    seen: u64,
}

/// The monitor's `main`.
pub fn main(run_dir: &Path) -> ExitCode {
    sys::failpoint::set_role("monitor");
    let Ok(control) = settle() else { return ExitCode::from(125) };
    // The end of the channel: whoever started it wants no container any more.
    let netns = match sys::socket::receive(&control) {
        Ok((message, netns)) if message == [BUNDLE] => netns,
        _ => return ExitCode::from(125),
    };
    let mut monitor = match Monitor::new(run_dir, netns) {
        Ok(monitor) => monitor,
        Err(error) => {
            tell(&control, &FromMonitor::Failed((&error).into()));
            return ExitCode::from(125);
        }
    };
    if !monitor.launch(control) {
        return ExitCode::from(125);
    }
    monitor.run();
    monitor.leave()
}

/// Leaves the launcher's session and descriptors behind.
fn settle() -> std::io::Result<OwnedFd> {
    sys::process::close_from(3)?;
    sys::process::set_not_dumpable()?;
    let _ = sys::process::new_session(None);
    let _ = rustix::thread::set_name(c"cauldron-mon");
    sys::process::set_mask(0);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::chdir("/")?;
    let control = sys::process::copy_of(0)?;
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
    for number in 0..3 {
        sys::process::put_at(&null, number)?;
    }
    Ok(control)
}

fn tell(control: &OwnedFd, message: &FromMonitor) {
    let _ = sys::socket::send(control, &wire::encode(message), None);
}

impl Monitor {
    fn new(run_dir: &Path, netns: Option<OwnedFd>) -> Result<Self> {
        let path = run_dir.join("bundle.json");
        let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
        let bundle: Bundle = wire::decode(&bytes).context(|| format!("read {}", path.display()))?;
        drop(bytes);
        let monitor_pid = rustix::process::getpid().as_raw_nonzero().get();
        let (monitor_start_time, _) =
            sys::process::start_time(monitor_pid).context(|| "read /proc/self/stat")?;
        let before = record::read_state(&bundle);
        let live = Live {
            boot_id: record::boot_id()?.to_owned(),
            pid: 0,
            start_time: 0,
            monitor_pid,
            monitor_start_time,
            paused: false,
            restarting: false,
            run_dir: bundle.run_dir.0.clone(),
        };
        Ok(Self {
            cgroup: Cgroup::at(&bundle.cgroup)?,
            netns: netns.filter(|_| bundle.namespaces.net == Namespace::Passed),
            poll: Poll::new().context(|| "make an epoll instance")?,
            listener: None,
            sessions: vec![None],
            clients: Vec::new(),
            resolver: None,
            log: Log::open(&bundle.log)?,
            state: State {
                finished_at: before.finished_at,
                started_at: before.started_at,
                ..State::default()
            },
            live,
            started: Instant::now(),
            restart: None,
            last_wait: Duration::ZERO,
            rest: None,
            next_probe: None,
            ports: Ports::default(),
            firewall: firewall::Watching::default(),
            memory: None,
            bundle,
        })
    }
    /// The first run, with the launcher listening. False: it is over, nothing is left.
    fn launch(&mut self, control: OwnedFd) -> bool {
        let begun = start::begin(&self.bundle, &self.cgroup, self.netns.as_ref(), |pid| {
            tell(&control, &FromMonitor::Pid(pid))
        });
        let mut starting = match begun {
            Ok(starting) => starting,
            Err(error) => return self.give_up(&control, &error),
        };
        let prepared =
            self.open_socket().and_then(|()| self.connect_waiting()).and_then(|()| self.open_resolver());
        // Room for its end, before the process can fill the disk (`record::write_state`).
        let prepared = prepared.and_then(|()| record::make_state(&self.bundle));
        sys::failpoint!("set up");
        // The launcher has gone, or thought better of it: end of file.
        let told = sys::socket::receive(&control).is_ok_and(|(message, _)| message == [GO]);
        if !told {
            starting.abort();
            let _ = self.cgroup.remove();
            record::remove_live(&self.bundle);
            return false;
        }
        match prepared.and_then(|()| self.hold_ports()).and_then(|()| self.go(&mut starting)) {
            Ok(()) => {
                // Before anybody can see its end.
                record::event(&self.bundle, "start", &[]);
                tell(&control, &FromMonitor::Started(self.live.clone()));
                self.adopt(starting);
                // Whoever launched it waits no more. A container runs without this watch too.
                let _ = self.watch_firewall();
                true
            }
            Err(error) => {
                starting.abort();
                self.give_up(&control, &error)
            }
        }
    }
    fn give_up(&mut self, control: &OwnedFd, error: &Error) -> bool {
        self.failed_start(error);
        self.clients.clear();
        self.cgroup.kill();
        let _ = self.cgroup.remove();
        tell(control, &FromMonitor::Failed(error.into()));
        false
    }
    fn failed_start(&mut self, error: &Error) {
        self.state.exit_code = record::start_code(error);
        self.state.error = error.to_string();
        let _ = record::write_state(&self.bundle, &self.state, Wait::Yes);
        self.ports = Ports::default();
        record::remove_live(&self.bundle);
    }
    fn open_socket(&mut self) -> Result<()> {
        let path = self.bundle.run_dir.0.join("monitor.sock");
        let _ = std::fs::remove_file(&path);
        let listener = sys::socket::listen(&path).context(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true).context(|| "set O_NONBLOCK")?;
        self.poll.add(&listener, Token::Listener, poll::IN).context(|| "watch monitor.sock")?;
        self.listener = Some(listener);
        Ok(())
    }
    /// Makes the resolver's sockets where names are to be resolved, and they are not there.
    fn open_resolver(&mut self) -> Result<()> {
        let path = crate::resolver_path(&self.bundle.run_dir.0);
        if let (None, Some(netns)) = (&self.resolver, &self.netns)
            && path.exists()
        {
            self.resolver = Some(Box::new(Resolver::open(path, netns, &self.poll)?));
        }
        Ok(())
    }
    /// Connects to everyone who attached before the start; a socket nobody listens on is a dead client's.
    fn connect_waiting(&mut self) -> Result<()> {
        for entry in std::fs::read_dir(&self.bundle.run_dir.0).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let Some(streams) = name.to_str().and_then(crate::streams_of) else { continue };
            if let Ok(stream) = sys::socket::connect(&path) {
                stream.set_nonblocking(true).context(|| "set O_NONBLOCK")?;
                self.add_client(Client::new(stream, Purpose::Attached(MAIN, streams)));
            }
            let _ = std::fs::remove_file(&path);
        }
        Ok(())
    }
    /// Lets a set-up process run and records that it does.
    fn go(&mut self, starting: &mut Starting) -> Result<()> {
        let (start_time, _) =
            sys::process::start_time(starting.pid).context(|| "read the process's start time")?;
        self.live.pid = starting.pid;
        self.live.start_time = start_time;
        self.live.restarting = false;
        self.live.paused = false;
        record::write_live(&self.bundle, &self.live)?;
        starting.go(&self.bundle)?;
        sys::failpoint!("process runs");
        self.started = Instant::now();
        self.state.started_at = record::now();
        self.state.exit_code = 0;
        self.state.oom_killed = false;
        self.state.error = String::new();
        self.state.health = self
            .bundle
            .healthcheck
            .as_ref()
            .map(|_| model::state::Health { status: "starting".into(), ..Default::default() });
        // Whether it is to run again after a loss of power hangs on its having run.
        let promised = matches!(self.bundle.lifecycle, Lifecycle::Restart(_));
        record::write_state(&self.bundle, &self.state, if promised { Wait::Yes } else { Wait::No })
    }
    /// Wants to be told of the out-of-memory killer, where there is a limit. Without it the end of the run tells.
    fn watch_memory(&mut self) {
        if self.bundle.resources.memory.is_some()
            && let Ok(Some((told, unified))) = self.cgroup.watch_oom()
            && self.poll.add(&told, Token::Memory, if unified { poll::NEWS } else { poll::IN }).is_ok()
        {
            self.memory = Some(Memory { told, unified, seen: 0 });
        }
    }
    fn memory_ran_out(&mut self) {
        let kills = self.cgroup.oom_kills();
        let Some(Memory { told, unified, seen }) = &mut self.memory else { return };
        // Reading takes the news away. memory.events has other news too; the eventfd comes before the kill is counted.
        let called = match unified {
            true => rustix::io::pread(&*told, &mut [0; 512], 0).is_ok() && kills > *seen,
            false => rustix::io::read(&*told, &mut [0; 8]).is_ok(),
        };
        if called {
            *seen = kills.max(*seen + 1);
            record::event(&self.bundle, "oom", &[]);
        }
    }
    /// Makes a started process the main session.
    fn adopt(&mut self, starting: Starting) {
        let Starting { pid, pidfd, ends, .. } = starting;
        let mut session = Session::new(pid, pidfd, ends);
        session.logged = true;
        session.stdin_once = self.bundle.process.stdin_once;
        if !self.bundle.process.open_stdin {
            session.stdin = None;
        }
        self.watch(MAIN, session);
        self.watch_memory();
        self.schedule_probe();
        self.rest = Some(Instant::now() + REST);
    }
    /// Puts a session into its place and watches it.
    fn watch(&mut self, index: usize, session: Session) {
        let _ = self.poll.add(&session.pidfd, Token::Process(index), poll::IN);
        if let Some(channel) = &session.channel {
            let _ = self.poll.add(channel, Token::Channel(index), poll::IN);
        }
        self.sessions[index] = Some(session);
        self.watch_outputs(index);
    }
    /// Until the container is over.
    fn run(&mut self) {
        while self.live.pid != 0 || self.restart.is_some() {
            for (token, flags) in self.poll.wait(self.timeout()) {
                match token {
                    Token::Listener => self.accept(),
                    Token::Client(index) => self.client_ready(index, flags),
                    Token::Resolver(part) => {
                        if let Some(resolver) = &mut self.resolver {
                            resolver.ready(&self.poll, part, flags);
                            self.rest = Some(Instant::now() + REST);
                        }
                    }
                    Token::Output(index, stream) => self.output_ready(index, stream),
                    Token::Stdin(index) => self.stdin_ready(index),
                    Token::Channel(index) => self.channel_ready(index),
                    Token::Port => self.port_ready(),
                    Token::Relay => self.relay_ended(),
                    Token::Firewall => self.firewall_changed(),
                    Token::Restore => self.firewall_restored(),
                    Token::Memory => self.memory_ran_out(),
                    Token::Process(MAIN) => self.main_ended(),
                    Token::Process(index) => {
                        self.exec_ended(index);
                        self.rest = Some(Instant::now() + REST);
                    }
                }
            }
            self.on_time();
        }
    }
    fn timeout(&self) -> Option<Duration> {
        let probes = self
            .sessions
            .iter()
            .flatten()
            .filter_map(|session| session.probe.as_ref().map(|(_, deadline)| *deadline));
        let stalled = self
            .clients
            .iter()
            .flatten()
            .filter_map(|client| client.stalled)
            .map(|since| since + client::STALLED);
        let names = self.resolver.as_ref().and_then(|resolver| resolver.deadline());
        let next = probes.chain(stalled).chain(self.restart).chain(self.next_probe).chain(self.rest);
        let next = next.chain(self.ports.again()).chain(self.firewall.due()).chain(names).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }
    fn on_time(&mut self) {
        let now = Instant::now();
        for index in 0..self.clients.len() {
            if self.clients[index]
                .as_ref()
                .and_then(|client| client.stalled)
                .is_some_and(|since| now >= since + client::STALLED)
            {
                self.drop_client(index);
            }
        }
        self.health_on_time(now);
        if let Some(resolver) = &mut self.resolver {
            resolver.on_time(&self.poll, now);
        }
        if self.rest.is_some_and(|at| now >= at) {
            self.rest = None;
            // Only memory is at stake.
            let _ = sys::heap::release_clean_pages();
        }
        self.ports_on_time(now);
        self.firewall_on_time(now);
        if self.restart.is_some_and(|at| now >= at) {
            self.start_again();
        }
    }
    /// The container's process has exited: everything about this run comes to its end.
    fn main_ended(&mut self) {
        let Some(mut session) = self.sessions[MAIN].take() else { return };
        let ended = match sys::process::wait(session.pid, false) {
            Ok(Some((_, ended))) => ended,
            Ok(None) => {
                self.sessions[MAIN] = Some(session);
                return;
            }
            Err(_) => sys::process::Ended::Code(255),
        };
        if self.bundle.namespaces.pid != Namespace::New || self.sessions.iter().any(Option::is_some) {
            self.cgroup.kill();
        }
        self.poll.remove(&session.pidfd);
        self.drain(MAIN, &mut session);
        drop(session);
        for index in 1..self.sessions.len() {
            self.end_with_container(index);
        }
        self.log.flush(record::now());
        self.state.exit_code = ended.code();
        self.state.finished_at = record::now();
        self.state.oom_killed = self.cgroup.oom_kills() > 0;
        self.next_probe = None;
        let wait = model::restart::decide(
            &self.bundle.lifecycle,
            ended.code(),
            self.state.stopped_by_user,
            self.state.restart_count,
            self.started.elapsed(),
            self.last_wait,
        );
        self.live.pid = 0;
        self.live.start_time = 0;
        self.live.paused = false;
        if let Some(wait) = wait {
            self.restart = Some(Instant::now() + wait);
            self.last_wait = wait;
            self.live.restarting = true;
            let _ = record::write_live(&self.bundle, &self.live);
        }
        let last = if wait.is_none() { Wait::Yes } else { Wait::No };
        let _ = record::write_state(&self.bundle, &self.state, last);
        let attributes = [
            ("exitCode", ended.code().to_string()),
            ("execDuration", self.started.elapsed().as_secs().to_string()),
        ];
        let told = self.memory.take().is_some_and(|memory| memory.seen > 0);
        if self.state.oom_killed && !told {
            record::event(&self.bundle, "oom", &[]);
        }
        record::event(&self.bundle, "die", &attributes);
        if wait.is_none() {
            // Whoever sees that it is over may want its ports, and its place at the watch.
            self.ports = Ports::default();
            self.firewall = firewall::Watching::default();
            record::remove_live(&self.bundle);
        }
        self.release_clients();
        if wait.is_some() {
            let _ = self.cgroup.remove();
        }
    }
    fn start_again(&mut self) {
        self.restart = None;
        self.state.restart_count += 1;
        let begun = start::begin(&self.bundle, &self.cgroup, self.netns.as_ref(), |_| {});
        let result = begun.and_then(|mut starting| {
            self.connect_waiting()?;
            self.go(&mut starting).inspect_err(|_| starting.abort())?;
            Ok(starting)
        });
        match result {
            Ok(starting) => {
                self.adopt(starting);
                record::event(&self.bundle, "start", &[]);
            }
            Err(error) => {
                self.live.pid = 0;
                self.failed_start(&error);
            }
        }
    }
    /// A person wants it stopped.
    fn stop(&mut self, signal: Option<i32>) -> Result<()> {
        self.state.stopped_by_user = true;
        // It is written again at the end: what cannot be noted now does not keep the container running.
        let last = if self.restart.is_some() { Wait::Yes } else { Wait::No };
        let _ = record::write_state(&self.bundle, &self.state, last);
        if self.restart.take().is_some() {
            self.ports = Ports::default();
            record::remove_live(&self.bundle);
            return Ok(());
        }
        match (signal, &self.sessions[MAIN]) {
            (Some(signal), Some(session)) => {
                sys::process::signal(&session.pidfd, signal).context(|| format!("send signal {signal}"))
            }
            _ => Ok(()),
        }
    }
    fn change(&mut self, changed: crate::Changed) -> Result<()> {
        if let Some(resources) = changed.resources {
            // Between two runs there is no group: the next one is made with them.
            if self.live.pid != 0 {
                self.cgroup.set_limits(&resources)?;
            }
            self.bundle.resources = *resources;
        }
        if let Some(name) = changed.name {
            self.bundle.name = name;
        }
        if let Some(lifecycle) = changed.lifecycle {
            self.bundle.lifecycle = lifecycle;
        }
        Ok(())
    }
    fn pause(&mut self, paused: bool) -> Result<()> {
        if self.live.pid == 0 {
            return Err(Error::new(Kind::Conflict, format!("Container {} is not running", self.bundle.id)));
        }
        self.cgroup.freeze(paused)?;
        self.live.paused = paused;
        record::write_live(&self.bundle, &self.live)
    }
    /// All is over: cleans up and hands over to `on_exit`.
    fn leave(mut self) -> ExitCode {
        self.listener = None;
        self.release_clients();
        sys::failpoint!("clients released");
        self.cgroup.kill();
        let _ = self.cgroup.remove();
        sys::failpoint!("cgroup removed");
        let text = |text: &String| std::ffi::CString::new(text.as_bytes()).unwrap_or_default();
        let argv: Vec<_> = self.bundle.on_exit.iter().map(text).collect();
        let env: Vec<_> =
            self.bundle.on_exit_env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect();
        if let Some(program) = argv.first() {
            let _ = sys::process::close_on_exec_from(3);
            sys::process::reset_signals();
            sys::process::execute(program, &argv, &env);
        }
        ExitCode::SUCCESS
    }
}
