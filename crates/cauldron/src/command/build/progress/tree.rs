//! A build as a tree on a terminal, drawn over in place: one write a drawing, no line cleared before it is written.

use super::track::{Step, Track};
use std::time::Instant;

/// Lines of what a step says, below it.
const LOG_LINES: usize = 6;

/// Sequences that begin a colour; empty for none.
pub struct Colors {
    run: String,
    error: String,
    cancel: String,
}

impl Colors {
    /// Of `NO_COLOR`, `TERM` and `BUILDKIT_COLORS` (`run=cyan:error=red:cancel=220,180,0`).
    pub fn from_environment() -> Self {
        let env = |name: &str| std::env::var(name).unwrap_or_default();
        if !env("NO_COLOR").is_empty() || env("TERM") == "dumb" {
            return Self { run: String::new(), error: String::new(), cancel: String::new() };
        }
        Self::parse(&env("BUILDKIT_COLORS"))
    }

    fn parse(text: &str) -> Self {
        let mut colors = Self { run: sequence("blue"), error: sequence("red"), cancel: sequence("yellow") };
        for (name, value) in text.split(':').filter_map(|pair| pair.split_once('=')) {
            let sequence = sequence(value);
            // One that does not exist changes nothing.
            match name.trim() {
                _ if sequence.is_empty() => {}
                "run" => colors.run = sequence,
                "error" => colors.error = sequence,
                "cancel" => colors.cancel = sequence,
                _ => {}
            }
        }
        colors
    }
}

/// A name of ANSI's eight, `light-NAME`, or `R,G,B`.
fn sequence(color: &str) -> String {
    const NAMES: [&str; 8] = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
    let color = color.trim().to_ascii_lowercase();
    let parts: Vec<u8> = color.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    if let [red, green, blue] = parts[..] {
        return format!("\x1b[38;2;{red};{green};{blue}m");
    }
    let (base, name) = color.strip_prefix("light-").map_or((30, color.as_str()), |name| (90, name));
    NAMES
        .iter()
        .position(|known| *known == name)
        .map_or_else(String::new, |at| format!("\x1b[{}m", base + at))
}

/// What stands on the terminal.
pub struct Tree {
    colors: Colors,
    /// Lines that were drawn and can be drawn over.
    drawn: usize,
}

impl Tree {
    /// Nothing drawn yet.
    pub fn new(colors: Colors) -> Self {
        Self { colors, drawn: 0 }
    }

    /// Draws over what stands there. `size` is rows and columns.
    pub fn draw(&mut self, track: &Track, now: Instant, size: Option<(u16, u16)>) -> String {
        let (rows, columns) = size.unwrap_or((24, 80));
        let room = usize::from(rows).saturating_sub(2).max(3);
        let mut lines = self.lines(track, now, usize::from(columns), true);
        if lines.len() > room {
            // The head stays, and of the rest what goes on.
            lines.drain(1..lines.len() - room + 1);
        }
        self.over(&lines)
    }

    /// The last drawing: every step, nothing that goes on.
    pub fn last(&mut self, track: &Track, now: Instant, size: Option<(u16, u16)>) -> String {
        let columns = size.map_or(80, |(_, columns)| usize::from(columns));
        let lines = self.lines(track, now, columns, false);
        let text = self.over(&lines);
        self.drawn = 0;
        text
    }

    /// Text above the tree: it stays.
    pub fn above(&mut self, text: &str) -> String {
        let text = format!("{}{}", self.back(), text.replace('\n', "\x1b[K\n"));
        self.drawn = 0;
        text + "\x1b[J"
    }

    fn back(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A\r", self.drawn) }
    }

    fn over(&mut self, lines: &[String]) -> String {
        // Hidden meanwhile, so that the cursor does not run through the picture.
        let mut out = format!("\x1b[?25l{}", self.back());
        for line in lines {
            out.push_str(line);
            out.push_str("\x1b[K\n");
        }
        self.drawn = lines.len();
        out + "\x1b[J\x1b[?25h"
    }

