//! Capabilities (`capabilities(7)`) as bit masks, bit n being capability number n.

use std::io;

/// Drops from the bounding set whatever is not in `keep`. Numbers that the kernel does not know end the loop.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64 {
        // SAFETY: PR_CAPBSET_READ takes one integer and touches no memory.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) } {
            -1 => break,
            0 => continue,
            _ if keep & (1 << number) != 0 => continue,
            _ => {}
        }
        // SAFETY: PR_CAPBSET_DROP takes one integer and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The calling thread's permitted set.
///
/// # Errors
/// Those of `capget(2)`.
pub fn permitted() -> io::Result<u64> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(sets.permitted.bits())
}

/// Sets effective and permitted to `set` and empties inheritable and ambient (CVE-2022-24769: an inheritable set that
/// is not empty lets files raise capabilities beyond what was meant).
///
/// # Errors
/// Those of `capset(2)`: `EPERM` for what is not permitted now.
pub fn set(set: u64) -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets};
    match rustix::thread::clear_ambient_capability_set() {
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let bits = CapabilitySet::from_bits_retain(set);
    let sets = CapabilitySets { effective: bits, permitted: bits, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Keeps the permitted set over a change of user until the next `execve`.
///
/// # Errors
/// Those of `prctl(2)`.
pub fn keep_over_user_change(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}
