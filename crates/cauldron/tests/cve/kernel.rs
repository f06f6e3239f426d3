//! The kernel's: what a container with the defaults cannot even ask for.

use crate::{armed, target};
use std::fs;

/// The system call is refused by the filter or by a missing capability, not by the kernel's own checks of its arguments.
fn closed(calls: &[&str]) {
    let target = armed(|_, _| {});
    for call in calls {
        let said = target.said(&[], &format!("attack call {call}"));
        let refused = said.ends_with("Operation not permitted")
            || said.ends_with("Function not implemented")
            || said.ends_with("Address family not supported by protocol");
        assert!(refused, "{said}");
        // It can fail: without the filter it does something, or is refused for what it asked.
        assert_ne!(
            target.said(&["--privileged"], &format!("attack call {call}")),
            format!("{call}: Operation not permitted")
        );
    }
}

#[test]
fn cve_2013_2094() {
    closed(&["perf_event_open"]);
}

#[test]
fn cve_2014_3519() {
    // Files of the host by their handle, as "shocker" did.
    closed(&["open_by_handle_at"]);
}

#[test]
fn cve_2016_0728() {
    closed(&["keyctl", "add_key"]);
}

#[test]
fn cve_2021_3490() {
    closed(&["bpf"]);
}

#[test]
fn cve_2021_26708() {
    closed(&["vsock"]);
}

#[test]
fn cve_2021_41073() {
    closed(&["io_uring_setup"]);
}

#[test]
fn cve_2022_0185() {
    closed(&["unshare_user", "unshare_mount", "clone3", "fsopen"]);
}

#[test]
fn cve_2022_0492() {
    // A cgroup of version 1 with a release agent of the attacker's.
    let target = target(|_, _| {});
    let script = "mkdir /c; for kind in rdma memory cpu; do mount -t cgroup -o $kind c /c 2>/dev/null && echo mounted; done; \
        unshare -UrmC mount -t cgroup -o rdma c /c 2>/dev/null && echo unshared; \
        for file in $(find /sys/fs/cgroup -name release_agent -o -name notify_on_release); do \
        echo /evil 2>/dev/null > $file && echo $file; done; true";
    assert_eq!(target.said(&[], script), "");
    assert_eq!(target.said(&["--security-opt", "seccomp=unconfined"], script), "");
}

#[test]
fn a_disk_of_the_hosts_cannot_be_opened() {
    let target = target(|_, _| {});
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let disk = partitions.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse::<u32>().ok()?, words.next()?.parse::<u32>().ok()?))
    });
    for (major, minor) in disk.take(3).chain([(1, 1), (1, 2), (10, 237)]) {
        let kind = if major == 1 || major == 10 { 'c' } else { 'b' };
        let script = format!("mknod /tmp/d {kind} {major} {minor} && head -c 1 /tmp/d > /dev/null");
        let run = target.sh(&[], &script);
        assert!(run.code != 0 && run.err.contains("not permitted"), "{script}: {} {}", run.code, run.err);
    }
}
