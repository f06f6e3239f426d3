//! Times that are not newer than a build says: `SOURCE_DATE_EPOCH`.

use model::{Error, Result};
use rustix::fs::{self, AtFlags, FileType, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::shown;
use crate::copy;

/// Gives everything below `root`, and itself, this time where its own is later.
///
/// # Errors
/// Names the path.
pub fn clamp_times(root: BorrowedFd<'_>, seconds: i64) -> Result<()> {
    let mut left = vec![Vec::new()];
    while let Some(below) = left.pop() {
        let fail = |error| failed(&below, error);
        let dir = copy::open_dir(root, &below).map_err(fail)?;
        for name in copy::names(dir.as_fd()).map_err(fail)? {
            if clamp(dir.as_fd(), &name, seconds).map_err(fail)? == FileType::Directory {
                let path = if below.is_empty() {
                    name.to_bytes().to_vec()
                } else {
                    [&below, b"/".as_slice(), name.to_bytes()].concat()
                };
                left.push(path);
            }
        }
    }
    clamp(root, c".", seconds).map(drop).map_err(|error| failed(b"", error))
}

fn clamp(dir: BorrowedFd<'_>, name: &CStr, seconds: i64) -> rustix::io::Result<FileType> {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (stat.st_mtime, stat.st_mtime_nsec) > (seconds, 0) {
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(FileType::from_raw_mode(stat.st_mode))
}

fn failed(path: &[u8], error: Errno) -> Error {
    Error::internal(format!("set the times of {}", shown(path))).caused_by(std::io::Error::from(error))
}
