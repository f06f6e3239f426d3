//! Restarting by a person.

use model::Result;

use crate::Engine;

impl Engine {
    /// Stops a container, where it runs, and starts it again. One with `--rm` stays, as in Docker: it is stopped and started
    /// under one name.
    ///
    /// # Errors
    /// Those of stop and start.
    pub fn restart_container(
        &self,
        name: &str,
        seconds: Option<i64>,
        signal: Option<&str>,
    ) -> Result<Vec<String>> {
        let id = self.container_id(name)?;
        let signal = signal.filter(|text| !text.is_empty()).map(model::signal::parse).transpose()?;
        let container = self.find(id.as_str())?;
        if container.live.is_some() {
            self.stop_found(&container, seconds, signal)?;
        }
        let (container, _lock) = self.find_locked(id.as_str())?;
        let warnings = match container.live {
            None => self.start_found(container)?,
            Some(_) => Vec::new(),
        };
        let container = self.load(&id)?;
        self.container_event(&container, "restart", &[]);
        Ok(warnings)
    }
}
