//! The doctor: finds what a crash, a reboot or a person left behind, says why it thinks so, and mends it where asked.
//!
//! Ordinary commands recover what they meet; nobody needs the doctor to go on. It looks at everything at once: records on
//! disk against the kernel (processes, mounts, control groups, interfaces, the firewall), and one record against
//! another. What somebody works on just now is locked, and is nobody's leftover: whatever is busy is left alone, and
//! processes that still give back what a finished container held are waited for.

pub(crate) mod leftovers;

use model::finding::{Examination, Finding};
use model::state::State;
use model::{ContainerId, Kind, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::Engine;
use crate::container::lookup::read_json;

/// How long processes that are about to end are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Examine {
    /// Mend what is found.
    pub fix: bool,
    /// Read every blob and compare it with its digest.
    pub verify: bool,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
    /// What could not be looked at because others were at work, in words.
    pub skipped: Vec<String>,
    /// Blobs and bytes that were verified.
    pub verified: Option<(u64, u64)>,
}

impl Engine {
    /// Examines everything of this root.
    ///
    /// # Errors
    /// A directory of ours, or the kernel's lists, cannot be read at all.
    pub fn doctor(&self, examine: Examine) -> Result<Report> {
        self.await_servants()?;
        let mut look = Examination::new(examine.fix);
        let mut report = Report::default();
        let quiet = self.check_half_made(&mut look)?;
        self.check_containers(&mut look)?;
        self.check_names(&mut look)?;
        self.check_run_dirs(&mut look)?;
        self.check_trash(&mut look)?;
        self.check_build(&mut look)?;
        let lives = |id: &ContainerId| self.lives(id);
        let parents = self.cgroup_parents()?;
        runtime::check::check(&mut look, &self.roots.run_root, &parents, &|id| self.is_known(id), &lives)?;
        self.check_mounts(&mut look)?;
        self.check_drafts(&mut look)?;
        let release = |id: &ContainerId| match self.try_lock_container(id)? {
            // Nobody can start it now.
            Some(_lock) if self.lives_now(id) => Ok(()),
            None if self.store.layout.container(id).exists() => Ok(()),
            _ => self.networks.release(id),
        };
        self.networks.examine(&mut look, &lives, &release)?;
        if !self.store.check(&mut look, &|| self.layers_in_use())? || !quiet {
            report
                .skipped
                .push("the store: others kept writing to it; look again when it is quiet".to_owned());
        }
        if examine.verify {
            report.verified = Some(self.store.verify(&mut look)?);
        }
        report.findings = look.findings();
        Ok(report)
    }
    /// Waits for processes that give back what finished containers held, and for monitors on their way out.
    fn await_servants(&self) -> Result<()> {
        let begun = Instant::now();
        for servant in runtime::check::servants(&self.roots.run_root)? {
            let over = match &servant.run_dir {
                Some(run_dir) => {
                    run_dir.starts_with(&self.roots.run_root)
                        && runtime::live(run_dir).is_ok_and(|live| live.is_none())
                }
                None => true,
            };
            if let (true, Ok(pidfd)) = (over, sys::process::pidfd(servant.pid)) {
                // One that does not end shows up among the findings.
                let _ = sys::process::wait_end(&pidfd, PATIENCE.saturating_sub(begun.elapsed()));
            }
        }
        Ok(())
    }
    /// Whether a container (or a build step) runs, or somebody has it in hand.
    fn lives(&self, id: &ContainerId) -> bool {
        self.lives_now(id)
            || self.step_is_busy(id)
            || (self.store.layout.container(id).exists() && matches!(self.try_lock_container(id), Ok(None)))
    }
    fn lives_now(&self, id: &ContainerId) -> bool {
        runtime::live(&self.store.layout.run(id)).is_ok_and(|live| live.is_some())
    }
    /// Whether this root has a container or a build step of this id, whatever state it is in.
    fn is_known(&self, id: &ContainerId) -> bool {
        let trash = self.store.layout.trash().join(id.as_str());
        self.store.layout.container(id).exists() || trash.exists() || self.step_dir(id).exists()
    }
    /// The control groups that this root's containers lie in.
    fn cgroup_parents(&self) -> Result<BTreeSet<String>> {
        let mut parents = BTreeSet::from(["cauldron".to_owned()]);
        for id in self.container_ids()? {
            if let Ok(container) = self.load(&id) {
                parents.extend(container.cgroup().rsplit_once('/').map(|(parent, _)| parent.to_owned()));
            }
        }
        Ok(parents)
    }
    /// Containers whose record and reality differ.
    fn check_containers(&self, look: &mut Examination) -> Result<()> {
        for id in self.container_ids()? {
            // Held for the look only: mending takes it itself.
            let Some(lock) = self.try_lock_container(&id)? else { continue };
            let container = match self.load(&id) {
                Ok(container) => container,
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => {
                    look.manual(("container", &id), error, "remove the damaged directory of this container");
                    continue;
                }
            };
            let object = format!("{} ({})", id.short(), container.name());
            if let Err(error) = read_json::<State>(&container.dir.join("state.json")) {
                let remedy = "replace its record of what became of it by one that says nothing";
                look.found(("container", &object), error, remedy, || self.write_state(&container));
            }
            drop(lock);
            if container.live.is_some() {
                continue;
            }
            if container.ended_unseen() {
                let problem = "it is recorded as running; its monitor was killed, or the machine went down";
                look.found(
                    ("container", object),
                    problem,
                    "record its end and give back what it held",
                    || self.reap(&id),
                );
            } else if container.run_dir.join("bundle.json").exists() {
                let problem = "it does not run, and what its last run held was not given back";
                look.found(("container", object), problem, "give it back", || self.reap(&id));
            } else if *container.lifecycle() == model::container::Lifecycle::RemoveOnExit
                && !container.state.finished_at.is_never()
            {
                let problem = "it was to be removed at its end (--rm)";
                look.found(("container", object), problem, "remove it", || self.reap(&id));
            }
        }
        Ok(())
    }
}
