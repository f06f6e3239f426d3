//! `top`: a container's processes, rendered from the host's /proc. No `ps` is executed, the container's or the host's;
//! user names are the host's, since the container's passwd says what the container likes.

use model::error::Context as _;
use model::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use crate::Engine;

/// Clock ticks a second in /proc (`USER_HZ`, part of the kernel's interface).
const TICKS: u64 = 100;
/// Bytes of one command line that are shown.
const COMMAND_BYTES: usize = 4096;

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Column titles.
    pub titles: Vec<String>,
    /// One row a process.
    pub rows: Vec<Vec<String>>,
}

/// What /proc says of one process.
#[derive(Clone, Debug, Default)]
struct Process {
    pid: i32,
    ppid: i32,
    pgid: i32,
    sid: i32,
    uid: u32,
    gid: u32,
    name: String,
    command: String,
    state: String,
    tty: i64,
    cpu_ticks: u64,
    start_ticks: u64,
    nice: i64,
    priority: i64,
    threads: i64,
    vsize: u64,
    rss_kib: u64,
}

/// What rows need to know of the machine.
struct Machine {
    users: BTreeMap<u32, String>,
    memory: u64,
    uptime: f64,
    now: i64,
}

impl Engine {
    /// The processes of a running container, with the columns that these arguments of `ps` ask for.
    ///
    /// # Errors
    /// It does not run, or a column is not known.
    pub fn top(&self, name: &str, ps_args: &str) -> Result<Processes> {
        let container = self.find(name)?;
        container.running()?;
        let columns = columns(ps_args)?;
        let machine = Machine::read();
        let mut pids = runtime::pids(&container.cgroup())?;
        pids.sort_unstable();
        // The built-in init is part of the engine, and shown to those only who asked for one.
        let hidden = if container.spec.init == Some(true) {
            None
        } else {
            pids.iter().copied().find(|pid| is_our_init(*pid))
        };
        let shown = pids.into_iter().filter(|pid| Some(*pid) != hidden);
        let rows = shown
            .filter_map(Process::read)
            .map(|process| columns.iter().map(|(key, _)| machine.cell(&process, key)).collect::<Vec<_>>());
        let rows = rows.collect();
        Ok(Processes { titles: columns.into_iter().map(|(_, title)| title).collect(), rows })
    }
}

/// Keys and titles for the arguments of `ps`; empty is `-ef`.
fn columns(ps_args: &str) -> Result<Vec<(String, String)>> {
    let named = |list: &[(&str, &str)]| {
        list.iter().map(|(key, title)| ((*key).to_owned(), (*title).to_owned())).collect()
    };
    let mut words = ps_args.split_whitespace();
    let mut chosen: Vec<(String, String)> = Vec::new();
    let mut form = "-ef";
    while let Some(word) = words.next() {
        let list = match word {
            "-o" | "o" | "-eo" | "-Ao" | "axo" | "-axo" | "--format" => words.next(),
            _ => word.strip_prefix("-o").or_else(|| word.strip_prefix("--format=")),
        };
        match list {
            Some(list) => {
                for item in list.split(',') {
                    let (key, title) =
                        item.split_once('=').map_or((item, None), |(key, title)| (key, Some(title)));
                    let known = title_of(key).ok_or_else(|| {
                        Error::new(Kind::InvalidArgument, format!("ps: unknown column {key:?}"))
                    })?;
                    chosen.push((key.to_owned(), title.unwrap_or(known).to_owned()));
                }
            }
            None => form = word,
        }
    }
    if !chosen.is_empty() {
        if !chosen.iter().any(|(_, title)| title == "PID") {
            return Err(Error::invalid("Couldn't find PID field in ps output"));
        }
        return Ok(chosen);
    }
    let flags = form.trim_start_matches('-');
    Ok(if !form.starts_with('-') && flags.contains('u') {
        named(&[
            ("user", "USER"),
            ("pid", "PID"),
            ("%cpu", "%CPU"),
            ("%mem", "%MEM"),
            ("vsz", "VSZ"),
            ("rss", "RSS"),
            ("tty", "TTY"),
            ("stat", "STAT"),
            ("start", "START"),
            ("time0", "TIME"),
            ("args", "COMMAND"),
        ])
    } else if flags.contains('l') {
        named(&[
            ("s", "S"),
            ("uid", "UID"),
            ("pid", "PID"),
            ("ppid", "PPID"),
            ("c", "C"),
            ("pri", "PRI"),
            ("ni", "NI"),
            ("vsz", "SZ"),
            ("tty", "TTY"),
            ("time", "TIME"),
            ("args", "CMD"),
        ])
    } else if !form.starts_with('-') && !flags.is_empty() {
        named(&[("pid", "PID"), ("tty", "TTY"), ("stat", "STAT"), ("time0", "TIME"), ("args", "COMMAND")])
    } else if flags.contains('f') {
        named(&[
            ("user", "UID"),
            ("pid", "PID"),
            ("ppid", "PPID"),
            ("c", "C"),
            ("stime", "STIME"),
            ("tty", "TTY"),
            ("time", "TIME"),
            ("args", "CMD"),
        ])
    } else {
        named(&[("pid", "PID"), ("tty", "TTY"), ("time", "TIME"), ("comm", "CMD")])
    })
}

