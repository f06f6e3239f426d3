//! The watch over the engine's firewall: one monitor of an engine, the one that has the lock, hears of changes to the
//! machine's rules. Where somebody took the engine's own, or rebuilt chains that must let containers through, it executes
//! the command that restores them. No daemon is needed for that, and no other monitor wakes up.

use model::error::Context as _;
use model::{Error, Result};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use sys::fs::Lock;
use sys::netlink::nft::{Change, INET, Watch};
use sys::process::Forked;

use super::Monitor;
use super::poll::{self, Token};

/// Chains of other programs (iptables, Docker, ufw, firewalld) in which containers need a rule.
const FOREIGN: [(&[u8], &[u8]); 3] =
    [(b"filter", b"FORWARD"), (b"filter", b"DOCKER-USER"), (b"firewalld", b"filter_FORWARD")];
/// From the first sign to the restoration: whoever reloads a firewall is not done with one change.
const SETTLE: Duration = Duration::from_millis(200);

/// The watch, where this monitor has it.
#[derive(Default)]
pub struct Watching {
    watch: Option<(Watch, Lock)>,
    due: Option<Instant>,
    restoring: Option<(i32, OwnedFd)>,
}

impl Watching {
    /// When the rules are to be restored.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.restoring.is_none())
    }
}

impl Monitor {
    /// Begins to watch, unless somebody does or the container needs no rules.
    pub(super) fn watch_firewall(&mut self) -> Result<()> {
        let Some(ours) = &self.bundle.firewall else {
            return Err(Error::invalid("a container without networks needs no firewall"));
        };
        if self.firewall.watch.is_some() {
            return Ok(());
        }
        let path = &ours.lock.0;
        let Some(lock) = Lock::try_exclusive(path).context(|| format!("lock {}", path.display()))? else {
            return Ok(());
        };
        let watch = Watch::new().context(|| "watch the firewall")?;
        self.poll.add(&watch, Token::Firewall, poll::IN).context(|| "watch the firewall")?;
        self.firewall.watch = Some((watch, lock));
        Ok(())
    }
    pub(super) fn firewall_changed(&mut self) {
        let (Some((watch, _)), Some(ours)) = (&self.firewall.watch, &self.bundle.firewall) else { return };
        let lost = watch.any(|change: Change<'_>| {
            let own = change.gone && change.family == INET && change.table == ours.table.as_bytes();
            // A rule that was added, ours among them, is no reason.
            let rebuilt = FOREIGN.contains(&(change.table, change.chain)) && (change.gone || change.is_chain);
            own || rebuilt
        });
        if lost && self.firewall.due.is_none() {
            self.firewall.due = Some(Instant::now() + SETTLE);
        }
    }
    pub(super) fn firewall_on_time(&mut self, now: Instant) {
        if self.firewall.due().is_none_or(|at| now < at) {
            return;
        }
        self.firewall.due = None;
        // Where no process can be made, the next change is the next chance.
        if let Ok(Some((pid, pidfd))) = self.restore_firewall() {
            let _ = self.poll.add(&pidfd, Token::Restore, poll::IN);
            self.firewall.restoring = Some((pid, pidfd));
        }
    }
    fn restore_firewall(&self) -> std::io::Result<Option<(i32, OwnedFd)>> {
        let Some(ours) = &self.bundle.firewall else { return Ok(None) };
        let text = |text: &String| CString::new(text.as_bytes()).unwrap_or_default();
        let argv: Vec<CString> = ours.restore.iter().map(text).collect();
        let env: Vec<CString> =
            self.bundle.on_exit_env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect();
        let Some(program) = argv.first() else { return Ok(None) };
        match sys::process::fork(0, None)? {
            Forked::Parent(pid, pidfd) => Ok(Some((pid, pidfd))),
            Forked::Child => {
                sys::process::reset_signals();
                let _ = sys::process::close_on_exec_from(3);
                sys::process::execute(program, &argv, &env);
                sys::process::exit_now(125)
            }
        }
    }
    pub(super) fn firewall_restored(&mut self) {
        let Some((pid, pidfd)) = &self.firewall.restoring else { return };
        if let Ok(Some(_)) = sys::process::wait(*pid, false) {
            self.poll.remove(pidfd);
            self.firewall.restoring = None;
        }
    }
}
