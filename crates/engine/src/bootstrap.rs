//! Base images from a distribution's own archive, with no registry involved: mmdebstrap, or else debootstrap, runs on
//! the host, and the root file system that it makes is imported while it comes.

use model::error::Context as _;
use model::image::RunConfig;
use model::{Digest, Error, Kind, Reference, Result};
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Engine;

/// Lines of a tool that failed which are shown.
const LAST_LINES: usize = 20;
/// Bytes of a line that are shown.
const LINE_BYTES: usize = 1000;

/// Told of every line that the tool says.
pub type Line<'a> = &'a (dyn Fn(&str) -> Result<()> + Sync);

/// What to make.
#[derive(Clone, Debug)]
pub struct Base {
    /// `debian:bookworm`: family and suite.
    pub distribution: Reference,
    /// The image's name.
    pub image: Reference,
    /// Another archive than the distribution's main one.
    pub mirror: Option<String>,
    /// More packages.
    pub include: Vec<String>,
    /// `minbase` unless something else is wanted.
    pub variant: Option<String>,
}

/// A base image's options, checked: none can be taken for a flag.
struct Options {
    suite: String,
    variant: String,
    include: String,
    mirror: Option<String>,
}

impl Base {
    fn options(&self) -> Result<Options> {
        let bad =
            |what: String| Error::invalid(format!("bootstrap {}: {what}", self.distribution.familiar()));
        let family = self.distribution.path().rsplit('/').next().unwrap_or_default();
        let suite = match (family, self.distribution.tag()) {
            ("debian", Some("latest") | None) => "stable",
            ("debian" | "ubuntu", Some(tag)) => tag.strip_suffix("-slim").unwrap_or(tag),
            _ => return Err(bad("want debian:SUITE or ubuntu:SUITE".to_owned())),
        };
        let word = |text: &str| {
            text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._:".contains(&b))
        };
        let variant = self.variant.as_deref().unwrap_or("minbase");
        for text in self.include.iter().map(String::as_str).chain([suite, variant]) {
            if !word(text) {
                return Err(bad(format!("malformed name {text:?}")));
            }
        }
        let mirror = match (&self.mirror, family) {
            (Some(mirror), _) if !(mirror.starts_with("http://") || mirror.starts_with("https://")) => {
                return Err(bad(format!("mirror {mirror:?}: want an http or https URL")));
            }
            (None, "ubuntu") => Some("http://archive.ubuntu.com/ubuntu".to_owned()),
            (mirror, _) => (*mirror).clone(),
        };
        Ok(Options {
            suite: suite.to_owned(),
            variant: variant.to_owned(),
            include: self.include.join(","),
            mirror,
        })
    }
}

impl Engine {
    /// Makes a base image. Returns its id.
    ///
    /// # Errors
    /// Both tools are missing (the hint names the packages), or the tool failed: with its own last lines.
    pub fn bootstrap(&self, base: &Base, line: Line<'_>) -> Result<Digest> {
        let options = base.options()?;
        let what = base.distribution.familiar();
        let config = RunConfig {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cmd: Some(vec!["bash".to_owned()]),
            ..RunConfig::default()
        };
        let import = |source: &mut dyn Read, tool: &str| {
            self.import_image(source, None, config.clone(), &format!("{tool} of {what}"), None)
        };
        let id = match mmdebstrap(&options, line, &import)? {
            Some(id) => id,
            None => self.debootstrap(&options, line, &import)?.ok_or_else(|| {
                Error::not_found(format!(
                    "bootstrap {what}: neither mmdebstrap nor debootstrap is installed on this host"
                ))
                .hint("install one of the two packages: apt-get install mmdebstrap")
            })?,
        };
        self.store.tag(&base.image, &id)?;
        Ok(id)
    }

    /// With debootstrap, through a directory.
    fn debootstrap(&self, options: &Options, line: Line<'_>, import: Import<'_>) -> Result<Option<Digest>> {
        let dir =
            self.store.layout.build_cache().join(format!("bootstrap-{}", store::volume::random_name()?));
        let mut command = Command::new("debootstrap");
        command.arg(format!("--variant={}", options.variant));
        if !options.include.is_empty() {
            command.arg(format!("--include={}", options.include));
        }
        command
            .arg(&options.suite)
            .arg(&dir)
            .args(&options.mirror)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let Some(mut child) = start(&mut command)? else { return Ok(None) };
        let said = child.stdout.take().map_or_else(|| Ok(Vec::new()), |output| follow(output, line));
        let made = finish("debootstrap", &mut child, said).and_then(|()| import_directory(&dir, import));
        let removed = match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {}", dir.display()))
            }
            _ => Ok(()),
        };
        match made {
            Ok(id) => removed.map(|()| Some(id)),
            Err(error) => Err(error.with_undo_failures(removed.err())),
        }
    }
}

