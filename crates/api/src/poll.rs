//! The event loop waits on the engine's inotify descriptors.

use engine::model::{Error, Result};
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a duplicate of a descriptor that becomes readable when there is something new.
pub(crate) fn readable(descriptor: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    register(descriptor, Interest::READABLE)
}

/// Registers a duplicate of a connection's socket, to hear of its end.
pub(crate) fn writable(descriptor: BorrowedFd<'_>) -> Result<AsyncFd<OwnedFd>> {
    register(descriptor, Interest::WRITABLE)
}

fn register(descriptor: BorrowedFd<'_>, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let failure = |error| Error::internal("wait for changes").caused_by(error);
    let own = descriptor.try_clone_to_owned().map_err(failure)?;
    // Deprecated because a foreign `AsRawFd` may lie; an `OwnedFd` stays open and the same for as long as it is registered.
    #[expect(deprecated, reason = "the new name asks for a promise that an OwnedFd keeps by itself")]
    AsyncFd::with_interest(own, interest).map_err(failure)
}
