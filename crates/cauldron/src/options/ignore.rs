//! `.dockerignore`: which files of a context are not sent. Only for contexts that are sent: in process the engine reads them itself.

/// Patterns, the last match of which decides.
pub struct Ignore {
    rules: Vec<(Vec<String>, bool)>,
}

impl Ignore {
    /// Reads a file's text.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).filter_map(
                |line| {
                    let (negated, pattern) =
                        line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
                    let parts: Vec<String> = pattern
                        .split('/')
                        .filter(|part| !part.is_empty() && *part != ".")
                        .map(str::to_owned)
                        .collect();
                    (!parts.is_empty()).then_some((parts, negated))
                },
            );
        Self { rules: rules.collect() }
    }

    /// Whether a path (relative, `/`-separated) is left out. A pattern that matches a parent matches what is below.
    pub fn ignores(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for (pattern, negated) in &self.rules {
            if (1..=parts.len()).any(|length| matches(pattern, &parts[..length])) {
                ignored = !negated;
            }
        }
        ignored
    }

    /// Whether an exception could bring something below an ignored directory back.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|(_, negated)| *negated)
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, below)| glob(first.as_bytes(), name.as_bytes()) && matches(rest, below)),
    }
}

/// `*`, `?`, `[a-z]`, `[^a]` and `\x` within one name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| glob(rest, &name[skip..])),
        Some((b'?', rest)) => !name.is_empty() && glob(rest, &name[1..]),
        Some((b'[', rest)) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let (set, after) = (&rest[..end], &rest[end + 1..]);
            let Some((byte, below)) = name.split_first() else { return false };
            let (negated, set) = match set.split_first() {
                Some((b'^' | b'!', set)) => (true, set),
                _ => (false, set),
            };
            let mut found = false;
            let mut at = 0;
            while at < set.len() {
                if set.get(at + 1) == Some(&b'-') && at + 2 < set.len() {
                    found |= (set[at]..=set[at + 2]).contains(byte);
                    at += 3;
                } else {
                    found |= set[at] == *byte;
                    at += 1;
                }
            }
            found != negated && glob(after, below)
        }
        Some((b'\\', rest)) if !rest.is_empty() => {
            name.first() == rest.first() && glob(&rest[1..], &name[1..])
        }
        Some((byte, rest)) => name.first() == Some(byte) && glob(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let ignore = Ignore::parse("# comment\n/target\n*.log\n**/*.tmp\n!keep.log\nd?r/[a-c]x\n");
        for (path, want) in [
            ("target", true),
            ("target/debug/x", true),
            ("src/target", false),
            ("a.log", true),
            ("keep.log", false),
            ("sub/a.log", false),
            ("sub/deep/a.tmp", true),
            ("dir/bx", true),
            ("dir/dx", false),
        ] {
            assert_eq!(ignore.ignores(path), want, "{path}");
        }
        assert!(ignore.has_exceptions());
    }
}
