//! From a [`ContainerSpec`] and what only the machine can tell ([`Facts`]) to a [`Bundle`]: Docker's defaults, in one
//! pure function. Containers and the builder's steps both come through here.

use crate::bundle::{
    Bundle, DeviceNode, DeviceRule, LogTarget, MountOp, MountOpSource, NamespaceSet, Process, Rootfs,
};
use crate::capability;
use crate::container::{
    ContainerPath, ContainerSpec, Healthcheck, HostPath, IpcMode, Lifecycle, Mount, MountSource, Propagation,
    Resources, Seccomp, Security,
};
use std::collections::BTreeMap;

/// Docker's default `PATH`.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `--shm-size` where nothing is asked: 64 MiB.
pub const SHM_BYTES: u64 = 64 << 20;
/// Hidden from a container that is not privileged (moby `oci/defaults.go`).
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Readable only, in a container that is not privileged.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Programs that must be process 1 themselves: no init of ours goes in between.
const OWN_INITS: [&str; 8] =
    ["init", "systemd", "openrc-init", "runit-init", "s6-svscan", "tini", "dumb-init", "catatonit"];

/// What the machine tells about a container that is to be started; paths are the host's.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its name now.
    pub name: String,
    /// See [`Bundle`].
    pub container_dir: HostPath,
    /// See [`Bundle`].
    pub run_dir: HostPath,
    /// See [`Bundle`].
    pub events_log: HostPath,
    /// The image's layers, uppermost first.
    pub lower: Vec<HostPath>,
    /// Overlay's upper directory.
    pub upper: HostPath,
    /// Overlay's work directory.
    pub work: HostPath,
    /// Nobody needs its changes after a crash: skip every fsync.
    pub volatile: bool,
    /// Mounts beyond the defaults, from [`mount_op`]; one on a default mount's place replaces it.
    pub mounts: Vec<MountOp>,
    /// Files of ours (`/etc/hosts`, …) that a mount of the user's on the same path replaces.
    pub files: Vec<(ContainerPath, HostPath)>,
    /// Namespaces, resolved.
    pub namespaces: NamespaceSet,
    /// What /dev/shm shows where it is not the container's own (host or shared IPC).
    pub shm: Option<HostPath>,
    /// What /dev/mqueue shows where it is not the container's own.
    pub mqueue: Option<HostPath>,
    /// The host name inside, whosever it is.
    pub hostname: String,
    /// Variables of legacy links.
    pub link_env: Vec<String>,
    /// Nodes for `--device` (or, privileged, all of the host's).
    pub devices: Vec<DeviceNode>,
    /// Rules for `--device` and `--device-cgroup-rule`.
    pub device_rules: Vec<DeviceRule>,
    /// `/sys/devices/system/cpu/cpu*/thermal_throttle` where they exist.
    pub more_masked_paths: Vec<ContainerPath>,
    /// Cgroup path below each hierarchy's root.
    pub cgroup: String,
    /// Limits in force.
    pub resources: Resources,
    /// What happens after it has exited, in force.
    pub lifecycle: Lifecycle,
    /// The log file.
    pub log: HostPath,
    /// Number of the signal that stops it.
    pub stop_signal: i32,
    /// See [`Bundle`].
    pub on_exit: Vec<String>,
    /// See [`Bundle`].
    pub on_exit_env: Vec<(String, String)>,
    /// See [`Bundle`].
    pub firewall: Option<crate::bundle::FirewallWatch>,
}

