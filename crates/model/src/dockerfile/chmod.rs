//! `--chmod`: a number, or chmod(1)'s symbolic form.

use crate::{Error, Result};

/// What a mode becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chmod {
    /// A number: the mode itself.
    Octal(u32),
    /// Clauses, each on what the one before left.
    Symbolic(Vec<Clause>),
}

/// One operation of a symbolic mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits of the classes that it is about: `0o700` for `u`, with the set-id bits.
    who: u32,
    /// No class was named: what the umask takes away stays as it is.
    masked: bool,
    operation: char,
    permissions: Permissions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permissions {
    /// Bits of `rwx` in each class, set-id and sticky bits, and `X`.
    Given { bits: u32, execute_if_any: bool },
    /// Those that this class (shift 6, 3 or 0) has.
    Copied(u32),
}

/// The umask of a build.
const UMASK: u32 = 0o022;

impl Chmod {
    /// Reads `755`, `u+x,go-w`, `a=rX`, `g=u`.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic such as u+x,go-w"
            ))
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .map(Self::Octal)
                .ok_or_else(bad);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            clauses.extend(part_clauses(part).ok_or_else(bad)?);
        }
        Ok(Self::Symbolic(clauses))
    }
    /// The mode (permission bits) of a file that has `mode` now.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, directory))
            }
        }
    }
}

/// The operations of one comma's part: `ug+r-w=x`.
fn part_clauses(part: &str) -> Option<Vec<Clause>> {
    let classes = part.find(|c| !"ugoa".contains(c))?;
    let (named, mut rest) = part.split_at(classes);
    let masked = named.is_empty();
    let bits = |class: char| match class {
        'u' => 0o4700,
        'g' => 0o2070,
        'o' => 0o1007,
        _ => 0o7777,
    };
    let who = if masked { 0o7777 } else { named.chars().fold(0, |who, class| who | bits(class)) };
    let mut clauses = Vec::new();
    while let Some(operation) = rest.chars().next() {
        rest = rest.get(1..).filter(|_| matches!(operation, '+' | '-' | '='))?;
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let permissions = permissions(&rest[..end])?;
        rest = &rest[end..];
        clauses.push(Clause { who, masked, operation, permissions });
    }
    Some(clauses)
}

fn permissions(text: &str) -> Option<Permissions> {
    match text {
        "u" => return Some(Permissions::Copied(6)),
        "g" => return Some(Permissions::Copied(3)),
        "o" => return Some(Permissions::Copied(0)),
        _ => {}
    }
    let (mut bits, mut execute_if_any) = (0, false);
    for c in text.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            'X' => execute_if_any = true,
            _ => return None,
        }
    }
    Some(Permissions::Given { bits, execute_if_any })
}

impl Clause {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let bits = match self.permissions {
            Permissions::Copied(shift) => ((mode >> shift) & 7) * 0o111,
            Permissions::Given { bits, execute_if_any } => {
                let execute = execute_if_any && (directory || mode & 0o111 != 0);
                bits | if execute { 0o111 } else { 0 }
            }
        };
        let mask = if self.masked { UMASK } else { 0 };
        // The sticky bit belongs to no class: it is set where all or others are meant.
        let bits = bits & self.who & !mask;
        match self.operation {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => {
                // chmod(1): a directory keeps set-id bits that are not named.
                let kept = if directory { 0o6000 & !bits } else { 0 };
                (mode & !(self.who & !mask & !kept)) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_become_what_chmod_makes_of_them() {
        for (text, mode, directory, wanted) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o755, false, 0o644),
            ("4711", 0, false, 0o4711),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o644),
            ("a+w", 0o444, false, 0o666),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a=r", 0o777, false, 0o444),
            ("g=u", 0o640, false, 0o660),
            ("u+s,+t", 0o755, false, 0o5755),
            ("u=rw,g+r-w,o=", 0o777, false, 0o650),
        ] {
            let got = Chmod::parse(text).unwrap().apply(mode, directory);
            assert_eq!(format!("{got:o}"), format!("{wanted:o}"), "{text} on {mode:o}");
        }
        for bad in ["", "8", "17777", "u", "u+q", "x+r", "u+x,", "+é"] {
            assert!(Chmod::parse(bad).is_err(), "{bad:?}");
        }
    }
}
