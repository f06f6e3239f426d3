//! Being told to end: SIGINT, SIGTERM, SIGHUP.
//!
//! Whoever has something to put in order first takes a [`Stop`] and sees it become true. A handler that was installed once stays
//! installed, so while nobody holds the signals any more [`unheld`] ends the command, as they would have ended the process.

use crate::fail::Failure;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};

static TOLD: OnceLock<watch::Sender<bool>> = OnceLock::new();
static HOLDERS: AtomicUsize = AtomicUsize::new(0);
static UNHELD: Notify = Notify::const_new();
static NUMBER: AtomicU8 = AtomicU8::new(0);

/// The signals are somebody's while this lives.
#[derive(Debug)]
pub struct Held(());

impl Held {
    pub fn new() -> Self {
        HOLDERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
    /// Whether nobody else holds them.
    pub fn alone(&self) -> bool {
        HOLDERS.load(Ordering::Relaxed) == 1
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Becomes true when we are told to end.
pub struct Stop {
    told: watch::Receiver<bool>,
    _held: Held,
}

impl Stop {
    pub fn told(&self) -> watch::Receiver<bool> {
        self.told.clone()
    }
    /// Does something unless we are told to end before it is done.
    pub async fn unless<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut told = self.told();
        tokio::select! {
            biased;
            // True, or nobody is left who could say so.
            _ = told.wait_for(|told| *told) => Err(Failure::new(task::run::STOPPED)),
            done = work => done,
        }
    }
}

/// Takes the signals.
pub fn on_signal() -> Result<Stop, Failure> {
    let held = Held::new();
    if let Some(told) = TOLD.get() {
        return Ok(Stop { told: told.subscribe(), _held: held });
    }
    let (sender, told) = watch::channel(false);
    for (number, kind) in
        [(1, SignalKind::hangup()), (2, SignalKind::interrupt()), (15, SignalKind::terminate())]
    {
        let mut signals = signal(kind).map_err(|error| Failure::new(format!("wait for signals: {error}")))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if HOLDERS.load(Ordering::Relaxed) == 0 {
                    NUMBER.store(number, Ordering::Relaxed);
                    UNHELD.notify_one();
                }
                sender.send_replace(true);
            }
        });
    }
    let _ = TOLD.set(sender);
    Ok(Stop { told, _held: held })
}

/// Waits for a signal that nobody holds: its number. Where [`on_signal`] was never called the process just ends.
pub async fn unheld() -> u8 {
    UNHELD.notified().await;
    NUMBER.load(Ordering::Relaxed)
}
