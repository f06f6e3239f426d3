//! Which stages a build needs, what each starts from, and the keys under which a step's result is remembered.

use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

use super::error::{Source, suggestion};
use super::instruction::{Dockerfile, Instruction, Run};
use super::scope::Global;
use crate::{Digest, Error, Reference, Result};

/// Where an argument of `FROM` must be.
const ABOVE: &str = "an ARG that FROM uses must stand before the first FROM";

/// What a stage starts from, or `--from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing.
    Scratch,
    /// An earlier stage, by index.
    Stage(usize),
    /// An image or a named context: the builder looks it up.
    Named(String),
}

/// The stages of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where each stage starts, by index. Unused ones have theirs too.
    pub bases: Vec<Origin>,
    /// `FROM --platform` of each stage, expanded.
    pub platforms: Vec<Option<String>>,
    /// The stage whose image is wanted.
    pub target: usize,
    /// The stages that it needs, each after those that it needs itself; the last is `target`.
    pub order: Vec<usize>,
    /// The stages that each stage starts from or copies from, by index; empty for those that are not in `order`.
    pub needs: Vec<Vec<usize>>,
}

impl Plan {
    /// Resolves stages by name and number. `replaced` are the names ([`context_name`]) of contexts that were given for this
    /// build: they stand for a stage or an image of the same name. The Dockerfile's name and text are for errors.
    ///
    /// # Errors
    /// A base name is empty after expansion, there is no such target, or `--from` is the number of no earlier stage.
    pub fn new(
        dockerfile: &Dockerfile,
        global: &Global,
        target: &str,
        replaced: &BTreeSet<String>,
        (file, text): (&str, &str),
    ) -> Result<Self> {
        let mut bases = Vec::with_capacity(dockerfile.stages.len());
        let mut platforms = Vec::with_capacity(dockerfile.stages.len());
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let source = Source { file, text };
            let base =
                global.expand(&stage.base).map_err(|error| source.error(stage.lines, error.message()))?;
            if base.is_empty() {
                let message = format!("base name ({}) should not be blank", stage.base);
                return Err(source.advice(stage.lines, message, ABOVE));
            }
            let platform = stage.platform.as_deref().map(|text| global.expand(text)).transpose();
            let platform = platform.map_err(|error| source.error(stage.lines, error.message()))?;
            if platform.as_deref() == Some("") {
                let written = stage.platform.as_deref().unwrap_or_default();
                let message = format!("empty platform value from expression {written}");
                return Err(source.advice(stage.lines, message, ABOVE));
            }
            platforms.push(platform);
            bases.push(if base == "scratch" {
                Origin::Scratch
            } else {
                earlier(dockerfile, replaced, &base, index, false)
            });
        }
        refuse_later_numbers(dockerfile, replaced, Source { file, text })?;
        let target = find_target(dockerfile, target)?;
        let needs = vec![Vec::new(); dockerfile.stages.len()];
        let mut plan = Self { bases, platforms, target, order: Vec::new(), needs };
        plan.visit(dockerfile, replaced, target);
        Ok(plan)
    }
    fn visit(&mut self, dockerfile: &Dockerfile, replaced: &BTreeSet<String>, index: usize) {
        if self.order.contains(&index) {
            return;
        }
        // An origin is always an earlier stage, so the recursion ends; depth is bounded by the number of stages.
        let mut needs = vec![self.bases[index].clone()];
        needs.extend(
            dockerfile.stages[index]
                .steps
                .iter()
                .flat_map(|step| origins(&step.instruction))
                .map(|name| earlier(dockerfile, replaced, &name, index, true)),
        );
        for need in needs {
            if let Origin::Stage(other) = need {
                self.visit(dockerfile, replaced, other);
                self.needs[index].push(other);
            }
        }
        self.order.push(index);
    }
    /// How many stages can be built at the same time, at most: the largest number of stages at one distance from those
    /// that need nothing.
    pub fn width(&self) -> usize {
        let mut level = vec![0usize; self.bases.len()];
        let mut count = vec![0usize; self.order.len() + 1];
        for &index in &self.order {
            level[index] = self.needs[index].iter().map(|&need| level[need] + 1).max().unwrap_or(0);
            count[level[index]] += 1;
        }
        count.into_iter().max().unwrap_or(0)
    }
    /// The number of a stage's `FROM` among all steps of the build, from 1, and how many steps there are.
    pub fn step_numbers(&self, dockerfile: &Dockerfile, index: usize) -> (usize, usize) {
        let steps = |index: &usize| 1 + dockerfile.stages[*index].steps.len();
        let before = self.order.iter().take_while(|&&other| other != index).map(steps).sum::<usize>();
        (before + 1, self.order.iter().map(steps).sum())
    }
}

