//! `RUN --mount=type=ssh`: a socket of the step's own that leads to the user's agent.
//!
//! The agent's socket itself is never mounted: it belongs to the user, and a step runs as whom it likes. Each
//! connection is carried by two threads of ours, and ends with the step.

use model::Result;
use model::error::Context as _;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connections at the same time; more wait.
const CONNECTIONS: usize = 16;

/// A socket that is served as long as this is held.
pub(super) struct Agent {
    path: PathBuf,
    over: Arc<AtomicBool>,
}

impl Agent {
    /// Serves `path`, a new socket for `(uid, gid)`, from the agent at `agent`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn serve(path: &Path, agent: &Path, owner: (u32, u32), mode: u32) -> Result<Self> {
        let shown = || format!("make the agent's socket {}", path.display());
        let listener = UnixListener::bind(path).context(shown)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).context(shown)?;
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).context(shown)?;
        let over = Arc::new(AtomicBool::new(false));
        let (stop, agent) = (over.clone(), agent.to_owned());
        std::thread::spawn(move || {
            let mut carried: Vec<std::thread::JoinHandle<()>> = Vec::new();
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                carried.retain(|thread| !thread.is_finished());
                let (Ok(inner), Ok(outer)) = (stream, UnixStream::connect(&agent)) else { continue };
                if carried.len() >= CONNECTIONS {
                    // The oldest is waited for: an agent answers at once.
                    let _ = carried.remove(0).join();
                }
                carried.push(std::thread::spawn(move || carry(&inner, &outer)));
            }
        });
        Ok(Self { path: path.to_owned(), over })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // Wakes the thread, which then sees that it is over.
        let _ = UnixStream::connect(&self.path);
    }
}

/// Carries both ways until either end closes.
fn carry(inner: &UnixStream, outer: &UnixStream) {
    std::thread::scope(|scope| {
        scope.spawn(|| one_way(inner, outer));
        one_way(outer, inner);
    });
}

fn one_way(mut from: &UnixStream, mut to: &UnixStream) {
    let mut buffer = [0u8; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other end sees the end, and ends in its turn.
    let _ = to.shutdown(std::net::Shutdown::Write);
}
