//! What an examination of the state on disk and in the kernel finds: something that a crash, a reboot or a person left.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Something that should not be there, or that lacks something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing: `container`, `mount`, `cgroup`, `layer`…
    pub kind: String,
    /// Which one: a path, a name, an id.
    pub object: String,
    /// What is wrong with it, and why that is known.
    pub problem: String,
    /// What mends it.
    pub remedy: String,
    /// What became of it.
    pub state: Repair,
    /// Why mending failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repair {
    /// Nobody asked for it to be mended.
    Found,
    /// It was mended.
    Fixed,
    /// Mending it failed.
    Failed,
    /// Only a person can mend it.
    Manual,
}

impl Repair {
    /// The word for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Fixed => "fixed",
            Self::Failed => "failed",
            Self::Manual => "manual",
        }
    }
}

/// One examination on its way.
#[derive(Debug, Default)]
pub struct Examination {
    fix: bool,
    findings: Vec<Finding>,
}

impl Examination {
    /// A new one, which mends what it finds or only says it.
    pub fn new(fix: bool) -> Self {
        Self { fix, findings: Vec::new() }
    }
    /// Notes a finding, and mends it with `mend` where that is asked.
    pub fn found(
        &mut self,
        (kind, object): (&str, impl ToString),
        problem: impl ToString,
        remedy: &str,
        mend: impl FnOnce() -> Result<()>,
    ) {
        let outcome = if self.fix { Some(mend()) } else { None };
        let (state, error) = match outcome {
            None => (Repair::Found, None),
            Some(Ok(())) => (Repair::Fixed, None),
            Some(Err(error)) => (Repair::Failed, Some(error.to_string())),
        };
        self.push((kind, object), problem, remedy, state, error);
    }
    /// Notes a finding that only a person can mend.
    pub fn manual(&mut self, what: (&str, impl ToString), problem: impl ToString, remedy: &str) {
        self.push(what, problem, remedy, Repair::Manual, None);
    }
    /// Notes that a part could not be examined.
    pub fn unreadable(&mut self, what: (&str, impl ToString), error: &Error) {
        self.push(what, error, "see to it that it can be read, then look again", Repair::Manual, None);
    }
    fn push(
        &mut self,
        (kind, object): (&str, impl ToString),
        problem: impl ToString,
        remedy: &str,
        state: Repair,
        error: Option<String>,
    ) {
        self.findings.push(Finding {
            kind: kind.to_owned(),
            object: object.to_string(),
            problem: problem.to_string(),
            remedy: remedy.to_owned(),
            state,
            error,
        });
    }
    /// What was found.
    pub fn findings(self) -> Vec<Finding> {
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mends_only_where_asked() {
        let mut look = Examination::new(false);
        look.found(("lock", "a"), "p", "r", || panic!("not asked"));
        assert_eq!(look.findings()[0].state, Repair::Found);
        let mut mend = Examination::new(true);
        mend.found(("lock", "a"), "p", "r", || Ok(()));
        mend.found(("lock", "b"), "p", "r", || Err(Error::internal("busy")));
        mend.manual(("lock", "c"), "p", "r");
        let states: Vec<_> = mend.findings().into_iter().map(|found| (found.state, found.error)).collect();
        assert_eq!(
            states,
            [(Repair::Fixed, None), (Repair::Failed, Some("busy".to_owned())), (Repair::Manual, None)]
        );
    }
}
