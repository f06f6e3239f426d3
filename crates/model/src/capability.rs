//! Capabilities (`capabilities(7)`): their names, Docker's default set, and what `--cap-add` and `--cap-drop` make of it.

use crate::container::Security;
use crate::{Error, Result};

/// All of them in the kernel's order (linux/capability.h, up to 6.x), without `CAP_`.
pub const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's fourteen.
pub const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// `NET_ADMIN` of `net_admin`, `CAP_NET_ADMIN` or `NET_ADMIN`; `ALL` of `all`.
///
/// # Errors
/// Docker's text for an unknown capability.
pub fn normalise(text: &str) -> Result<String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || ALL.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Error::invalid(format!("unknown capability: \"CAP_{name}\"")))
}

/// A normalised name as Docker shows it: `CAP_NET_ADMIN`, `ALL`.
pub fn shown(name: &str) -> String {
    if name == "ALL" { name.to_owned() } else { format!("CAP_{name}") }
}

/// The set that a container's process gets, in the kernel's order.
pub fn effective(security: &Security) -> Vec<String> {
    let has = |list: &[String], name: &str| list.iter().any(|item| item == name);
    let (add, drop) = (&security.cap_add, &security.cap_drop);
    let kept = |name: &str| {
        if security.privileged {
            return true;
        }
        if has(add, "ALL") {
            return !has(drop, name);
        }
        let base = !has(drop, "ALL") && DEFAULT.contains(&name) && !has(drop, name);
        base || has(add, name)
    };
    ALL.iter().filter(|name| kept(name)).map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        effective(&Security { cap_add: own(add), cap_drop: own(drop), ..Security::default() })
    }

    #[test]
    fn adds_and_drops() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert_eq!(set(&[], &["ALL"]), Vec::<String>::new());
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]), ["NET_ADMIN"]);
        assert_eq!(set(&["ALL"], &[]).len(), 41);
        assert!(!set(&["ALL"], &["MKNOD"]).contains(&"MKNOD".to_owned()));
        assert!(!set(&[], &["MKNOD"]).contains(&"MKNOD".to_owned()));
        assert_eq!(set(&["SYS_ADMIN"], &[]).len(), 15);
    }

    #[test]
    fn names() {
        assert_eq!(normalise("cap_net_admin").unwrap(), "NET_ADMIN");
        assert_eq!(normalise("all").unwrap(), "ALL");
        assert_eq!(normalise("CAP_NOPE").unwrap_err().to_string(), "unknown capability: \"CAP_NOPE\"");
    }
}
