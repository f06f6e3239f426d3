//! `update`: other limits, another restart policy. They are kept beside the specification and applied at once.

use model::container::{Lifecycle, Resources};
use model::{Error, Result};
use runtime::Changed;

use super::rename::tell_monitor;
use crate::Engine;

/// What `update` changes; `None` and empty lists leave things as they are.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// Limits: those that are `Some` replace the present ones.
    pub resources: Resources,
    /// The restart policy; `Keep` is `no`.
    pub lifecycle: Option<Lifecycle>,
}

impl Engine {
    /// Changes a container's limits and restart policy.
    ///
    /// # Errors
    /// Docker's texts, or the kernel's refusal with the file it was about.
    pub fn update_container(&self, name: &str, update: &Update) -> Result<()> {
        let (mut container, _lock) = self.find_locked(name)?;
        if update.lifecycle.is_some() && *container.lifecycle() == Lifecycle::RemoveOnExit {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            )
            .within(format!("Cannot update container {}", container.id())));
        }
        let merged = merge(container.resources().clone(), &update.resources);
        if !fits(container.resources(), &update.resources, &merged) {
            return Err(Error::conflict(format!(
                "Cannot update container {}: Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
                container.id()
            )));
        }
        if container.live.is_some() {
            let (lifecycle, resources) = (update.lifecycle.clone(), Some(Box::new(merged.clone())));
            tell_monitor(&container, Changed { name: None, lifecycle, resources })
                .map_err(|error| error.within(format!("Cannot update container {}", container.id())))?;
        }
        container.changes.resources = Some(merged);
        if let Some(lifecycle) = &update.lifecycle {
            container.changes.lifecycle = Some(lifecycle.clone());
        }
        self.write_changes(&container)?;
        self.container_event(&container, "update", &[]);
        Ok(())
    }
}

/// Whether the limits of memory go together. As in Docker (moby `UpdateContainer`), more memory than memory and swap were
/// allowed so far wants the latter said anew, unlimited or not.
fn fits(old: &Resources, asked: &Resources, merged: &Resources) -> bool {
    let within = |memory: u64, swap: i64| u64::try_from(swap).is_ok_and(|swap| memory <= swap);
    match (asked.memory, asked.memory_swap) {
        (Some(memory), None) => within(memory, old.memory_swap.unwrap_or_default()),
        (None, Some(swap)) if swap > 0 => within(merged.memory.unwrap_or_default(), swap),
        _ => true,
    }
}

fn merge(mut base: Resources, over: &Resources) -> Resources {
    macro_rules! take {
        ($($field:ident),*) => { $( if over.$field.is_some() { base.$field.clone_from(&over.$field); } )* };
    }
    take!(
        memory,
        memory_swap,
        memory_reservation,
        memory_swappiness,
        nano_cpus,
        cpu_shares,
        cpu_period,
        cpu_quota,
        cpuset_cpus,
        cpuset_mems,
        pids_limit,
        blkio_weight
    );
    base
}
