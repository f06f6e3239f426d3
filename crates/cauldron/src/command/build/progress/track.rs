//! Steps of a build, numbered as they begin, with what they said last. Pure: times are passed in.

use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Lines that are kept of each step.
const LINES: usize = 32;
/// Bytes of one line that are kept.
const LINE_BYTES: usize = 4096;

/// One step.
pub struct Step {
    /// `[builder 2/3] RUN make`.
    pub name: String,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Option<Instant>,
    /// It was found in the cache.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// It was cancelled because another one failed.
    pub cancelled: bool,
    /// Its last lines, whole ones.
    pub tail: VecDeque<String>,
    /// A line that has not ended, of each stream.
    partial: [String; 2],
    /// It is no step of a Dockerfile but what is done with the result.
    pub own: bool,
    /// Transfers below it: how far each is.
    pub transfers: BTreeMap<String, String>,
}

impl Step {
    /// How long it has taken until now.
    pub fn took(&self, now: Instant) -> Duration {
        self.ended.unwrap_or(now).saturating_duration_since(self.began)
    }
}

/// Something to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A step began.
    Began(usize),
    /// A step said a line; on standard error, and how long after its beginning.
    Said(usize, String, bool, Duration),
    /// A step is over.
    Ended(usize),
    /// Text that belongs to no step.
    Text(String),
}

impl Change {
    /// What belongs to no step.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A build so far.
pub struct Track {
    /// The steps, in the order in which they began.
    pub steps: Vec<Step>,
    /// When the build began.
    pub began: Instant,
    /// The step that each stage is at.
    stages: BTreeMap<u64, usize>,
    /// The step that transfers belong to.
    pulling: Option<usize>,
    /// What this program or the engine does after the stages.
    own: Option<usize>,
}

impl Track {
    /// Nothing has begun.
    pub fn new(now: Instant) -> Self {
        Self { steps: Vec::new(), began: now, stages: BTreeMap::new(), pulling: None, own: None }
    }

    /// The step that a stage is at.
    pub fn of_stage(&self, stage: u64) -> Option<usize> {
        self.stages.get(&stage).copied()
    }

    /// Takes a message of the engine.
    pub fn take(&mut self, message: &Value, now: Instant) -> Vec<Change> {
        if message["step"].is_object() {
            return self.step(&message["step"], now);
        }
        if let Some(id) = message["aux"]["ID"].as_str() {
            let mut changes = self.begin_own("exporting to image", now);
            changes.extend(self.note_own(&format!("writing image {id}")));
            return changes;
        }
        if let Some(text) = message["stream"].as_str() {
            if self.own.is_none() {
                return vec![Change::Text(text.to_owned())];
            }
            return match text.trim_end().strip_prefix("Successfully tagged ") {
                Some(name) => self.note_own(&format!("naming to {name}")),
                None if text.starts_with("Successfully built ") => Vec::new(),
                None => self.note_own(text.trim_end()),
            };
        }
        match message["status"].as_str() {
            Some(status) => self.transfer(message, status, now),
            None => Vec::new(),
        }
    }

    fn step(&mut self, step: &Value, now: Instant) -> Vec<Change> {
        let Some(stage) = step["stage"].as_u64() else { return Vec::new() };
        if step["begin"].is_object() {
            let mut changes = self.end(stage, now);
            let begin = &step["begin"];
            if let Some(place) = begin["place"].as_array() {
                let name = title(begin, place);
                self.stages.insert(stage, self.steps.len());
                if begin["place"][0] == 1 {
                    self.pulling = Some(self.steps.len());
                }
                changes.push(self.begin(name, now));
            }
            return changes;
        }
        let Some(&index) = self.stages.get(&stage) else { return Vec::new() };
        if step["cached"] == true {
            self.steps[index].cached = true;
        } else if let Some(text) = step["output"].as_str() {
            return self.say(index, text, step["error"] == true, now);
        } else if let Some(text) = step["note"].as_str() {
            return self.say(index, text, true, now);
        } else if step["done"].is_string() {
            return self.end(stage, now);
        }
        Vec::new()
    }

    fn transfer(&mut self, message: &Value, status: &str, now: Instant) -> Vec<Change> {
        let Some(index) = self.own.or(self.pulling) else { return Vec::new() };
        let id = message["id"].as_str().unwrap_or_default();
        let detail = &message["progressDetail"];
        if let Some(current) = detail["current"].as_i64() {
            let total = detail["total"].as_i64().filter(|total| *total > 0);
            let size = crate::render::size::human;
            let far = total.map_or(size(current), |total| format!("{} / {}", size(current), size(total)));
            self.steps[index].transfers.insert(id.to_owned(), format!("{id} {status} {far}"));
            return Vec::new();
        }
        self.steps[index].transfers.remove(id);
        let text = if id.is_empty() { format!("{status}\n") } else { format!("{id}: {status}\n") };
        self.say(index, &text, false, now)
    }

    fn begin(&mut self, name: String, now: Instant) -> Change {
        self.steps.push(Step {
            name,
            began: now,
            ended: None,
            cached: false,
            error: None,
            cancelled: false,
            tail: VecDeque::new(),
            partial: Default::default(),
            own: false,
            transfers: BTreeMap::new(),
        });
        Change::Began(self.steps.len() - 1)
    }

    /// Lines as they end.
    fn say(&mut self, index: usize, text: &str, error: bool, now: Instant) -> Vec<Change> {
        let step = &mut self.steps[index];
        let mut changes = Vec::new();
        for piece in text.split_inclusive('\n') {
            let partial = &mut step.partial[usize::from(error)];
            partial.push_str(piece);
            if !piece.ends_with('\n') && partial.len() < LINE_BYTES {
                continue;
            }
            let line = std::mem::take(partial);
            changes.push(step.line(index, line.trim_end_matches(['\n', '\r']), error, now));
        }
        changes
    }

