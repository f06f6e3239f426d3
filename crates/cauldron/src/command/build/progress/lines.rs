//! A build as lines: `#5 [2/3] RUN make`, `#5 0.123 text`, `#5 DONE 0.3s`, `#5 CACHED`.

use super::track::{Change, Track};

/// Lines of a failing step that are shown.
const TAIL: usize = 20;

/// Prints changes; remembers which step was spoken of last.
#[derive(Default)]
pub struct Printer {
    last: Option<usize>,
}

impl Printer {
    /// The text for these changes.
    pub fn print(&mut self, track: &Track, changes: &[Change]) -> String {
        let mut out = String::new();
        for change in changes {
            match change {
                Change::Began(index) => self.turn(track, *index, &mut out),
                Change::Said(index, line, _, at) => {
                    self.turn(track, *index, &mut out);
                    // What is done with the result has no times of its own, as with BuildKit.
                    let at = if track.steps[*index].own {
                        String::new()
                    } else {
                        format!("{:.3} ", at.as_secs_f64())
                    };
                    out.push_str(&format!("#{} {at}{line}\n", index + 1));
                }
                Change::Ended(index) => {
                    self.turn(track, *index, &mut out);
                    let step = &track.steps[*index];
                    let end = match (&step.error, step.cached, step.cancelled) {
                        (Some(error), ..) => format!("ERROR: {error}"),
                        (None, true, _) => "CACHED".to_owned(),
                        (None, false, true) => "CANCELED".to_owned(),
                        _ => {
                            format!("DONE {:.1}s", step.took(step.ended.unwrap_or(step.began)).as_secs_f64())
                        }
                    };
                    out.push_str(&format!("#{} {end}\n", index + 1));
                }
                Change::Text(text) => out.push_str(text),
            }
        }
        out
    }

    /// Says of which step the next lines are, where that was another one.
    fn turn(&mut self, track: &Track, index: usize, out: &mut String) {
        if self.last == Some(index) {
            return;
        }
        if self.last.is_some() {
            out.push('\n');
        }
        self.last = Some(index);
        out.push_str(&format!("#{} {}\n", index + 1, track.steps[index].name));
    }
}

/// The last words of a step that failed.
pub fn tail(track: &Track, index: usize) -> String {
    let step = &track.steps[index];
    let mut out = format!("------\n > {}:\n", step.name);
    for line in step.tail.iter().skip(step.tail.len().saturating_sub(TAIL)) {
        out.push_str(line);
        out.push('\n');
    }
    out + "------\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::{Duration, Instant};

    #[test]
    fn lines_say_whose_they_are() {
        let now = Instant::now();
        let (mut track, mut printer) = (Track::new(now), Printer::default());
        let mut out = String::new();
        let mut take = |message: Value, after: u64| {
            let changes = track.take(&message, now + Duration::from_millis(after));
            out.push_str(&printer.print(&track, &changes));
        };
        let begin = |stage: u64, text: &str| json!({ "step": { "stage": stage, "begin": { "text": text, "stage": "s", "place": [1, 2] } } });
        let step = |stage: u64, key: &str, value: Value| json!({ "step": { "stage": stage, key: value } });
        take(begin(0, "RUN a"), 0);
        take(begin(1, "RUN b"), 0);
        take(step(0, "output", json!("hello\n")), 1250);
        take(step(1, "cached", json!(true)), 1300);
        take(step(1, "done", json!("")), 1300);
        take(step(0, "done", json!("")), 2000);
        assert_eq!(
            out,
            "#1 [s 1/2] RUN a\n\n#2 [s 1/2] RUN b\n\n#1 [s 1/2] RUN a\n#1 1.250 hello\n\n#2 [s 1/2] RUN b\n#2 CACHED\n\n#1 [s 1/2] RUN a\n#1 DONE 2.0s\n"
        );
        assert_eq!(tail(&track, 0), "------\n > [s 1/2] RUN a:\nhello\n------\n");
    }
}
