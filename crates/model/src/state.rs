//! What became of a container. `state.json` in the container's directory holds what outlives a boot;
//! `live.json` in its run directory holds what makes *running* a fact: process ids with start times.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The durable part, replaced atomically. Written by whoever holds the container's lock and, from launch to
/// exit, by its monitor alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When it last started.
    pub started_at: Timestamp,
    /// When it last exited.
    pub finished_at: Timestamp,
    /// Exit code of the last run: n, or 128 + signal.
    pub exit_code: i32,
    /// Whether the kernel's out-of-memory killer ended it.
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// Restarts by policy since the last start by a person.
    pub restart_count: u32,
    /// A person stopped it: no restart, and `unless-stopped` holds after a reboot.
    pub stopped_by_user: bool,
    /// Health: present with a health check.
    pub health: Option<Health>,
}

/// The part that dies with the boot. Believed only if the boot id is this boot's and the process with
/// `pid` still has `start_time`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The container's first process on the host; 0 between two runs of a restarting container.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, clock ticks since boot.
    pub start_time: u64,
    /// The monitor.
    pub monitor_pid: i32,
    /// The monitor's start time.
    pub monitor_start_time: u64,
    /// Frozen by `pause`.
    pub paused: bool,
    /// Waiting for the next restart.
    pub restarting: bool,
    /// The container's run directory, where the monitor listens.
    #[serde(default)]
    pub run_dir: std::path::PathBuf,
}

/// Results of the health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five probes.
    pub log: Vec<Probe>,
}

/// One run of a health check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Start.
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// Exit code.
    pub exit_code: i32,
    /// The first 4096 bytes of its output.
    pub output: String,
}

/// A container's status as Docker names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
    Dead,
}

impl Status {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
    /// From the durable state and the (verified) live part.
    pub fn of(state: &State, live: Option<&Live>) -> Self {
        match live {
            Some(live) if live.restarting => Self::Restarting,
            Some(live) if live.paused => Self::Paused,
            Some(_) => Self::Running,
            None if state.started_at.is_never() => Self::Created,
            None => Self::Exited,
        }
    }
}