/// Imports a root file system's tar that a tool made.
type Import<'a> = &'a (dyn Fn(&mut dyn Read, &str) -> Result<Digest> + Sync);

/// With mmdebstrap, which writes a tar. `None`: it is not installed.
fn mmdebstrap(options: &Options, line: Line<'_>, import: Import<'_>) -> Result<Option<Digest>> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--format=tar", &format!("--variant={}", options.variant)]);
    if !options.include.is_empty() {
        command.arg(format!("--include={}", options.include));
    }
    command
        .args([options.suite.as_str(), "-"])
        .args(&options.mirror)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Some(mut child) = start(&mut command)? else { return Ok(None) };
    let (Some(mut output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::internal("mmdebstrap was started without pipes"));
    };
    let (imported, said) = std::thread::scope(|scope| {
        let said = scope.spawn(move || follow(errors, line));
        let imported = import(&mut output, "mmdebstrap");
        // Whoever reads no more must not keep the tool waiting.
        drop(output);
        (
            imported,
            said.join().unwrap_or_else(|_| Err(Error::internal("reading mmdebstrap's messages panicked"))),
        )
    });
    match finish("mmdebstrap", &mut child, said) {
        Ok(()) => imported.map(Some),
        // An import that failed first has ended the tool.
        Err(error) => Err(match imported {
            Err(cause) if cause.kind() == Kind::ResourceExhausted => cause,
            _ => error,
        }),
    }
}

fn start(command: &mut Command) -> Result<Option<Child>> {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.stdin(Stdio::null()).spawn() {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("start {name}")),
    }
}

/// Passes lines on to the end and keeps the last ones. A listener that is gone ends the passing on, not the reading.
fn follow(source: impl Read, line: Line<'_>) -> Result<Vec<String>> {
    let mut reader = BufReader::new(source);
    let mut last: Vec<String> = Vec::new();
    let mut gone = None;
    loop {
        let mut bytes = Vec::new();
        match reader.read_until(b'\n', &mut bytes) {
            Ok(0) => break,
            result => result.context(|| "read what the tool says")?,
        };
        let text: String = String::from_utf8_lossy(&bytes).trim_end().chars().take(LINE_BYTES).collect();
        if gone.is_none() {
            gone = line(&text).err();
        }
        if last.len() == LAST_LINES {
            last.remove(0);
        }
        last.push(text);
    }
    gone.map_or(Ok(last), Err)
}

/// Waits for the tool; a failure shows what it said last.
fn finish(name: &str, child: &mut Child, said: Result<Vec<String>>) -> Result<()> {
    let status = child.wait().context(|| format!("wait for {name}"))?;
    let said = said?;
    if status.success() {
        return Ok(());
    }
    Err(Error::internal(format!("{name} failed ({status}): {}", said.join("\n"))))
}

/// Imports a directory through a pipe.
fn import_directory(dir: &Path, import: Import<'_>) -> Result<Digest> {
    let root = sys::fs::open_in_root(
        sys::fs::open_root(dir).context(|| format!("open {}", dir.display()))?,
        ".",
        rustix::fs::OFlags::DIRECTORY,
        0,
    )
    .context(|| format!("open {}", dir.display()))?;
    let (mut reader, writer) = std::io::pipe().context(|| "make a pipe")?;
    std::thread::scope(|scope| {
        let written = scope.spawn(move || store::archive::write_tree(root.as_fd(), writer));
        let imported = import(&mut reader, "debootstrap");
        drop(reader);
        match written.join() {
            Ok(Ok(_)) => imported,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::internal("reading the root file system panicked")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_words() {
        let base = |distribution: &str, include: &str, mirror: Option<&str>| {
            let distribution = Reference::parse(distribution).unwrap();
            let mirror = mirror.map(str::to_owned);
            let include = if include.is_empty() { Vec::new() } else { vec![include.to_owned()] };
            Base { image: distribution.clone(), distribution, mirror, include, variant: None }.options()
        };
        let options = base("debian:bookworm-slim", "curl", None).unwrap();
        assert_eq!(
            (options.suite.as_str(), options.variant.as_str(), options.include.as_str()),
            ("bookworm", "minbase", "curl")
        );
        assert_eq!(base("debian", "", None).unwrap().suite, "stable");
        assert!(base("ubuntu:noble", "", None).unwrap().mirror.is_some());
        assert!(base("alpine:3", "", None).is_err());
        assert!(base("debian:sid", "--hook=x", None).is_err());
        assert!(base("debian:sid", "", Some("--setup-hook=x")).is_err());
    }
}