/// What `--from` names in an instruction of the stage `index`, named contexts aside.
pub fn origin(dockerfile: &Dockerfile, name: &str, index: usize) -> Origin {
    earlier(dockerfile, &BTreeSet::new(), name, index, true)
}

/// The name under which a context is looked for: an image's in its short form, without `:latest`.
pub fn context_name(name: &str) -> String {
    let familiar = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned)
}

fn earlier(
    dockerfile: &Dockerfile,
    replaced: &BTreeSet<String>,
    name: &str,
    index: usize,
    numbers: bool,
) -> Origin {
    if !replaced.is_empty() && replaced.contains(&context_name(name)) {
        return Origin::Named(name.to_owned());
    }
    let stages = &dockerfile.stages[..index];
    let by_name = stages
        .iter()
        .rposition(|stage| stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name)));
    let by_number = || name.parse::<usize>().ok().filter(|&number| numbers && number < index);
    match by_name.or_else(by_number) {
        Some(stage) => Origin::Stage(stage),
        None if name == "scratch" => Origin::Scratch,
        None => Origin::Named(name.to_owned()),
    }
}

/// A number in `--from` is a stage's, never the beginning of some image's id.
fn refuse_later_numbers(
    dockerfile: &Dockerfile,
    replaced: &BTreeSet<String>,
    source: Source<'_>,
) -> Result<()> {
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        for step in &stage.steps {
            for name in origins(&step.instruction) {
                let unknown = matches!(earlier(dockerfile, replaced, &name, index, true), Origin::Named(_))
                    && !replaced.contains(&context_name(&name));
                if let (true, Ok(number)) = (unknown, name.parse::<usize>()) {
                    let known = match index {
                        0 => "no stage stands before this one".to_owned(),
                        _ => format!("the stages before this one are 0 to {}", index - 1),
                    };
                    return Err(source.error(step.lines, format!("invalid stage index {number}: {known}")));
                }
            }
        }
    }
    Ok(())
}

/// The names in `COPY --from` and `RUN --mount=from`.
fn origins(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(Run { mounts, .. }) => mounts
            .iter()
            .flatten()
            .filter(|(key, _)| key == "from")
            .filter_map(|(_, value)| value.clone())
            .collect(),
        _ => Vec::new(),
    }
}

fn find_target(dockerfile: &Dockerfile, target: &str) -> Result<usize> {
    let stages = &dockerfile.stages;
    if target.is_empty() {
        return Ok(stages.len() - 1);
    }
    let lower = target.to_ascii_lowercase();
    let by_name = stages.iter().rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
    let by_number = || target.parse::<usize>().ok().filter(|&number| number < stages.len());
    by_name.or_else(by_number).ok_or_else(|| {
        let names = stages.iter().filter_map(|stage| stage.name.as_deref());
        let meant = suggestion(target, names.clone())
            .map(|name| format!(" (did you mean {name}?)"))
            .unwrap_or_default();
        let error = Error::invalid(format!("target stage {target:?} could not be found{meant}"));
        match names.collect::<Vec<_>>() {
            names if names.is_empty() => error,
            names => error.hint(format!("stages of this file: {}", names.join(", "))),
        }
    })
}

/// A cache key in the making: a hash over labelled parts, each with its length, so that no two lists collide.
#[derive(Clone)]
pub struct CacheKey(Sha256);

impl CacheKey {
    /// For a step of this kind.
    pub fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.part("cauldron-build-1").part(kind);
        key
    }
    /// Adds a part.
    pub fn part(&mut self, part: impl AsRef<[u8]>) -> &mut Self {
        let part = part.as_ref();
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }
    /// Adds a list and its length.
    pub fn list<T: AsRef<[u8]>>(&mut self, list: impl IntoIterator<Item = T>) -> &mut Self {
        let list: Vec<T> = list.into_iter().collect();
        self.part((list.len() as u64).to_le_bytes());
        for part in list {
            self.part(part);
        }
        self
    }
    /// The key.
    pub fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}
