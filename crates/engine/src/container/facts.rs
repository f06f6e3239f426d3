//! What only the machine can tell about a container that is to be started: directories, devices, namespaces.

use model::error::Context as _;
use model::Result;
use std::path::Path;

/// Unmounts the /dev/shm that a shareable container had on the host. Idempotent.
pub(crate) fn unmount_shm(run_dir: &Path) -> Result<()> {
    use rustix::mount::UnmountFlags;
    let shm = run_dir.join("shm");
    match rustix::mount::unmount(&shm, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::NOTDIR) => Ok(()),
        Err(error) => Err(std::io::Error::from(error)).context(|| format!("unmount {}", shm.display())),
    }
}
