//! Failpoints: named places between two steps of a change, where a test can have this process killed.
//!
//! Off in release builds unless the feature `failpoints` is on. Where they are on, two environment variables steer them,
//! and [`environment`] passes them on to processes that are started with an empty environment:
//!
//! - `CAULDRON_FAILPOINT=NAME` or `NAME@N`: SIGKILL to this process at the first (or Nth, counted in each process) time
//!   that `NAME` is reached.
//! - `CAULDRON_FAILPOINT_LOG=FILE`: each point that is reached appends a line, the process's number and the name.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether this build has them.
pub const ENABLED: bool = cfg!(any(debug_assertions, feature = "failpoints"));

const POINT: &str = "CAULDRON_FAILPOINT";
const LOG: &str = "CAULDRON_FAILPOINT_LOG";

#[derive(Debug, Default)]
struct Plan {
    name: Option<String>,
    left: AtomicU32,
    log: Option<std::path::PathBuf>,
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let text = std::env::var(POINT).ok().filter(|text| !text.is_empty());
        let (name, count) = match text.as_deref().map(|text| text.split_once('@').unwrap_or((text, "1"))) {
            Some((name, count)) => (Some(name.to_owned()), count.parse().unwrap_or(1)),
            None => (None, 0),
        };
        let log = std::env::var_os(LOG).filter(|path| !path.is_empty()).map(Into::into);
        Plan { name, left: AtomicU32::new(count), log }
    })
}

static ROLE: OnceLock<&str> = OnceLock::new();

/// Puts a word before the names of all points that this process reaches: one that shares code with others has points of
/// its own then.
pub fn set_role(role: &'static str) {
    if ENABLED {
        // The first one counts.
        let _ = ROLE.set(role);
    }
}

/// A point is reached: `failpoint!` calls this.
pub fn reached(name: &str) {
    let plan = plan();
    let name = &match ROLE.get() {
        Some(role) => format!("{role}: {name}"),
        None => name.to_owned(),
    };
    if let Some(path) = &plan.log
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        // A lost line shows as a point that the sweep does not visit.
        let _ = file.write_all(format!("{} {name}\n", std::process::id()).as_bytes());
    }
    if plan.name.as_deref() == Some(name) && plan.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ = crate::process::kill(rustix::process::getpid().as_raw_nonzero().get(), 9);
        // Signals to oneself are delivered before the call returns; another thread's may still run on.
        loop {
            std::thread::park();
        }
    }
}

/// What a process that is started with an empty environment needs to have the same points.
pub fn environment() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    let names = if ENABLED { [POINT, LOG].as_slice() } else { &[] };
    names.iter().filter_map(|name| std::env::var_os(name).map(|value| (*name, value)))
}

/// A place between two steps of a change. The name is a literal, or a format string with arguments.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        if $crate::failpoint::ENABLED {
            $crate::failpoint::reached($name);
        }
    };
    ($($name:tt)+) => {
        if $crate::failpoint::ENABLED {
            $crate::failpoint::reached(&format!($($name)+));
        }
    };
}