/// The bundle of a container.
pub fn bundle(spec: &ContainerSpec, facts: Facts) -> Bundle {
    let security = &spec.security;
    let (mut masked_paths, readonly_paths) = hidden_paths(security);
    if !security.privileged && security.masked_paths.is_none() {
        masked_paths.extend(facts.more_masked_paths.iter().cloned());
    }
    let env = environment(spec, &facts.hostname, &facts.link_env);
    let mounts = mounts(spec, &facts);
    Bundle {
        id: spec.id.clone(),
        image_name: spec.image_name.clone(),
        labels: spec.labels.clone(),
        rootfs: Rootfs::Overlay {
            lower: facts.lower,
            upper: facts.upper,
            work: facts.work,
            volatile: facts.volatile,
            read_only: spec.read_only_rootfs,
        },
        mounts,
        reaper: wants_reaper(spec, &facts.namespaces),
        hostname: facts.hostname,
        domainname: spec.domainname.clone(),
        process: process(spec, env, &facts.resources),
        sysctls: spec.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        device_rules: device_rules(security.privileged, facts.device_rules),
        devices: facts.devices,
        masked_paths,
        readonly_paths,
        log: match spec.log.driver.as_str() {
            "none" => LogTarget::None,
            _ => LogTarget::JsonFile {
                path: facts.log,
                max_bytes: spec.log.max_bytes,
                max_files: spec.log.max_files,
                compress: spec.log.compresses(),
                attributes: log_attributes(spec, &facts.name),
            },
        },
        healthcheck: spec.healthcheck.as_ref().and_then(healthcheck),
        name: facts.name,
        container_dir: facts.container_dir,
        run_dir: facts.run_dir,
        events_log: facts.events_log,
        namespaces: facts.namespaces,
        cgroup: facts.cgroup,
        resources: facts.resources,
        lifecycle: facts.lifecycle,
        stop_signal: facts.stop_signal,
        on_exit: facts.on_exit,
        on_exit_env: facts.on_exit_env,
        firewall: facts.firewall,
    }
}

/// What is masked and what is readable only: Docker's lists unless the request has its own; nothing where privileged.
pub fn hidden_paths(security: &Security) -> (Vec<ContainerPath>, Vec<ContainerPath>) {
    let paths = |asked: &Option<Vec<ContainerPath>>, ours: &[&str]| match asked {
        _ if security.privileged => Vec::new(),
        Some(asked) => asked.clone(),
        None => ours.iter().map(|path| ContainerPath::root().join(path)).collect(),
    };
    (paths(&security.masked_paths, &MASKED_PATHS), paths(&security.readonly_paths, &READONLY_PATHS))
}

fn process(spec: &ContainerSpec, env: Vec<String>, resources: &Resources) -> Process {
    let asked = &spec.process;
    let seccomp = match &spec.security.seccomp {
        Seccomp::Default if spec.security.privileged => Seccomp::Unconfined,
        other => other.clone(),
    };
    Process {
        argv: asked.argv(),
        env,
        cwd: if asked.working_dir.is_empty() { "/".to_owned() } else { asked.working_dir.clone() },
        create_cwd: true,
        user: asked.user.clone(),
        additional_groups: asked.additional_groups.clone(),
        tty: asked.tty,
        open_stdin: asked.open_stdin,
        stdin_once: asked.stdin_once,
        console_size: asked.console_size,
        capabilities: capability::effective(&spec.security),
        no_new_privileges: spec.security.no_new_privileges,
        seccomp,
        ulimits: resources.ulimits.clone(),
        oom_score_adj: resources.oom_score_adj,
    }
}

/// The environment of a container's process: Docker's `CreateDaemonEnvironment`. What the image and the user set
/// (`spec.process.env`) replaces the defaults; a name without `=` takes a variable away.
pub fn environment(spec: &ContainerSpec, hostname: &str, link_env: &[String]) -> Vec<String> {
    let mut env = vec![format!("PATH={PATH}"), format!("HOSTNAME={hostname}")];
    if spec.process.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(link_env.iter().cloned());
    merge_env(env, &spec.process.env)
}

/// `over` on top of `base`: replaced in place, new ones appended; a name without `=` removes.
#[must_use]
pub fn merge_env(mut base: Vec<String>, over: &[String]) -> Vec<String> {
    fn name(entry: &str) -> &str {
        entry.split_once('=').map_or(entry, |(name, _)| name)
    }
    for entry in over {
        let at = base.iter().position(|known| name(known) == name(entry));
        match (at, entry.contains('=')) {
            (Some(at), true) => base[at].clone_from(entry),
            (None, true) => base.push(entry.clone()),
            (Some(at), false) => drop(base.remove(at)),
            (None, false) => {}
        }
    }
    base
}

