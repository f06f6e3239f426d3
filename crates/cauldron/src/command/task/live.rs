//! What a run looks like while it goes on: on a terminal a table that is drawn over, below it nothing.

use crate::session::Session;
use crate::stream::is_terminal;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;
use task::run::{Ended, Event};

/// Shows events.
pub struct Live {
    session: Session,
    quiet: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The process's output is the command's.
    through: bool,
    total: usize,
    done: usize,
    failed: usize,
    bars: Option<(MultiProgress, ProgressBar)>,
    running: HashMap<String, ProgressBar>,
}

impl Live {
    pub fn new(session: &Session, quiet: bool) -> Self {
        Self { session: session.clone(), quiet, state: RefCell::default() }
    }

    /// Takes the table off the terminal.
    pub fn finish(&self) {
        let mut state = self.state.borrow_mut();
        state.running.clear();
        if let Some((bars, total)) = state.bars.take() {
            total.finish_and_clear();
            let _ = bars.clear();
        }
    }

    pub fn show(&self, event: &Event) {
        let state = &mut *self.state.borrow_mut();
        match event {
            Event::Warning(text) => state.above(|| self.session.say(&format!("WARNING: {text}"))),
            _ if self.quiet => {}
            Event::Targets(names) => state.begin(names),
            Event::Output { stream, bytes, .. } if state.through => {
                let _ = match stream {
                    2 => std::io::stderr().write_all(bytes),
                    _ => self.session.raw(bytes).map_err(|_| std::io::ErrorKind::BrokenPipe.into()),
                };
            }
            Event::Output { .. } => {}
            Event::Started { target, attempt } => state.started(target, *attempt),
            Event::Ended(ended) => {
                state.ended(ended);
                if let Some(text) = complaint(ended, state.through) {
                    state.above(|| self.session.say(&text));
                }
            }
        }
    }
}

/// What is said about a failed try.
fn complaint(ended: &Ended, through: bool) -> Option<String> {
    if ended.code == 0 {
        return None;
    }
    let retry =
        ended.retry.map(|wait| format!("; next try in {}", task::duration::show(wait))).unwrap_or_default();
    if through {
        return (ended.error.is_some() || ended.retry.is_some())
            .then(|| format!("{}{retry}", ended.reason()));
    }
    let lines: String = ended.last_lines.lines().map(|line| format!("\n    {line}")).collect();
    Some(format!("{} (try {}){retry}{lines}", ended.reason(), ended.attempt))
}

impl State {
    fn begin(&mut self, names: &[String]) {
        self.through = names.iter().all(String::is_empty);
        self.total = names.len();
        if self.through || !is_terminal(std::io::stderr()) {
            return;
        }
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(self.total as u64));
        total.set_style(style("{bar:30} {pos}/{len} targets {msg}"));
        total.tick();
        self.bars = Some((bars, total));
    }

    fn started(&mut self, target: &str, attempt: u64) {
        let Some((bars, total)) = &self.bars else { return };
        let bar = bars.insert_before(total, ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix:24} {elapsed:>4} {msg}"));
        bar.set_prefix(target.to_owned());
        if attempt > 1 {
            bar.set_message(format!("try {attempt}"));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(target.to_owned(), bar);
    }

    fn ended(&mut self, ended: &Ended) {
        if let Some(bar) = self.running.remove(&ended.target) {
            bar.finish_and_clear();
        }
        if ended.retry.is_some() {
            return;
        }
        self.done += 1;
        self.failed += usize::from(ended.code != 0);
        if let Some((_, total)) = &self.bars {
            total.set_position(self.done as u64);
            if self.failed > 0 {
                total.set_message(format!("{} failed", self.failed));
            }
        }
    }

    /// Says something above the table.
    fn above(&self, say: impl FnOnce()) {
        match &self.bars {
            Some((bars, _)) => bars.suspend(say),
            None => say(),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
