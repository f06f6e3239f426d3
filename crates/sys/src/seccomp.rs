//! Loading a seccomp filter (`seccomp(2)`). The program is made elsewhere.

use std::io;

/// One classic BPF instruction (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// Installs the filter for this thread and what it executes. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
///
/// # Errors
/// Those of `seccomp(2)`: `EINVAL` for a malformed or too long program, `EACCES` without the right.
pub fn load(program: &[Instruction], log: bool) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Instruction,
    }
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let argument = Program { len, filter: program.as_ptr() };
    let flags = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    // SAFETY: `argument` has the layout of `struct sock_fprog` and points to `len` instructions with the layout of
    // `struct sock_filter`; both outlive the call, which copies them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const argument)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
