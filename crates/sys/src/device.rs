//! Device rules of a v2 cgroup: an eBPF program on it (`BPF_PROG_TYPE_CGROUP_DEVICE`), since v2 has no files for them.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub allow: bool,
    /// `b`, `c`; anything else is both.
    pub kind: char,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// `mknod(2)` is meant.
    pub mknod: bool,
    /// Reading is meant.
    pub read: bool,
    /// Writing is meant.
    pub write: bool,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate }
}

/// The last rule that matches decides, as with v1's files; nothing matches: denied.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    // struct bpf_cgroup_dev_ctx { u32 access_type (access << 16 | type), major, minor }
    let mut code = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        match rule.kind {
            'b' => tests.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
            'c' => tests.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
            _ => {}
        }
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                tests.push(op(JUMP_NOT_EQUAL, register, 0, 0, number.cast_signed()));
            }
        }
        let access = i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2;
        tests.push(op(MOVE, 1, 3, 0, 0));
        if rule.allow {
            tests.extend([op(AND, 1, 0, 0, !access & 7), op(JUMP_NOT_EQUAL, 1, 0, 0, 0)]);
        } else {
            tests.extend([op(AND, 1, 0, 0, access), op(JUMP_EQUAL, 1, 0, 0, 0)]);
        }
        tests.extend([op(SET, 0, 0, 0, i32::from(rule.allow)), op(EXIT, 0, 0, 0, 0)]);
        let length = tests.len();
        for (at, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_EQUAL | JUMP_NOT_EQUAL) {
                test.offset = (length - at - 1) as i16;
            }
        }
        code.extend(tests);
    }
    code.extend([op(SET, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    code
}

/// Puts rules on a v2 cgroup. They hold for everything inside and below, beside what its parents forbid, until it is
/// removed.
///
/// # Errors
/// Those of `bpf(2)`: `EPERM` without CAP_BPF and CAP_NET_ADMIN, `EINVAL` where the kernel has no such programs.
pub fn restrict(cgroup: impl AsFd, rules: &[Rule]) -> io::Result<()> {
    /// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`.
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program_type: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    /// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }
    let code = program(rules);
    let load = Load {
        program_type: 15, // BPF_PROG_TYPE_CGROUP_DEVICE
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `load` has the layout of the kernel's attribute, its size is passed, and what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 5, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attach = Attach {
        target: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: 6,  // BPF_CGROUP_DEVICE
        flags: 2, // BPF_F_ALLOW_MULTI
    };
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_bpf, 8, &raw const attach, size_of::<Attach>()) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_kernel_obeys() {
        let mounts = crate::cgroup::hierarchies().unwrap();
        let unified =
            mounts.iter().find(|hierarchy| hierarchy.unified).expect("a v2 cgroup hierarchy is needed");
        let dir = unified.mount.join(format!("cauldron-sys-device-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let rule = |allow, kind, major, minor, write| Rule {
            allow,
            kind,
            major,
            minor,
            mknod: true,
            read: true,
            write,
        };
        let rules = [
            rule(false, 'a', None, None, true),
            rule(true, 'c', Some(1), Some(3), true),
            rule(true, 'c', Some(1), Some(5), false),
            rule(true, 'c', Some(5), None, true),
            rule(false, 'c', Some(5), Some(1), true),
        ];
        restrict(crate::fs::open_root(&dir).unwrap(), &rules).unwrap();
        let script = format!(
            "echo $$ >{}/cgroup.procs; for t in '</dev/null' '>/dev/null' '</dev/zero' '>/dev/zero' '</dev/urandom'; do \
             if eval \"true $t\" 2>/dev/null; then printf y; else printf n; fi; done",
            dir.display()
        );
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        std::fs::remove_dir(&dir).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "yyynn");
    }
}
