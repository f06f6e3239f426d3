//! What the monitor leaves for others to read: `state.json`, `live.json`, `execs/`, events.

use model::bundle::Bundle;
use model::container::Lifecycle;
use model::error::Context as _;
use model::event::Event;
use model::state::{Live, State};
use model::time::Timestamp;
use model::{Error, Kind, Result};
use std::io::Write as _;
use std::path::Path;

use crate::wire;

/// The time now.
pub fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// This boot's id.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> Result<&'static str> {
    sys::process::boot_id().context(|| "read the boot's id")
}

/// The state as it was left; the default where there is none.
pub fn read_state(bundle: &Bundle) -> State {
    let bytes = std::fs::read(bundle.container_dir.0.join("state.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Makes a `state.json` that says nothing, where there is none.
///
/// # Errors
/// It cannot be written.
pub fn make_state(bundle: &Bundle) -> Result<()> {
    if bundle.container_dir.0.join("state.json").exists() {
        return Ok(());
    }
    write_state(bundle, &State::default(), Wait::No)
}

/// Whether a record must be on the disk before anybody is told of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It must.
    Yes,
    /// A machine that loses its power may leave the one before, or an empty file.
    No,
}

/// Replaces `state.json`, on a full disk too: whatever fills it must be possible to end. It outlives the boot. That of a
/// container that goes with its end is never waited for.
///
/// # Errors
/// It cannot be written.
pub fn write_state(bundle: &Bundle, state: &State, wait: Wait) -> Result<()> {
    let path = bundle.container_dir.0.join("state.json");
    let sync = wait == Wait::Yes && bundle.lifecycle != Lifecycle::RemoveOnExit;
    let write = |state: &State| {
        sys::fs::update_file(&path, &wire::encode(state), 0o600, sync)
            .context(|| format!("write {}", path.display()))
    };
    write(state).or_else(|error| match &state.health {
        // What probes printed is worth less than the rest.
        Some(health) if error.is_out_of_space() && !health.log.is_empty() => {
            let health = model::state::Health { log: Vec::new(), ..health.clone() };
            write(&State { health: Some(health), ..state.clone() })
        }
        _ => Err(error),
    })
}

/// Replaces `live.json`.
///
/// # Errors
/// It cannot be written.
pub fn write_live(bundle: &Bundle, live: &Live) -> Result<()> {
    let path = bundle.run_dir.0.join("live.json");
    sys::fs::replace_file(&path, &wire::encode(live), 0o600, false)
        .context(|| format!("write {}", path.display()))
}

/// Nothing lives any more.
pub fn remove_live(bundle: &Bundle) {
    let _ = std::fs::remove_file(bundle.run_dir.0.join("live.json"));
    let _ = std::fs::remove_file(bundle.run_dir.0.join("monitor.sock"));
}

/// Appends an event about this container.
pub fn event(bundle: &Bundle, action: &str, more: &[(&str, String)]) {
    let mut attributes = bundle.labels.clone();
    attributes.insert("name".to_owned(), bundle.name.clone());
    attributes.insert("image".to_owned(), bundle.image_name.clone());
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let event = Event::new("container", action, bundle.id.as_str(), attributes, now());
    let mut line = wire::encode(&event);
    line.push(b'\n');
    let file = std::fs::File::options().create(true).append(true).open(&bundle.events_log);
    if let Ok(mut file) = file {
        let _ = file.write_all(&line);
    }
}

/// An exec's file name; ids come from API clients.
///
/// # Errors
/// The id is no plain word.
pub fn exec_path(run_dir: &Path, id: &str) -> Result<std::path::PathBuf> {
    if id.is_empty()
        || id.len() > 128
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        return Err(Error::new(Kind::NotFound, format!("No such exec instance: {id}")));
    }
    Ok(run_dir.join("execs").join(format!("{id}.json")))
}

/// Replaces an exec's state.
pub fn write_exec(bundle: &Bundle, id: &str, state: &crate::ExecState) {
    if let Ok(path) = exec_path(&bundle.run_dir.0, id) {
        if let Some(dir) = path.parent() {
            let _ = std::fs::create_dir(dir);
        }
        let _ = sys::fs::replace_file(path, &wire::encode(state), 0o600, false);
    }
}

/// Adds a warning to the run directory's `warnings`, for whoever started the container to show.
pub fn warning(bundle: &Bundle, text: &str) {
    let file = std::fs::File::options().create(true).append(true).open(bundle.run_dir.0.join("warnings"));
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{}", text.replace('\n', " "));
    }
}

/// The exit code that a failed start leaves: Docker's.
pub fn start_code(error: &Error) -> i32 {
    match error.kind() {
        Kind::CommandNotFound => 127,
        Kind::CannotExecute => 126,
        _ => 128,
    }
}
