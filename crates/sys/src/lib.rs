//! The unsafe leaf: what the kernel offers and the standard library does not, as safe functions that return
//! `std::io::Result`. No domain nouns here.

pub mod capability;
pub mod cgroup;
pub mod device;
pub mod failpoint;
pub mod fs;
pub mod heap;
pub mod lock;
pub mod mount;
pub mod netlink;
pub mod overlay;
pub mod process;
pub mod pty;
pub mod seccomp;
pub mod socket;
pub mod view;
