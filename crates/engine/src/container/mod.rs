//! Containers: made, started, stopped, waited for, removed.
//!
//! A container is its directory, `containers/<id>/`: `spec.json` (never rewritten), `changes.json` (what was changed
//! after it was made: name, limits, restart policy, networks), `state.json` (atomic; the monitor's from launch to exit),
//! `request.json` (the `HostConfig` as it was asked, for inspect), `delivered/` (secrets and configs, in no inspect), `rw/`, the log and the files that are mounted on
//! /etc. Its name is `names/<name>`, a file that holds the id. Without `spec.json` a directory is no container yet.
//!
//! Lock: `flock(2)` on the directory itself, held for every change; a directory that was renamed away meanwhile is a
//! container that does not exist any more. Nothing holds it while it waits for a process. Readers take no lock: each
//! file is replaced atomically. Removal renames the directory to `trash/` first, so that name and id are free at once.

mod create;
mod deliver;
mod facts;
mod inspect;
pub(crate) mod known;
mod links;
mod list;
pub(crate) mod lookup;
mod mounts;
pub(crate) mod names;
mod prune;
pub(crate) mod reap;
mod remove;
mod rename;
mod restart;
mod restore;
pub(crate) mod start;
mod stop;
mod update;
mod wait;

pub use create::{Created, Request, VolumeOptions};
pub use deliver::Delivery;
pub(crate) use inspect::tree_bytes;
pub use inspect::{MountPoint, NetworkView};
pub use known::Listed;
pub use list::ListOptions;
pub use lookup::{Changes, Container, ContainerLock};
pub(crate) use lookup::{Specs, read_json, write_json};
pub(crate) use names::fill_random;
pub use names::is_valid as is_valid_name;
pub use net::{Endpoint, PublishedPort};
pub use prune::Pruned;
pub use remove::RemoveOptions;
pub use update::Update;
pub use wait::{BLIND, Condition, LOOK, Waiter};
