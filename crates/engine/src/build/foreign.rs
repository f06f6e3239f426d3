//! Steps of another machine's kind: they run where the kernel has an interpreter for them (binfmt_misc), and are refused before
//! anything else runs where it has none.

use model::dockerfile::instruction::Instruction;
use model::dockerfile::plan::Origin;
use model::{Error, Kind, Result};
use std::path::Path;

use super::Build;

/// Where the kernel lists its interpreters (Documentation/admin-guide/binfmt-misc.rst).
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

impl Build<'_> {
    /// Refuses `RUN` in a stage of a platform that this machine cannot run.
    pub(super) fn refuse_foreign(&self) -> Result<()> {
        let host = store::registry::host_platform();
        for &index in &self.plan.order {
            let stage = &self.dockerfile.stages[index];
            let runs = |step: &&model::dockerfile::instruction::Step| {
                matches!(step.instruction, Instruction::Run(_))
            };
            let Some(step) = stage.steps.iter().find(runs) else { continue };
            let mut root = index;
            while let Origin::Stage(below) = self.plan.bases[root] {
                root = below;
            }
            let platform = match self.plan.platforms.get(root).and_then(Option::as_deref) {
                Some(text) => crate::transfer::parse_platform(text)?,
                None => self.platform.clone(),
            };
            let architecture = platform.architecture.as_str();
            if native(&host.architecture, architecture) || interpreted(Path::new(BINFMT), architecture) {
                continue;
            }
            let text = format!(
                "RUN for {}/{architecture} on a {}/{} machine: the kernel has no interpreter for it",
                platform.os, host.os, host.architecture
            );
            let error = Error::new(Kind::NotImplemented, text);
            let lines = model::dockerfile::excerpt(&self.file, &self.text, step.lines);
            return Err(error.hint(format!(
                "{lines}\nregister one that works in containers (binfmt_misc with the flag F: Debian's qemu-user-static), \
                 or build on such a machine; stages that only compile can stay with FROM --platform=$BUILDPLATFORM"
            )));
        }
        Ok(())
    }
}

/// Whether a processor runs these programs itself.
fn native(host: &str, wanted: &str) -> bool {
    host == wanted || matches!((host, wanted), ("amd64", "386") | ("arm64", "arm"))
}

/// `e_machine` of an architecture's programs, as it lies in the file (elf.h).
fn machine(architecture: &str) -> Option<&'static str> {
    Some(match architecture {
        "386" => "0300",
        "amd64" => "3e00",
        "arm" => "2800",
        "arm64" => "b700",
        "loong64" => "0201",
        "mips64le" => "0800",
        "ppc64le" => "1500",
        "riscv64" => "f300",
        "s390x" => "0016",
        _ => return None,
    })
}

fn interpreted(dir: &Path, architecture: &str) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    found.into_iter().any(|text| interprets(&text, architecture))
}

/// Whether an entry of binfmt_misc is for such programs, is on, and has its interpreter open already, so that it works where
/// the container has no such file.
fn interprets(entry: &str, architecture: &str) -> bool {
    let mut lines = entry.lines();
    let (on, mut flags, mut magic) = (lines.next() == Some("enabled"), "", "");
    for line in lines {
        match line.split_once(' ') {
            Some(("flags:", value)) => flags = value,
            Some(("magic", value)) => magic = value,
            _ => {}
        }
    }
    let elf = magic.starts_with("7f454c46");
    on && flags.contains('F')
        && elf
        && machine(architecture).is_some_and(|code| magic.get(36..40) == Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_of_the_kernel() {
        let entry = |state: &str, flags: &str| {
            format!(
                "{state}\ninterpreter /usr/bin/qemu-aarch64-static\nflags: {flags}\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
            )
        };
        assert!(interprets(&entry("enabled", "OCF"), "arm64"));
        for (state, flags, architecture) in [
            ("enabled", "OCF", "arm"),
            ("enabled", "OC", "arm64"),
            ("disabled", "OCF", "arm64"),
            ("enabled", "F", "pdp11"),
        ] {
            assert!(!interprets(&entry(state, flags), architecture), "{state} {flags} {architecture}");
        }
        assert!(!interprets("enabled\ninterpreter /x\nflags: F\nextension .py\n", "arm64"));
        assert!(!interprets("", "arm64"));
    }
}