fn title_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "pid" => "PID",
        "ppid" => "PPID",
        "pgid" | "pgrp" => "PGID",
        "sid" | "sess" => "SID",
        "user" | "euser" | "uname" | "ruser" => "USER",
        "uid" | "euid" | "ruid" => "UID",
        "gid" | "egid" | "rgid" => "GID",
        "comm" | "ucmd" => "COMMAND",
        "cmd" => "CMD",
        "args" | "command" => "COMMAND",
        "s" | "state" => "S",
        "stat" => "STAT",
        "tty" | "tt" | "tname" => "TTY",
        "time" | "cputime" => "TIME",
        "etime" => "ELAPSED",
        "stime" | "start_time" => "STIME",
        "start" => "STARTED",
        "c" => "C",
        "pcpu" | "%cpu" => "%CPU",
        "pmem" | "%mem" => "%MEM",
        "vsz" | "vsize" => "VSZ",
        "rss" | "rssize" => "RSS",
        "ni" | "nice" => "NI",
        "pri" => "PRI",
        "nlwp" | "thcount" => "NLWP",
        _ => return None,
    })
}

/// Whether a process is the engine's own init of a container: the first of its process namespace, and the engine's
/// own program (compared by file, since names can be chosen).
fn is_our_init(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let first =
        status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()) == Some("1");
    let file = |path: String| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let program = file(format!("/proc/{pid}/exe"));
    first && program.is_some() && program == file("/proc/self/exe".to_owned())
}

impl Process {
    /// Reads one; `None` where it is gone.
    fn read(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let mut process = Self::parse(&String::from_utf8_lossy(&stat))?;
        let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        let id = |key: &str| -> Option<u32> {
            status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().nth(1)?.parse().ok())
        };
        process.uid = id("Uid:").unwrap_or_default();
        process.gid = id("Gid:").unwrap_or_default();
        process.rss_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
            .unwrap_or_default();
        let mut command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.truncate(COMMAND_BYTES);
        let text = String::from_utf8_lossy(&command);
        let text: String = text
            .trim_end_matches('\0')
            .chars()
            .map(|c| {
                if c == '\0' {
                    ' '
                } else if c.is_control() {
                    '?'
                } else {
                    c
                }
            })
            .collect();
        process.command = if text.is_empty() { format!("[{}]", process.name) } else { text };
        Some(process)
    }
    /// Parses `/proc/PID/stat` (proc_pid_stat(5)). The name may contain anything, parentheses too.
    fn parse(stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let (pid, name) = before.split_once('(')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // The field after the name is the third.
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<i64>().ok());
        let positive = |field| number(field).and_then(|value| u64::try_from(value).ok()).unwrap_or_default();
        let small = |field| number(field).and_then(|value| i32::try_from(value).ok()).unwrap_or_default();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            name: name.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
            state: (*fields.first()?).to_owned(),
            ppid: small(4),
            pgid: small(5),
            sid: small(6),
            tty: number(7).unwrap_or_default(),
            cpu_ticks: positive(14) + positive(15),
            priority: number(18).unwrap_or_default(),
            nice: number(19).unwrap_or_default(),
            threads: number(20).unwrap_or_default(),
            start_ticks: positive(22),
            vsize: positive(23),
            ..Self::default()
        })
    }
}

impl Machine {
    fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let passwd = read("/etc/passwd");
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        });
        let mut by_id = BTreeMap::new();
        for (uid, name) in users {
            by_id.entry(uid).or_insert(name);
        }
        let uptime = read("/proc/uptime").split_whitespace().next().and_then(|text| text.parse().ok());
        let memory = crate::system::machine().memory;
        Self {
            users: by_id,
            memory: memory.max(1),
            uptime: uptime.unwrap_or_default(),
            now: crate::now().seconds,
        }
    }
    fn cell(&self, process: &Process, key: &str) -> String {
        let age = (self.uptime - process.start_ticks as f64 / TICKS as f64).max(0.0);
        let seconds = process.cpu_ticks / TICKS;
        let cpu = if age > 0.0 { process.cpu_ticks as f64 / TICKS as f64 / age * 100.0 } else { 0.0 };
        match key {
            "pid" => process.pid.to_string(),
            "ppid" => process.ppid.to_string(),
            "pgid" | "pgrp" => process.pgid.to_string(),
            "sid" | "sess" => process.sid.to_string(),
            "user" | "euser" | "uname" | "ruser" => {
                self.users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string())
            }
            "uid" | "euid" | "ruid" => process.uid.to_string(),
            "gid" | "egid" | "rgid" => process.gid.to_string(),
            "comm" | "ucmd" => process.name.clone(),
            "s" | "state" => process.state.clone(),
            "stat" => stat_flags(process),
            "tty" | "tt" | "tname" => tty(process.tty),
            "time" | "cputime" => {
                format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            "time0" => format!("{}:{:02}", seconds / 60, seconds % 60),
            "etime" => elapsed(age as u64),
            "stime" | "start_time" | "start" => self.started(age as i64),
            "c" => (cpu as u64).min(99).to_string(),
            "pcpu" | "%cpu" => format!("{cpu:.1}"),
            "pmem" | "%mem" => format!("{:.1}", (process.rss_kib * 1024) as f64 / self.memory as f64 * 100.0),
            "vsz" | "vsize" => (process.vsize / 1024).to_string(),
            "rss" | "rssize" => process.rss_kib.to_string(),
            "ni" | "nice" => process.nice.to_string(),
            "pri" => (60 + process.priority).to_string(),
            "nlwp" | "thcount" => process.threads.to_string(),
            _ => process.command.clone(),
        }
    }
    /// `HH:MM` (UTC) within a day, else the date.
    fn started(&self, age: i64) -> String {
        let text = model::time::Timestamp { seconds: (self.now - age).max(1), nanos: 0 }.to_string();
        text.get(if age < 86_400 { 11..16 } else { 5..10 }).unwrap_or_default().to_owned()
    }
}