    fn end(&mut self, stage: u64, now: Instant) -> Vec<Change> {
        self.stages.remove(&stage).map_or_else(Vec::new, |index| self.close(index, now))
    }

    fn close(&mut self, index: usize, now: Instant) -> Vec<Change> {
        let step = &mut self.steps[index];
        let mut changes = step.flush(index, now);
        step.ended = Some(now);
        step.transfers.clear();
        changes.push(Change::Ended(index));
        changes
    }

    /// Something that is done after the stages; what was done before it is over.
    pub fn begin_own(&mut self, name: &str, now: Instant) -> Vec<Change> {
        let mut changes = self.end_own(now, false);
        self.own = Some(self.steps.len());
        changes.push(self.begin(name.to_owned(), now));
        self.steps.iter_mut().last().into_iter().for_each(|step| step.own = true);
        changes
    }

    /// A line about it.
    pub fn note_own(&mut self, text: &str) -> Vec<Change> {
        let Some(index) = self.own else { return Vec::new() };
        let began = self.steps[index].began;
        self.say(index, &format!("{text}\n"), false, began)
    }

    /// It is over.
    pub fn end_own(&mut self, now: Instant, failed: bool) -> Vec<Change> {
        let Some(index) = self.own.take() else { return Vec::new() };
        if failed {
            self.steps[index].error = Some("failed".to_owned());
        }
        self.close(index, now)
    }

    /// The build has failed, in this step if it is known: what goes on is over.
    pub fn fail(&mut self, failing: Option<usize>, why: &str, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let open: Vec<usize> =
            (0..self.steps.len()).filter(|index| self.steps[*index].ended.is_none()).collect();
        for index in open {
            match failing == Some(index) {
                true => self.steps[index].error = Some(why.to_owned()),
                false => self.steps[index].cancelled = true,
            }
            changes.extend(self.close(index, now));
        }
        changes
    }
}

impl Step {
    fn line(&mut self, index: usize, text: &str, error: bool, now: Instant) -> Change {
        let line = printable(text);
        self.tail.push_back(line.clone());
        if self.tail.len() > LINES {
            self.tail.pop_front();
        }
        Change::Said(index, line, error, now.saturating_duration_since(self.began))
    }

    fn flush(&mut self, index: usize, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for stream in [0, 1] {
            let rest = std::mem::take(&mut self.partial[stream]);
            if !rest.is_empty() {
                changes.push(self.line(index, &rest, stream == 1, now));
            }
        }
        changes
    }
}

/// What a terminal shows of a line: after the last carriage return, without controls that would move the cursor. Colours
/// stay out too: what a container prints is not to be trusted with the terminal.
fn printable(text: &str) -> String {
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\x1b' => {
                // A control sequence ends with a letter (ECMA-48, 5.4).
                if characters.clone().next() == Some('[') {
                    let _ = characters.find(|c| c.is_ascii_alphabetic());
                }
            }
            '\t' => out.push_str("    "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// `[builder 2/3] RUN make`.
fn title(begin: &Value, place: &[Value]) -> String {
    let text = begin["text"].as_str().unwrap_or_default();
    let stage = begin["stage"].as_str().unwrap_or_default();
    let number = |at: usize| place.get(at).and_then(Value::as_u64).unwrap_or_default();
    let of = format!("{}/{}", number(0), number(1));
    let stage = if stage.is_empty() { of } else { format!("{stage} {of}") };
    // One line, whatever it held.
    let text: Vec<&str> = text.split_whitespace().collect();
    printable(&format!("[{stage}] {}", text.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn begin(stage: u64, text: &str, place: [u64; 2]) -> Value {
        json!({ "step": { "stage": stage, "begin": { "text": text, "stage": "", "place": place } } })
    }

    #[test]
    fn steps_are_numbered_as_they_begin_and_lines_are_whole() {
        let now = Instant::now();
        let mut track = Track::new(now);
        assert_eq!(track.take(&begin(0, "FROM a", [1, 2]), now), [Change::Began(0)]);
        assert_eq!(track.take(&begin(1, "FROM  b", [1, 1]), now), [Change::Began(1)]);
        let said = |text: &str| Change::Said(0, text.to_owned(), false, Duration::ZERO);
        let output = |text: &str| json!({ "step": { "stage": 0, "output": text, "error": false } });
        assert_eq!(track.take(&output("one\ntw"), now), [said("one")]);
        assert_eq!(track.take(&output("o\nrest"), now), [said("two")]);
        let done = json!({ "step": { "stage": 0, "done": "abc" } });
        assert_eq!(track.take(&done, now), [said("rest"), Change::Ended(0)]);
        assert_eq!(track.steps[1].name, "[1/1] FROM b");
        // A step that makes no files is not shown, and what it says neither.
        let hidden =
            json!({ "step": { "stage": 0, "begin": { "text": "ENV a=b", "stage": "", "place": null } } });
        assert_eq!(track.take(&hidden, now), []);
        assert_eq!(track.take(&done, now), []);
        assert_eq!(track.fail(None, "why", now), [Change::Ended(1)]);
        assert!(track.steps[1].cancelled);
    }

    #[test]
    fn a_container_does_not_move_the_cursor() {
        assert_eq!(printable("\x1b[31mred\x1b[0m\x07 10%\r20%\tx\x1b[2A"), "20%    x");
    }
}
