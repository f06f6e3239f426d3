//! Health checks: when a probe runs and what becomes of its result. The decisions are `model::health`'s.

use model::bundle::Process;
use model::state::Probe;
use std::time::{Duration, Instant};

use super::{MAIN, Monitor, exec, record};

impl Monitor {
    fn since_start(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }
    /// Plans the next probe.
    pub(super) fn schedule_probe(&mut self) {
        let (Some(check), Some(health)) = (&self.bundle.healthcheck, &self.state.health) else { return };
        let wait = model::health::next_interval(health, check, self.since_start());
        self.next_probe = Some(Instant::now() + Duration::from_nanos(wait as u64));
    }
    /// Starts a probe that is due, kills one that takes too long.
    pub(super) fn health_on_time(&mut self, now: Instant) {
        for session in self.sessions.iter_mut().flatten() {
            if let Some((probe, deadline)) = &mut session.probe
                && now >= *deadline
                && probe.exit_code == 0
            {
                probe.exit_code = -1;
                let _ = sys::process::signal(&session.pidfd, 9);
                *deadline = now + Duration::from_secs(3600);
            }
        }
        if self.next_probe.is_some_and(|at| now >= at) && self.sessions[MAIN].is_some() {
            self.next_probe = None;
            self.probe(now);
        }
    }
    fn probe(&mut self, now: Instant) {
        let Some(check) = &self.bundle.healthcheck else { return };
        let (Some(argv), Some(main)) = (model::health::command(check), &self.sessions[MAIN]) else { return };
        let process = Process {
            argv,
            tty: false,
            open_stdin: false,
            create_cwd: true,
            console_size: None,
            ..self.bundle.process.clone()
        };
        let probe = Probe { start: record::now(), ..Probe::default() };
        let timeout = Duration::from_nanos(u64::try_from(check.timeout).unwrap_or(0));
        match exec::begin(main, &self.cgroup, &process) {
            Ok(mut session) => {
                session.probe = Some((probe, now + timeout));
                self.add_session(session);
            }
            Err(error) => self.probed(Probe { output: error.to_string(), ..probe }, 1),
        }
    }
    /// A probe has ended.
    pub(super) fn probed(&mut self, mut probe: Probe, code: i32) {
        let since = self.since_start();
        let (Some(check), Some(health)) = (&self.bundle.healthcheck, &mut self.state.health) else { return };
        probe.end = record::now();
        if probe.exit_code == -1 {
            let seconds = check.timeout as f64 / 1e9;
            probe.output = format!("Health check exceeded timeout ({seconds}s)");
        } else {
            probe.exit_code = code;
        }
        let changed = model::health::record(health, check, probe, since);
        let status = health.status.clone();
        if self.live.pid != 0 {
            let _ = record::write_state(&self.bundle, &self.state, record::Wait::No);
            if changed {
                record::event(&self.bundle, &format!("health_status: {status}"), &[]);
            }
            self.schedule_probe();
        }
    }
}
