//! The host's sockets of published ports: held so that nobody else takes a port, watched because what arrives at one
//! did not go through the kernel's address translation. Then a relay is executed, which has the sockets until it ends.

use model::bundle::HeldPort;
use model::container::Protocol;
use model::error::Context as _;
use model::{Error, Result};
use rustix::io::FdFlags;
use std::ffi::CString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};
use sys::process::Forked;
use sys::socket::Transport;

use super::Monitor;
use super::poll::{self, Token};
use crate::relay::{self, RELAY};
use crate::wire;

/// The file in the run directory that says which ports to hold: a list of [`HeldPort`].
pub const PORTS: &str = "ports.json";
/// After a relay that failed, the next one waits so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The sockets, and the relay that has them now. Dropped, the ports are free and the relay is gone.
#[derive(Default)]
pub struct Ports {
    held: Vec<(HeldPort, OwnedFd)>,
    relay: Option<(i32, OwnedFd)>,
    again: Option<Instant>,
}

impl Ports {
    /// When they are watched again after a failure.
    pub fn again(&self) -> Option<Instant> {
        self.again
    }
    fn end_relay(&mut self) {
        if let Some((pid, pidfd)) = self.relay.take() {
            let _ = sys::process::signal(&pidfd, 9);
            let _ = sys::process::wait(pid, true);
        }
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.end_relay();
    }
}

impl Monitor {
    /// Holds what `ports.json` says, and nothing else.
    pub(super) fn hold_ports(&mut self) -> Result<()> {
        let path = self.bundle.run_dir.0.join(PORTS);
        let wanted: Vec<HeldPort> = match std::fs::read(&path) {
            Ok(bytes) => wire::decode(&bytes).context(|| format!("read {}", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context(|| format!("read {}", path.display())),
        };
        let mut before = std::mem::take(&mut self.ports).take_held();
        let mut held = Vec::with_capacity(wanted.len());
        for port in wanted {
            let same =
                |(old, _): &(HeldPort, OwnedFd)| old.protocol == port.protocol && old.host == port.host;
            let socket = match before.iter().position(same) {
                Some(place) => {
                    let (_, socket) = before.swap_remove(place);
                    self.poll.remove(&socket);
                    Some(socket)
                }
                None => hold(&port)?,
            };
            held.extend(socket.map(|socket| (port, socket)));
        }
        self.ports.held = held;
        self.watch_ports();
        Ok(())
    }
    fn watch_ports(&self) {
        for (_, socket) in relayed(&self.ports.held) {
            let _ = self.poll.add(socket, Token::Port, poll::IN);
        }
    }
    /// Something has arrived that must be carried.
    pub(super) fn port_ready(&mut self) {
        if self.ports.relay.is_some() || self.ports.again.is_some() {
            return;
        }
        for (_, socket) in &self.ports.held {
            self.poll.remove(socket);
        }
        match start_relay(&self.ports.held) {
            Ok((pid, pidfd)) => {
                let _ = self.poll.add(&pidfd, Token::Relay, poll::IN);
                self.ports.relay = Some((pid, pidfd));
            }
            Err(_) => self.ports.again = Some(Instant::now() + PAUSE),
        }
    }
    pub(super) fn relay_ended(&mut self) {
        let Some((pid, pidfd)) = &self.ports.relay else { return };
        let Ok(Some((_, ended))) = sys::process::wait(*pid, false) else { return };
        self.poll.remove(pidfd);
        self.ports.relay = None;
        if ended.code() == 0 {
            self.watch_ports();
        } else {
            self.ports.again = Some(Instant::now() + PAUSE);
        }
    }
    pub(super) fn ports_on_time(&mut self, now: Instant) {
        if self.ports.again.is_some_and(|at| now >= at) {
            self.ports.again = None;
            self.watch_ports();
        }
    }
}

impl Ports {
    fn take_held(mut self) -> Vec<(HeldPort, OwnedFd)> {
        std::mem::take(&mut self.held)
    }
}

/// Those that a relay can serve.
fn relayed(held: &[(HeldPort, OwnedFd)]) -> impl Iterator<Item = &(HeldPort, OwnedFd)> {
    held.iter().filter(|(port, _)| port.protocol != Protocol::Sctp)
}

fn hold(port: &HeldPort) -> Result<Option<OwnedFd>> {
    let transport = match port.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    };
    sys::socket::hold_port(transport, port.host).map_err(|error| {
        let what = format!("failed to bind host port {}/{}", port.host, port.protocol.as_str());
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::internal(format!("{what}: address already in use")),
            _ => Error::internal(what).caused_by(error),
        }
    })
}

/// Executes the engine's binary as a relay that inherits the sockets.
fn start_relay(held: &[(HeldPort, OwnedFd)]) -> std::io::Result<(i32, OwnedFd)> {
    let text = |text: String| CString::new(text).unwrap_or_default();
    let mut argv = vec![text(RELAY.to_owned())];
    argv.extend(
        relayed(held).map(|(port, socket)| text(relay::door(port.protocol, socket.as_raw_fd(), port.to))),
    );
    let program = text("/proc/self/exe".to_owned());
    match sys::process::fork(0, None)? {
        Forked::Parent(pid, pidfd) => Ok((pid, pidfd)),
        Forked::Child => {
            sys::process::reset_signals();
            for (_, socket) in relayed(held) {
                let _ = rustix::io::fcntl_setfd(socket, FdFlags::empty());
            }
            sys::process::execute(&program, &argv, &[]);
            sys::process::exit_now(125)
        }
    }
}