fn wants_reaper(spec: &ContainerSpec, namespaces: &NamespaceSet) -> bool {
    use crate::bundle::Namespace;
    let own_init = spec.process.argv().first().is_some_and(|program| {
        let base = program.rsplit('/').next().unwrap_or(program);
        OWN_INITS.contains(&base)
    });
    match spec.init {
        Some(asked) => asked && namespaces.pid == Namespace::New,
        None => namespaces.pid == Namespace::New && !own_init,
    }
}

/// The attributes that `--log-opt labels=…`, `labels-regex=…`, `env=…`, `env-regex=…` and `tag=…` ask for (moby
/// `daemon/logger/loginfo.go`).
fn log_attributes(spec: &ContainerSpec, name: &str) -> BTreeMap<String, String> {
    let option = |name: &str| spec.log.options.get(name).map_or("", String::as_str);
    let pattern = |name: &str| match option(name) {
        "" => None,
        text => regex_lite::Regex::new(text).ok(),
    };
    let chosen = |list: &str, pattern: &Option<regex_lite::Regex>, key: &str| {
        list.split(',').any(|wanted| wanted == key)
            || pattern.as_ref().is_some_and(|pattern| pattern.is_match(key))
    };
    let mut attributes = BTreeMap::new();
    let (list, regex) = (option("labels"), pattern("labels-regex"));
    for (key, value) in spec.labels.iter().filter(|(key, _)| chosen(list, &regex, key)) {
        attributes.insert(key.clone(), value.clone());
    }
    let (list, regex) = (option("env"), pattern("env-regex"));
    let variables = spec.process.env.iter().filter_map(|entry| entry.split_once('='));
    for (key, value) in variables.filter(|(key, _)| chosen(list, &regex, key)) {
        attributes.insert(key.to_owned(), value.to_owned());
    }
    if !option("tag").is_empty() {
        let tag = [
            ("{{.ID}}", spec.id.short()),
            ("{{.FullID}}", spec.id.as_str()),
            ("{{.Name}}", name),
            ("{{.ImageName}}", &spec.image_name),
        ]
        .iter()
        .fold(option("tag").to_owned(), |tag, (field, value)| tag.replace(field, value));
        attributes.insert("tag".to_owned(), tag);
    }
    attributes
}

/// All defaults filled in (moby `daemon/health.go`); `None` where it says `NONE` or nothing.
fn healthcheck(asked: &Healthcheck) -> Option<Healthcheck> {
    const SECOND: i64 = 1_000_000_000;
    let test = asked.test.as_ref()?;
    match test.first().map(String::as_str) {
        None | Some("NONE" | "") => return None,
        Some(_) => {}
    }
    let or = |value: i64, default: i64| if value == 0 { default } else { value };
    let interval = or(asked.interval, 30 * SECOND);
    Some(Healthcheck {
        test: Some(test.clone()),
        interval,
        timeout: or(asked.timeout, 30 * SECOND),
        start_period: asked.start_period,
        // Not longer than the interval, which held for the start period too before there was a start interval (API 1.44).
        start_interval: or(asked.start_interval, interval.min(5 * SECOND)),
        retries: or(asked.retries, 3),
    })
}

/// One mount as the runtime makes it. `volume` is the volume's directory where the source is one.
pub fn mount_op(mount: &Mount, volume: Option<HostPath>) -> MountOp {
    let base = MountOp {
        target: mount.target.clone(),
        source: MountOpSource::Fs { fstype: String::new(), options: Vec::new() },
        read_only: mount.read_only,
        nosuid: false,
        nodev: false,
        noexec: false,
    };
    let bind = |path: HostPath, recursive, propagation, subpath| MountOpSource::Bind {
        path,
        recursive,
        propagation,
        subpath,
    };
    match &mount.source {
        MountSource::Bind { path, propagation, non_recursive, .. } => {
            MountOp { source: bind(path.clone(), !non_recursive, *propagation, None), ..base }
        }
        MountSource::Volume { subpath, .. } => {
            let subpath =
                subpath.as_deref().map(|text| ContainerPath::root().join(text.trim_start_matches('/')));
            MountOp { source: bind(volume.unwrap_or_default(), true, Propagation::RPrivate, subpath), ..base }
        }
        MountSource::Tmpfs { size, mode, options } => tmpfs(base, *size, *mode, options),
    }
}

