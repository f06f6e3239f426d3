//! After a boot: what `--restart` promises is started again.

use model::container::{Lifecycle, RestartPolicy};
use model::{ContainerId, Result};

use crate::Engine;

impl Engine {
    /// Starts every container whose restart policy says so, oldest first, and brings those that ended with the machine
    /// to a proper end. Returns the ids with what came of each.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub fn restore(&self) -> Result<Vec<(ContainerId, Result<()>)>> {
        let mut all = self.containers()?;
        all.reverse();
        let mut started = Vec::new();
        for container in all {
            let ran = !container.state.started_at.is_never();
            let wanted = container.live.is_none()
                && ran
                && match container.lifecycle() {
                    Lifecycle::Restart(RestartPolicy::Always) => true,
                    Lifecycle::Restart(RestartPolicy::UnlessStopped) => !container.state.stopped_by_user,
                    Lifecycle::Restart(RestartPolicy::OnFailure { max_retries }) => {
                        !container.state.stopped_by_user
                            && container.state.exit_code != 0
                            && (*max_retries == 0 || container.state.restart_count < *max_retries)
                    }
                    Lifecycle::Keep | Lifecycle::RemoveOnExit => false,
                };
            if wanted {
                let id = container.spec.id.clone();
                let outcome = self.start_container(id.as_str()).map(drop);
                started.push((id, outcome));
            }
        }
        Ok(started)
    }
}
