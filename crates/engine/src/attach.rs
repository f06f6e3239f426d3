//! Attaching to a container's streams, now or when it starts.

use model::state::Status;
use model::{Error, Result};
use std::os::fd::BorrowedFd;

pub use runtime::{Attached, Streams};

use crate::Engine;
use crate::container::Container;

/// Bytes on a client's connection that it has not read yet; none where that cannot be told.
pub fn unread(connection: BorrowedFd<'_>) -> usize {
    sys::socket::unread(connection).unwrap_or_default()
}

impl Engine {
    /// Attaches. A container that is not started yet is attached to when it starts.
    ///
    /// # Errors
    /// Docker's texts for one that is paused or restarting.
    pub fn attach(&self, name: &str, streams: Streams) -> Result<(Container, Attached)> {
        let container = self.find(name)?;
        match container.status() {
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {name} is paused, unpause the container before attach"
                )));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "container {name} is restarting, wait until the container is running"
                )));
            }
            _ => {}
        }
        let attached = runtime::attach(&container.run_dir, streams)?;
        self.container_event(&container, "attach", &[]);
        Ok((container, attached))
    }
    /// Says that a client left by the detach keys.
    pub fn detached(&self, container: &Container) {
        self.container_event(container, "detach", &[]);
    }
    /// Changes the size of a container's terminal.
    ///
    /// # Errors
    /// It does not run.
    pub fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.find(name)?;
        container.running()?;
        runtime::resize(&container.run_dir, None, rows, columns)?;
        self.container_event(
            &container,
            "resize",
            &[("height", &rows.to_string()), ("width", &columns.to_string())],
        );
        Ok(())
    }
}