fn stat_flags(process: &Process) -> String {
    let mut text = process.state.clone();
    if process.nice < 0 {
        text.push('<');
    } else if process.nice > 0 {
        text.push('N');
    }
    if process.sid == process.pid {
        text.push('s');
    }
    if process.threads > 1 {
        text.push('l');
    }
    text
}

/// The terminal of a device number (`proc_pid_stat(5)`, tty_nr).
fn tty(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    }
}

fn elapsed(seconds: u64) -> String {
    let (days, hours, minutes, seconds) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}:{seconds:02}"),
        (0, hours) => format!("{hours:02}:{minutes:02}:{seconds:02}"),
        (days, hours) => format!("{days}-{hours:02}:{minutes:02}:{seconds:02}"),
    }
}

impl Engine {
    /// One reading of a container's counters and of its interfaces; `None` where it does not run.
    ///
    /// # Errors
    /// No such container, or the counters cannot be read.
    pub fn usage(&self, name: &str) -> Result<Reading> {
        let container = self.find(name)?;
        let mut reading = Reading {
            id: container.id().clone(),
            name: container.name().to_owned(),
            read: crate::now(),
            usage: None,
            interfaces: Vec::new(),
        };
        let Some(live) = container.live.as_ref().filter(|live| live.pid > 0) else { return Ok(reading) };
        match runtime::usage(&container.cgroup()) {
            Ok(usage) => reading.usage = Some(usage),
            // It ended meanwhile.
            Err(_) if runtime::live(&container.run_dir)?.is_none() => return Ok(reading),
            Err(error) => return Err(error),
        }
        if !matches!(container.spec.network, model::container::NetworkMode::Host) {
            reading.interfaces = runtime::interface_counters(live.pid)
                .context(|| format!("stats of {name}"))
                .unwrap_or_default();
        }
        Ok(reading)
    }
}

/// A container's counters at one time.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The container.
    pub id: model::ContainerId,
    /// Its name.
    pub name: String,
    /// When.
    pub read: model::time::Timestamp,
    /// The cgroup's counters; `None` where it does not run.
    pub usage: Option<runtime::Usage>,
    /// The interfaces' counters, as [`runtime::interface_counters`] gives them.
    pub interfaces: Vec<(String, [u64; 8])>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_the_columns_of_ps() {
        let titles = |args: &str| {
            columns(args).unwrap().into_iter().map(|(_, title)| title).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(titles(""), "UID PID PPID C STIME TTY TIME CMD");
        assert_eq!(titles("-ef"), titles(""));
        assert_eq!(titles("aux"), "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
        assert_eq!(titles("-o pid,comm"), "PID COMMAND");
        assert_eq!(titles("-eo pid,user=WHO,args"), "PID WHO COMMAND");
        assert!(columns("-o comm").is_err() && columns("-o pid,nonsense").is_err());
    }

    #[test]
    fn a_name_may_contain_anything() {
        let process =
            Process::parse("42 (a) b (x) S 1 42 42 34816 42 0 0 0 0 0 150 50 0 0 20 0 3 0 1000 4096000 25 0")
                .unwrap();
        assert_eq!((process.pid, process.name.as_str(), process.state.as_str()), (42, "a) b (x", "S"));
        assert_eq!(
            (process.ppid, process.cpu_ticks, process.threads, process.start_ticks),
            (1, 200, 3, 1000)
        );
        assert_eq!((process.vsize, tty(process.tty)), (4_096_000, "pts/0".to_owned()));
        assert!(Process::parse("").is_none());
        assert_eq!(stat_flags(&process), "Ssl");
        assert_eq!(elapsed(90_061), "1-01:01:01");
    }
}
