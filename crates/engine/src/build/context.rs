//! The build context: a directory, opened once; every path below it is resolved inside it (a link cannot lead out).

use model::error::Context as _;
use model::ignore::Ignore;
use model::{Error, Kind, Result, limits};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An opened context.
pub(super) struct Context {
    /// Its directory.
    pub root: OwnedFd,
    /// What is left out.
    pub ignore: Ignore,
    dockerfile: String,
}

impl Context {
    /// Opens a context and reads its ignore file: `<Dockerfile>.dockerignore`, else `.dockerignore`.
    pub(super) fn open(dir: &Path, dockerfile: &str) -> Result<Self> {
        let root = sys::fs::open_root(dir).context(|| format!("build context {}", dir.display()))?;
        let dockerfile = if dockerfile.is_empty() { "Dockerfile" } else { dockerfile }.to_owned();
        let mut context = Self { root, ignore: Ignore::default(), dockerfile };
        let own = format!("{}.dockerignore", context.dockerfile);
        let text = match context.read(&own)? {
            Some(text) => Some(text),
            None => context.read(".dockerignore")?,
        };
        if let Some(text) = text {
            context.ignore = Ignore::parse(&text).context(|| "read .dockerignore")?;
        }
        Ok(context)
    }
    /// The Dockerfile's text.
    pub(super) fn dockerfile(&self) -> Result<String> {
        let missing = || {
            Error::invalid(format!("Cannot locate specified Dockerfile: {}", self.dockerfile))
                .hint("name it with -f, relative to the context directory")
        };
        self.read(&self.dockerfile)?.ok_or_else(missing)
    }
    /// A text file: below the context, or anywhere for an absolute path that the user gave.
    fn read(&self, path: &str) -> Result<Option<String>> {
        let (outside, relative);
        let (root, name) = match Path::new(path).is_absolute().then(|| PathBuf::from(path)) {
            Some(absolute) => {
                let parent = absolute.parent().unwrap_or(Path::new("/"));
                outside = match sys::fs::open_root(parent) {
                    Ok(root) => root,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error).context(|| format!("open {}", parent.display())),
                };
                relative = absolute.file_name().map(PathBuf::from).unwrap_or_default();
                (&outside, relative.as_path())
            }
            None => (&self.root, Path::new(path)),
        };
        match sys::fs::read_in_root(root, name, limits::DOCKERFILE_BYTES) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::new(Kind::InvalidArgument, format!("read {path}")).caused_by(error)),
        }
    }
}