/// Docker's defaults for `--tmpfs` are `noexec,nosuid,nodev`; a later word wins.
fn tmpfs(mut op: MountOp, size: Option<u64>, mode: Option<u32>, words: &[String]) -> MountOp {
    (op.nosuid, op.nodev, op.noexec) = (true, true, true);
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    if let Some(size) = size {
        options.push(("size".to_owned(), Some(size.to_string())));
    }
    if let Some(mode) = mode {
        options.push(("mode".to_owned(), Some(format!("{mode:o}"))));
    }
    for word in words {
        match word.as_str() {
            "ro" => op.read_only = true,
            "rw" => op.read_only = false,
            "exec" => op.noexec = false,
            "noexec" => op.noexec = true,
            "suid" => op.nosuid = false,
            "nosuid" => op.nosuid = true,
            "dev" => op.nodev = false,
            "nodev" => op.nodev = true,
            word => {
                let (name, value) =
                    word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
                options.retain(|(known, _)| known != name);
                options.push((name.to_owned(), value));
            }
        }
    }
    op.source = MountOpSource::Fs { fstype: "tmpfs".to_owned(), options };
    op
}

fn fs(target: &str, fstype: &str, flags: [bool; 3], options: &[(&str, &str)]) -> MountOp {
    MountOp {
        target: ContainerPath::root().join(target),
        source: MountOpSource::Fs {
            fstype: fstype.to_owned(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (!value.is_empty()).then(|| (*value).to_owned())))
                .collect(),
        },
        read_only: false,
        nosuid: flags[0],
        nodev: flags[1],
        noexec: flags[2],
    }
}

/// Docker's default mounts, in order.
fn default_mounts(spec: &ContainerSpec, facts: &Facts) -> Vec<MountOp> {
    let privileged = spec.security.privileged;
    let host = |target: &str, path: &HostPath| MountOp {
        source: MountOpSource::Bind {
            path: path.clone(),
            recursive: true,
            propagation: Propagation::RPrivate,
            subpath: None,
        },
        ..fs(target, "", [true, true, true], &[])
    };
    let shm_bytes = spec.shm_bytes.to_string();
    let mut mounts = vec![
        fs("/proc", "proc", [true, true, true], &[]),
        fs("/dev", "tmpfs", [true, false, false], &[("mode", "755"), ("size", "65536k")]),
        fs(
            "/dev/pts",
            "devpts",
            [true, false, true],
            &[("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
        ),
        MountOp { read_only: !privileged, ..fs("/sys", "sysfs", [true, true, true], &[]) },
        MountOp { read_only: !privileged, ..fs("/sys/fs/cgroup", "cgroup", [true, true, true], &[]) },
        match &facts.mqueue {
            Some(path) => host("/dev/mqueue", path),
            None => fs("/dev/mqueue", "mqueue", [true, true, true], &[]),
        },
    ];
    match &facts.shm {
        Some(path) => mounts.push(host("/dev/shm", path)),
        None if spec.namespaces.ipc == IpcMode::None => {}
        None => mounts.push(fs(
            "/dev/shm",
            "tmpfs",
            [true, true, true],
            &[("source", "shm"), ("mode", "1777"), ("size", &shm_bytes)],
        )),
    }
    mounts
}

/// Defaults that nobody replaced, then ours and the user's, parents before children.
fn mounts(spec: &ContainerSpec, facts: &Facts) -> Vec<MountOp> {
    let taken = |target: &ContainerPath| facts.mounts.iter().any(|mount| mount.target == *target);
    let own_dev = taken(&ContainerPath::root().join("/dev"));
    let mut all: Vec<MountOp> = default_mounts(spec, facts)
        .into_iter()
        .filter(|mount| !(taken(&mount.target) || own_dev && mount.target.as_str().starts_with("/dev/")))
        .collect();
    if spec.read_only_rootfs {
        for mount in &mut all {
            let writable =
                ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"].contains(&mount.target.as_str());
            mount.read_only |= !writable;
        }
    }
    let mut asked: Vec<MountOp> = facts
        .files
        .iter()
        .filter(|(target, _)| !taken(target))
        .map(|(target, path)| MountOp {
            target: target.clone(),
            source: MountOpSource::Bind {
                path: path.clone(),
                recursive: false,
                propagation: Propagation::RPrivate,
                subpath: None,
            },
            read_only: false,
            nosuid: false,
            nodev: false,
            noexec: false,
        })
        .chain(facts.mounts.iter().cloned())
        .collect();
    // Stable: mounts of one depth keep the order in which they were asked for.
    asked.sort_by_key(|mount| mount.target.as_str().split('/').filter(|part| !part.is_empty()).count());
    all.extend(asked);
    all
}

/// Docker's device rules (moby `oci/defaults.go` and runc's allowed devices).
pub fn device_rules(privileged: bool, more: Vec<DeviceRule>) -> Vec<DeviceRule> {
    let rule = |allow, kind, major, minor, access: &str| DeviceRule {
        allow,
        kind,
        major,
        minor,
        access: access.to_owned(),
    };
    if privileged {
        return vec![rule(true, 'a', None, None, "rwm")];
    }
    let mut rules = vec![
        rule(false, 'a', None, None, "rwm"),
        rule(true, 'c', None, None, "m"),
        rule(true, 'b', None, None, "m"),
    ];
    // null, zero, full, random, urandom, tty, console, ptmx, and every pts.
    let known = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(1)),
        (5, Some(2)),
        (136, None),
    ];
    rules.extend(known.into_iter().map(|(major, minor)| rule(true, 'c', Some(major), minor, "rwm")));
    rules.extend(more);
    rules
}

