//! One running process (the container's own or an exec) and its streams.

use model::state::Probe;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::start::Ends;

/// Bytes read from a process or a client at once. A client's queue never holds more than one such piece of each stream.
pub const PIECE: usize = 16 << 10;

/// A process that the monitor is the parent of.
pub struct Session {
    /// The exec's identifier; `None` is the container's process, or a health probe.
    pub exec: Option<String>,
    /// On the host.
    pub pid: i32,
    /// Of it.
    pub pidfd: OwnedFd,
    /// To it, while it is being set up.
    pub channel: Option<OwnedFd>,
    /// The client that waits to hear that it runs.
    pub requester: Option<usize>,
    /// Stdout (or the terminal) and stderr; `None` at their end.
    pub outputs: [Option<OwnedFd>; 2],
    /// Whether epoll watches the outputs now.
    pub watched: bool,
    /// Stdin, or another descriptor of the terminal's controlling end.
    pub stdin: Option<OwnedFd>,
    /// What stdin did not take yet.
    pub stdin_queue: Vec<u8>,
    /// Stdin is closed once the queue is empty.
    pub stdin_ends: bool,
    /// Close stdin after the first client.
    pub stdin_once: bool,
    /// Controlling end of the terminal.
    pub terminal: Option<OwnedFd>,
    /// Output goes to the log.
    pub logged: bool,
    /// A health check's probe, and when it is killed.
    pub probe: Option<(Probe, Instant)>,
    /// Why it could not be executed.
    pub failure: Option<crate::wire::Failure>,
}

impl Session {
    /// A session of a process that has just been cloned.
    pub fn new(pid: i32, pidfd: OwnedFd, ends: Ends) -> Self {
        let Ends { terminal, stdin, stdout, stderr } = ends;
        let mut session = Self {
            exec: None,
            pid,
            pidfd,
            channel: None,
            requester: None,
            outputs: [stdout, stderr],
            watched: false,
            stdin,
            stdin_queue: Vec::new(),
            stdin_ends: false,
            stdin_once: false,
            terminal: None,
            logged: false,
            probe: None,
            failure: None,
        };
        if let Some(terminal) = terminal {
            session.set_terminal(terminal);
        }
        session
    }
    /// The terminal takes the place of all streams.
    pub fn set_terminal(&mut self, terminal: OwnedFd) {
        let _ = rustix::io::ioctl_fionbio(&terminal, true);
        self.outputs = [terminal.try_clone().ok(), None];
        self.stdin = terminal.try_clone().ok();
        self.terminal = Some(terminal);
    }
    /// Reads a piece of an output. `Ok(None)`: nothing there now; empty: its end.
    pub fn read(&mut self, index: usize, buffer: &mut [u8]) -> Option<usize> {
        let output = self.outputs[index].as_ref()?;
        match rustix::io::read(output, buffer) {
            Ok(0) => {
                self.outputs[index] = None;
                Some(0)
            }
            Ok(length) => Some(length),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            // A terminal whose other end nobody has open says EIO.
            Err(_) => {
                self.outputs[index] = None;
                Some(0)
            }
        }
    }
    /// Gives the process what is queued for its stdin; closes it when that was asked for and all is given.
    pub fn pump_stdin(&mut self) {
        while let (Some(stdin), false) = (&self.stdin, self.stdin_queue.is_empty()) {
            match rustix::io::write(stdin, &self.stdin_queue) {
                Ok(length) => drop(self.stdin_queue.drain(..length)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    self.stdin = None;
                    self.stdin_queue = Vec::new();
                }
            }
        }
        if self.stdin.is_none() {
            self.stdin_queue.clear();
        }
        if self.stdin_queue.is_empty() {
            if self.stdin_queue.capacity() > 0 {
                self.stdin_queue = Vec::new();
            }
            if self.stdin_ends {
                self.stdin = None;
            }
        }
    }
    /// A client's stdin has ended.
    pub fn end_stdin(&mut self) {
        if self.terminal.is_some() {
            // End of file at a terminal is a character (VEOF, ^D): only where this client was to be the only one.
            if self.stdin_once {
                self.stdin_queue.push(4);
            }
        } else {
            self.stdin_ends = true;
        }
        self.pump_stdin();
    }
    /// Sets the terminal's size.
    ///
    /// # Errors
    /// Those of `ioctl(2)`. Without a terminal there is nothing to do, as in Docker.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::pty::resize(terminal, rows, columns),
            None => Ok(()),
        }
    }
}
