//! Pseudo-terminals.

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Unlocks the terminal behind an opened `ptmx` and opens its other end through the descriptor (`TIOCGPTPEER`), never
/// by name.
///
/// # Errors
/// Those of the ioctls.
pub fn peer(controller: impl AsFd) -> io::Result<OwnedFd> {
    rustix::pty::unlockpt(controller.as_fd())?;
    Ok(rustix::pty::ioctl_tiocgptpeer(
        controller,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?)
}

/// Flags with which a `ptmx` is opened.
pub fn open_flags() -> OFlags {
    OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Sets the window's size; the foreground process group gets SIGWINCH.
///
/// # Errors
/// Those of `TIOCSWINSZ`.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