/// Parses `--device-cgroup-rule`: `c 1:3 rwm`, `a *:* r`.
///
/// # Errors
/// Docker's text for a malformed rule.
pub fn parse_device_rule(text: &str) -> crate::Result<DeviceRule> {
    let bad = || crate::Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split(' ');
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad());
    };
    let kind = match kind {
        "a" => 'a',
        "b" => 'b',
        "c" => 'c',
        _ => return Err(bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| -> crate::Result<Option<u32>> {
        if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| bad()) }
    };
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|b| b"rwm".contains(&b)) {
        return Err(bad());
    }
    Ok(DeviceRule {
        allow: true,
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Namespace;
    use crate::container::{NetworkMode, Security};
    use crate::time::Timestamp;
    use crate::{ContainerId, Digest};

    fn spec() -> ContainerSpec {
        let mut spec = ContainerSpec::new(
            ContainerId::from_bytes([7; 32]),
            Timestamp::NEVER,
            "busybox",
            Digest::of(b"x"),
            Vec::new(),
        );
        spec.process.command = vec!["sh".to_owned()];
        spec
    }

    fn targets(bundle: &Bundle) -> Vec<&str> {
        bundle.mounts.iter().map(|mount| mount.target.as_str()).collect()
    }

    fn bind(target: &str) -> MountOp {
        let path = HostPath("/srv".into());
        let source = MountSource::Bind {
            path,
            propagation: Propagation::RPrivate,
            create_source: true,
            non_recursive: false,
        };
        mount_op(&Mount { target: ContainerPath::parse(target).unwrap(), source, read_only: false }, None)
    }

    #[test]
    fn nothing_asked_is_dockers_default() {
        let bundle = bundle(&spec(), Facts { hostname: "box".to_owned(), ..Facts::default() });
        assert_eq!(
            targets(&bundle),
            ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
        );
        let read_only: Vec<&str> =
            bundle.mounts.iter().filter(|mount| mount.read_only).map(|mount| mount.target.as_str()).collect();
        assert_eq!(read_only, ["/sys", "/sys/fs/cgroup"]);
        assert_eq!(bundle.process.capabilities.len(), 14);
        assert_eq!(bundle.process.seccomp, Seccomp::Default);
        assert_eq!(bundle.process.env, [format!("PATH={PATH}"), "HOSTNAME=box".to_owned()]);
        assert_eq!((bundle.process.cwd.as_str(), bundle.process.create_cwd), ("/", true));
        assert_eq!(bundle.masked_paths.len(), MASKED_PATHS.len());
        assert_eq!(bundle.readonly_paths.len(), READONLY_PATHS.len());
        assert!(!bundle.device_rules[0].allow, "the first rule denies everything");
        assert!(bundle.reaper);
    }

    #[test]
    fn privileged_is_the_whole_host() {
        let mut spec = spec();
        spec.security =
            Security { privileged: true, cap_drop: vec!["MKNOD".to_owned()], ..Security::default() };
        let bundle = bundle(&spec, Facts::default());
        assert!(bundle.mounts.iter().all(|mount| !mount.read_only));
        assert_eq!(bundle.process.capabilities.len(), capability::ALL.len());
        assert_eq!(bundle.process.seccomp, Seccomp::Unconfined);
        assert!(bundle.masked_paths.is_empty() && bundle.readonly_paths.is_empty());
        assert_eq!(bundle.device_rules.len(), 1);
        assert!(bundle.device_rules[0].allow);
    }

    #[test]
    fn a_profile_holds_even_where_privileged() {
        let mut spec = spec();
        spec.security.privileged = true;
        spec.security.seccomp = Seccomp::Profile("{}".to_owned());
        assert_eq!(bundle(&spec, Facts::default()).process.seccomp, Seccomp::Profile("{}".to_owned()));
    }

    #[test]
    fn what_the_user_mounts_replaces_ours() {
        let files = ["/etc/hosts", "/etc/hostname"]
            .map(|path| (ContainerPath::parse(path).unwrap(), HostPath(path.into())));
        let facts = Facts {
            mounts: vec![bind("/data/deep/er"), bind("/data"), bind("/sys"), bind("/etc/hosts")],
            files: files.to_vec(),
            ..Facts::default()
        };
        let bundle = bundle(&spec(), facts);
        // Parents come before children, the user's /sys instead of ours, the user's /etc/hosts alone.
        assert_eq!(
            targets(&bundle),
            [
                "/proc",
                "/dev",
                "/dev/pts",
                "/sys/fs/cgroup",
                "/dev/mqueue",
                "/dev/shm",
                "/data",
                "/sys",
                "/etc/hostname",
                "/etc/hosts",
                "/data/deep/er"
            ]
        );
    }

    #[test]
    fn a_dev_of_the_users_is_the_only_one() {
        let bundle = bundle(&spec(), Facts { mounts: vec![bind("/dev")], ..Facts::default() });
        assert_eq!(targets(&bundle), ["/proc", "/sys", "/sys/fs/cgroup", "/dev"]);
    }

    #[test]
    fn ipc_and_shm() {
        let mut spec = spec();
        spec.namespaces.ipc = IpcMode::None;
        assert!(!targets(&bundle(&spec, Facts::default())).contains(&"/dev/shm"));
        spec.namespaces.ipc = IpcMode::Host;
        let facts = Facts { shm: Some(HostPath("/dev/shm".into())), ..Facts::default() };
        let bundle = bundle(&spec, facts);
        let shm = bundle.mounts.iter().find(|mount| mount.target.as_str() == "/dev/shm").unwrap();
        assert!(matches!(&shm.source, MountOpSource::Bind { .. }));
    }

    #[test]
    fn read_only_leaves_what_must_be_writable() {
        let mut spec = spec();
        spec.read_only_rootfs = true;
        spec.security.privileged = true;
        let bundle = bundle(&spec, Facts::default());
        let read_only: Vec<&str> =
            bundle.mounts.iter().filter(|mount| mount.read_only).map(|mount| mount.target.as_str()).collect();
        assert_eq!(read_only, ["/sys", "/sys/fs/cgroup"]);
        assert!(matches!(bundle.rootfs, Rootfs::Overlay { read_only: true, .. }));
    }

    #[test]
    fn environments() {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut spec = spec();
        spec.process.tty = true;
        spec.process.env = own(&["PATH=/bin", "A=1", "TERM=vt100", "HOSTNAME"]);
        let env = environment(&spec, "box", &own(&["DB_NAME=/web/db"]));
        assert_eq!(env, ["PATH=/bin", "TERM=vt100", "DB_NAME=/web/db", "A=1"]);
        assert_eq!(merge_env(own(&["A=1", "B=2"]), &own(&["B=3", "C="])), ["A=1", "B=3", "C="]);
    }

    #[test]
    fn no_reaper_where_it_would_be_in_the_way() {
        let mut own = spec();
        own.process.command = vec!["/sbin/init".to_owned()];
        assert!(!bundle(&own, Facts::default()).reaper);
        own.init = Some(true);
        assert!(bundle(&own, Facts::default()).reaper);
        let host_pid = NamespaceSet { pid: Namespace::Host, ..NamespaceSet::default() };
        assert!(!bundle(&spec(), Facts { namespaces: host_pid, ..Facts::default() }).reaper);
        let mut off = spec();
        off.init = Some(false);
        assert!(!bundle(&off, Facts::default()).reaper);
    }

    #[test]
    fn tmpfs_options() {
        let target = ContainerPath::parse("/t").unwrap();
        let options = ["exec", "size=10%", "uid=5"].map(str::to_owned).to_vec();
        let source = MountSource::Tmpfs { size: Some(4096), mode: Some(0o1770), options };
        let op = mount_op(&Mount { target, source, read_only: false }, None);
        assert!(op.nosuid && op.nodev && !op.noexec);
        let MountOpSource::Fs { fstype, options } = op.source else { panic!("a tmpfs is a new file system") };
        let options: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{name}={}", value.clone().unwrap_or_default()))
            .collect();
        assert_eq!(
            (fstype.as_str(), options),
            ("tmpfs", ["mode=1770", "size=10%", "uid=5"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn healthchecks_get_their_defaults() {
        let asked =
            Healthcheck { test: Some(vec!["CMD".to_owned(), "true".to_owned()]), ..Healthcheck::default() };
        let check = healthcheck(&asked).unwrap();
        assert_eq!((check.interval, check.timeout, check.retries), (30_000_000_000, 30_000_000_000, 3));
        assert_eq!(check.start_interval, 5_000_000_000);
        let often = healthcheck(&Healthcheck { interval: 300_000_000, ..asked }).unwrap();
        assert_eq!(often.start_interval, 300_000_000);
        assert_eq!(
            healthcheck(&Healthcheck { test: Some(vec!["NONE".to_owned()]), ..Healthcheck::default() }),
            None
        );
        assert_eq!(healthcheck(&Healthcheck::default()), None);
    }

    #[test]
    fn device_rules_as_written() {
        assert_eq!(
            parse_device_rule("c 1:3 rwm").unwrap(),
            DeviceRule { allow: true, kind: 'c', major: Some(1), minor: Some(3), access: "rwm".to_owned() }
        );
        assert_eq!(parse_device_rule("a *:* r").unwrap().major, None);
        for bad in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 rwx", "c 1:3 rwm m", "c  1:3 r"] {
            assert!(parse_device_rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_image_is_merged_where_nothing_was_said() {
        let image: crate::image::RunConfig = serde_json::from_str(
            r#"{"User":"app","Env":["A=1","B=2"],"Cmd":["c"],"Entrypoint":["e"],"WorkingDir":"/w","Labels":{"l":"i","m":"i"},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT"}"#,
        )
        .unwrap();
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        for (entrypoint, command, argv) in [
            (own(&[]), own(&[]), own(&["e", "c"])),
            (own(&[]), own(&["x"]), own(&["e", "x"])),
            (own(&["y"]), own(&[]), own(&["y"])),
            (own(&[""]), own(&["x"]), own(&["x"])),
        ] {
            let mut spec = spec();
            spec.process.entrypoint = entrypoint;
            spec.process.command = command;
            spec.process.env = own(&["B=3"]);
            spec.labels.insert("m".to_owned(), "u".to_owned());
            spec.merge_image(&image);
            assert_eq!(spec.process.argv(), argv);
            assert_eq!(spec.process.env, ["B=3", "A=1"]);
            assert_eq!((spec.labels["l"].as_str(), spec.labels["m"].as_str()), ("i", "u"));
            assert_eq!((spec.process.user.as_str(), spec.process.working_dir.as_str()), ("app", "/w"));
            assert_eq!(spec.stop.signal, "SIGQUIT");
            assert!(matches!(spec.network, NetworkMode::Attached(_)));
            assert_eq!(spec.exposed_ports.len(), 1);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10m", 10 << 20), ("1.5g", 3 << 29), ("64kb", 64 << 10), ("1024", 1024), ("2KiB", 2048)]
        {
            assert_eq!(crate::container::parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "10x", "1e400g"] {
            assert_eq!(crate::container::parse_size(text), None, "{text}");
        }
    }
}
