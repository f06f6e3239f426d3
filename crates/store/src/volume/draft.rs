//! Drafts: a copy of a volume that somebody works on, which then takes the volume's place or is thrown away.
//!
//! A draft is an ordinary volume, `<name>.draft-<random>`, with `draft_of` in its record. To commit it its record becomes the
//! volume's own with one more [`Mark`], and the two directories change places (`RENAME_EXCHANGE`): the files and the mark of
//! who made them are there at once or not at all. A directory whose record names another volume is what a commit that was killed
//! left: it is no volume, and the next draft or the doctor removes it.

use super::{Volume, open_directory, random_name, write_volume};
use crate::{Store, copy};
use model::error::Context as _;
use model::time::Timestamp;
use model::{Error, Kind, Result};
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;
use std::path::Path;

/// Between a volume's name and the random part of its draft's.
const INFIX: &str = ".draft-";
/// Longest name of a volume that can have a draft.
const NAME_BYTES: usize = 230;
/// Marks of one volume, at most.
const MARKS: usize = 10_000;

/// What worked on a volume once, kept with the volume itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Who it was.
    pub helper: String,
    /// What it was made of: image, command and inputs.
    pub digest: String,
    /// Its version, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The image.
    pub image: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Copies a volume into a draft; older drafts of it are removed. The caller holds [`Store::share_volumes`] and knows that
    /// no running container has the volume or one of its drafts.
    ///
    /// # Errors
    /// There is no such volume, it is of another file system, or it cannot be copied.
    pub fn draft_volume(&self, name: &str, now: Timestamp) -> Result<Volume> {
        let what = || format!("take a draft of volume {name}");
        let volume = self.volume(name)?;
        if !volume.options.is_empty() || volume.draft_of.is_some() || name.len() > NAME_BYTES {
            return Err(Error::new(
                Kind::NotImplemented,
                format!("{}: only plain volumes can have one", what()),
            ));
        }
        self.remove_drafts(&volume)?;
        let id = random_name()?;
        let draft = Volume {
            name: format!("{name}{INFIX}{}", &id[..8]),
            id: id.clone(),
            created: now,
            draft_of: Some(volume.id.clone()),
            data: self.layout.volume(&format!("{name}{INFIX}{}", &id[..8])).join("_data"),
            ..volume.clone()
        };
        let temporary = self.layout.volumes().join(format!(".new-{}", &id[..16]));
        let made = write_volume(&temporary, &draft).and_then(|()| {
            let (from, to) = (open_directory(&volume.data)?, open_directory(&temporary.join("_data"))?);
            copy::copy_tree(from.as_fd(), to.as_fd())?;
            rustix::fs::fstat(&from)
                .and_then(|stat| copy::copy_attributes(from.as_fd(), to.as_fd(), &stat))
                .map_err(std::io::Error::from)
                .context(|| format!("copy the attributes of {}", volume.data.display()))?;
            std::fs::rename(&temporary, self.layout.volume(&draft.name))
                .context(|| format!("rename {}", temporary.display()))
        });
        match made {
            Ok(()) => Ok(draft),
            Err(error) => {
                let removed =
                    std::fs::remove_dir_all(&temporary).context(|| format!("remove {}", temporary.display()));
                Err(error.within(what()).with_undo_failures(removed.err()))
            }
        }
    }

    /// Puts a draft in its volume's place, with a mark. The caller holds [`Store::own_volumes`] and knows that no running
    /// container has either.
    ///
    /// # Errors
    /// It is no draft, its volume is not the one that it was taken of, or a rename failed: then nothing has changed.
    pub fn commit_draft(&self, name: &str, mark: Mark) -> Result<Volume> {
        let what = || format!("commit draft {name}");
        let draft = self.volume(name)?;
        let volume = self.drafted(&draft)?;
        let (from, to) = (self.layout.volume(name), self.layout.volume(&volume.name));
        // What was written must be on the disk before the mark that says so.
        let held = open_directory(&draft.data)?;
        rustix::fs::syncfs(&held).map_err(std::io::Error::from).context(|| format!("{}: sync", what()))?;
        let mut volume = volume;
        volume.marks.retain(|known| known.helper != mark.helper || known.digest != mark.digest);
        if volume.marks.len() >= MARKS {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("{}: the volume has {MARKS} marks", what()),
            ));
        }
        volume.marks.push(mark);
        write_record(&from, &volume)?;
        sys::failpoint!("volume.commit.marked");
        let exchanged = rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE)
            .map_err(std::io::Error::from)
            .context(|| format!("{}: exchange {} and {}", what(), from.display(), to.display()));
        // Still a draft, then.
        exchanged.map_err(|error| error.with_undo_failures(write_record(&from, &draft).err()))?;
        let dir = self.layout.volumes();
        sys::fs::sync(&dir).context(|| format!("sync {}", dir.display()))?;
        sys::failpoint!("volume.commit.exchanged");
        self.discard(&from)?;
        Ok(volume)
    }

    /// Throws a draft away. Does nothing where there is none of that name.
    ///
    /// # Errors
    /// It is no draft, or cannot be deleted.
    pub fn remove_draft(&self, name: &str) -> Result<()> {
        match self.find_volume(name)? {
            None => Ok(()),
            Some(draft) if draft.draft_of.is_some() => self.discard(&self.layout.volume(name)),
            Some(_) => Err(Error::conflict(format!("volume {name} is no draft"))),
        }
    }

    /// Replaces the marks of a volume by those that `keep` lets pass. The caller holds [`Store::own_volumes`].
    ///
    /// # Errors
    /// There is no such volume, or its record cannot be written.
    pub fn retain_marks(&self, name: &str, keep: impl Fn(&Mark) -> bool) -> Result<Volume> {
        let mut volume = self.volume(name)?;
        let before = volume.marks.len();
        volume.marks.retain(keep);
        if volume.marks.len() != before {
            write_record(&self.layout.volume(name), &volume)?;
        }
        Ok(volume)
    }

    /// The names of a volume's drafts.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn drafts_of(&self, volume: &Volume) -> Result<Vec<String>> {
        let drafts = self.volumes()?.into_iter().filter(|draft| draft.draft_of.as_ref() == Some(&volume.id));
        Ok(drafts.map(|draft| draft.name).collect())
    }

    /// Removes drafts of a volume, and what killed commits left of them.
    fn remove_drafts(&self, volume: &Volume) -> Result<()> {
        for draft in self.drafts_of(volume)? {
            self.discard(&self.layout.volume(&draft))?;
        }
        let dir = self.layout.volumes();
        let prefix = format!("{}{INFIX}", volume.name);
        for name in sys::fs::names(&dir).context(|| format!("read directory {}", dir.display()))? {
            let path = dir.join(&name);
            let is_own = name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains(INFIX));
            if is_own && self.find_volume(&name)?.is_none() && self.is_draft(&path)? {
                self.discard(&path)?;
            }
        }
        Ok(())
    }

    /// Whether a directory is a draft, or the remains of one.
    pub(crate) fn is_draft(&self, dir: &Path) -> Result<bool> {
        let path = dir.join("volume.json");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            read => read.context(|| format!("read {}", path.display()))?,
        };
        let Ok(volume) = serde_json::from_slice::<Volume>(&bytes) else { return Ok(false) };
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(volume.draft_of.is_some() || name.starts_with(&format!("{}{INFIX}", volume.name)))
    }

    /// The volume that a draft was taken of.
    fn drafted(&self, draft: &Volume) -> Result<Volume> {
        let (Some(id), Some((name, _))) = (&draft.draft_of, draft.name.rsplit_once(INFIX)) else {
            return Err(Error::conflict(format!("volume {} is no draft", draft.name)));
        };
        let volume = self.volume(name)?;
        if volume.id != *id {
            return Err(Error::conflict(format!(
                "volume {name} was made again since draft {} was taken",
                draft.name
            )));
        }
        Ok(volume)
    }

    fn discard(&self, dir: &Path) -> Result<()> {
        let trash = self.layout.trash().join(format!("volume-{}", &random_name()?[..16]));
        std::fs::rename(dir, &trash)
            .context(|| format!("rename {} to {}", dir.display(), trash.display()))?;
        std::fs::remove_dir_all(&trash).context(|| format!("delete {}", trash.display()))
    }
}

fn write_record(dir: &Path, volume: &Volume) -> Result<()> {
    let text = serde_json::to_vec_pretty(volume)
        .map_err(|error| Error::internal("write a volume's record").caused_by(error))?;
    let path = dir.join("volume.json");
    sys::fs::replace_file(&path, &text, 0o644, true).context(|| format!("write {}", path.display()))
}
