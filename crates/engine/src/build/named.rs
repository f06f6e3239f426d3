//! `--build-context NAME=…`: directories, repositories, archives by URL and images that a Dockerfile knows by a name. One is
//! looked up when it is first used, and kept for the build.

use model::dockerfile::plan::context_name;
use model::dockerfile::remote::{Git, is_http};
use model::error::Context as _;
use model::ignore::Ignore;
use model::{Error, Result, limits};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::archive::{self, Unpacked};
use super::git::{Checkout, Wanted};
use super::layout::{self, Layout};
use super::{Build, Options};
use crate::Engine;

/// Bytes of a context that is fetched.
const REMOTE_BYTES: u64 = 8 << 30;

/// The contexts of one build that were looked at.
pub(super) type Contexts = Mutex<BTreeMap<String, Arc<Named>>>;

/// A named context.
pub(super) enum Named {
    /// Files: a directory of the user's, or one that was filled for this build.
    Files {
        /// Where they are.
        dir: PathBuf,
        /// Its `.dockerignore`.
        ignore: Ignore,
        /// What was fetched for it.
        _held: Option<Remote>,
    },
    /// An image under another name.
    Image(String),
}

/// What was fetched as a context: gone when this is dropped.
pub enum Remote {
    /// A repository.
    Repository(Checkout),
    /// An archive, unpacked, or an empty directory with a Dockerfile to go with it.
    Archive(Unpacked, Option<String>),
}

impl Remote {
    /// The files.
    pub fn dir(&self) -> &Path {
        match self {
            Self::Repository(checkout) => &checkout.dir,
            Self::Archive(unpacked, _) => unpacked.path(),
        }
    }
    /// What was fetched was no archive: it is a Dockerfile.
    pub fn dockerfile(&self) -> Option<&str> {
        match self {
            Self::Archive(_, text) => text.as_deref(),
            Self::Repository(_) => None,
        }
    }
}

impl Engine {
    /// Fetches a context: a git repository, a tar archive, or a Dockerfile. `local` repositories are allowed to whoever may
    /// read this machine's directories.
    ///
    /// # Errors
    /// It is none of these, or cannot be fetched.
    pub fn fetch_context(&self, place: &str, local: bool, agent: Option<&Path>) -> Result<Remote> {
        if let Some(git) = Git::parse(place) {
            let wanted = Wanted { local, agent, ..Wanted::default() };
            return Ok(Remote::Repository(self.checkout(&git.checked()?, wanted)?));
        }
        let bytes = archive::download(place, REMOTE_BYTES)?;
        let unpacked = self.new_context()?;
        if archive::is_context(&bytes) {
            archive::unpack_context(unpacked.path(), bytes.as_slice())?;
            return Ok(Remote::Archive(unpacked, None));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Remote::Archive(unpacked, Some(text)))
    }
}

impl Build<'_> {
    /// The context of this name, if one was given.
    pub(super) fn named(&self, name: &str) -> Result<Option<Arc<Named>>> {
        if self.options.contexts.is_empty() {
            return Ok(None);
        }
        let wanted = context_name(name);
        let given = self.options.contexts.iter().find(|(name, _)| context_name(name) == wanted);
        let Some((_, place)) = given else { return Ok(None) };
        let mut known = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(named) = known.get(&wanted) {
            return Ok(Some(named.clone()));
        }
        let named = look_up(self.engine, self.options, place)
            .map_err(|error| error.within(format!("build context {name}")))?;
        let named = Arc::new(named);
        known.insert(wanted, named.clone());
        Ok(Some(named))
    }
}

fn look_up(engine: &Engine, options: &Options, place: &str) -> Result<Named> {
    if let Some(image) = place.strip_prefix("docker-image://") {
        return Ok(Named::Image(image.to_owned()));
    }
    if let Some(place) = place.strip_prefix("oci-layout://") {
        let (dir, name) = layout::split(place);
        let wanted = options.platform.clone().unwrap_or_else(store::registry::host_platform);
        let image = Layout::open(Path::new(dir))?.image(&engine.store, name, &wanted)?;
        return Ok(Named::Image(image.to_string()));
    }
    if place.starts_with("target:") {
        return Err(Error::invalid(format!("{place}: not supported as a context"))
            .hint("a directory, docker-image://, oci-layout://, a git repository or the URL of an archive"));
    }
    if is_http(place) || Git::parse(place).is_some() {
        let remote =
            engine.fetch_context(place, true, options.agents.get("default").map(PathBuf::as_path))?;
        if remote.dockerfile().is_some() {
            return Err(Error::invalid(format!("{place} is no tar archive")));
        }
        return Ok(Named::Files {
            dir: remote.dir().to_owned(),
            ignore: Ignore::default(),
            _held: Some(remote),
        });
    }
    let dir = PathBuf::from(place);
    let root = sys::fs::open_root(&dir).context(|| format!("open {place}"))?;
    let ignore = match sys::fs::read_in_root(&root, ".dockerignore", limits::DOCKERFILE_BYTES) {
        Ok(bytes) => {
            Ignore::parse(&String::from_utf8_lossy(&bytes)).context(|| format!("{place}/.dockerignore"))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ignore::default(),
        Err(error) => return Err(error).context(|| format!("read {place}/.dockerignore")),
    };
    Ok(Named::Files { dir, ignore, _held: None })
}