    fn lines(&self, track: &Track, now: Instant, columns: usize, live: bool) -> Vec<String> {
        let done = track.steps.iter().filter(|step| step.ended.is_some()).count();
        let all = track.steps.len();
        let failed = track.steps.iter().any(|step| step.error.is_some());
        let state = if done < all || live {
            ""
        } else if failed {
            " ERROR"
        } else {
            " FINISHED"
        };
        let took = now.saturating_duration_since(track.began).as_secs_f64();
        let mut lines = vec![cut(&format!("[+] Building {took:.1}s ({done}/{all}){state}"), columns)];
        for step in &track.steps {
            lines.push(self.step(step, now, columns));
            if live && step.ended.is_none() {
                let below = step.transfers.values().chain(&step.tail);
                let below: Vec<&String> = below.collect();
                for text in &below[below.len().saturating_sub(LOG_LINES)..] {
                    lines.push(cut(&format!(" => => # {text}"), columns));
                }
            }
        }
        lines
    }

    /// ` => [2/3] RUN make      1.2s`.
    fn step(&self, step: &Step, now: Instant, columns: usize) -> String {
        let mark = match (&step.error, step.cancelled, step.cached) {
            (Some(_), ..) => "ERROR ",
            (None, true, _) => "CANCELED ",
            (None, false, true) => "CACHED ",
            _ => "",
        };
        let time = format!(" {:.1}s", step.took(now).as_secs_f64());
        let room = columns.saturating_sub(time.len() + 1);
        let text = cut(&format!(" => {mark}{}", step.name), room);
        let padding = " ".repeat(room.saturating_sub(width(&text)));
        let color = match (step.ended.is_some(), &step.error, step.cancelled) {
            (_, Some(_), _) => &self.colors.error,
            (_, None, true) => &self.colors.cancel,
            (true, ..) => &self.colors.run,
            _ => "",
        };
        let end = if color.is_empty() { "" } else { "\x1b[0m" };
        format!("{color}{text}{padding}{time}{end}")
    }
}

/// Columns that a text takes, nearly: characters of East Asia take two.
fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

fn columns_of(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// So much of a text as fits.
fn cut(text: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = |c: &char| {
        let fits = columns_of(*c) <= left;
        left = left.saturating_sub(columns_of(*c));
        fits
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn a_tree_fits_its_terminal_and_is_drawn_over() {
        let began = Instant::now();
        let mut track = Track::new(began);
        for stage in 0..3u64 {
            let text = format!("RUN a long command of many words, number {stage}");
            let message = json!({ "step": { "stage": stage, "begin": { "text": text, "stage": "", "place": [1, 1] } } });
            track.take(&message, began);
        }
        track.take(&json!({ "step": { "stage": 0, "cached": true } }), began);
        track.take(&json!({ "step": { "stage": 0, "done": "" } }), began);
        track.take(&json!({ "step": { "stage": 1, "output": "said\n", "error": false } }), began);
        let now = began + Duration::from_secs(2);
        let mut tree = Tree::new(Colors { run: String::new(), error: String::new(), cancel: String::new() });
        let first = tree.draw(&track, now, Some((24, 30)));
        let lines: Vec<&str> = first.split('\n').map(|line| line.trim_end_matches("\x1b[K")).collect();
        assert_eq!(lines[0], "\x1b[?25l[+] Building 2.0s (1/3)");
        assert_eq!(lines[1], " => CACHED [1/1] RUN a l 0.0s");
        assert_eq!(lines[3], " => => # said");
        assert!(lines[1..5].iter().all(|line| width(line) <= 30), "{lines:?}");
        assert!(tree.draw(&track, now, Some((24, 30))).starts_with("\x1b[?25l\x1b[5A\r[+]"));
        // Too low for all of it: the head and the last lines.
        let low = tree.draw(&track, now, Some((5, 30)));
        assert_eq!(low.matches('\n').count(), 3, "{low:?}");
        track.fail(Some(1), "why", now);
        let last = tree.last(&track, now, Some((5, 30)));
        assert!(last.contains("(3/3) ERROR") && last.contains("=> ERROR [1/1]"), "{last:?}");
    }

    #[test]
    fn colors_by_name_and_number() {
        let colors = Colors::parse("run=light-green:error=1,2,3:cancel=nothing");
        assert_eq!((colors.run.as_str(), colors.error.as_str()), ("\x1b[92m", "\x1b[38;2;1;2;3m"));
        assert_eq!(colors.cancel, "\x1b[33m");
    }
}
