//! Blobs: `blobs/sha256/<hex>`, immutable, named by their content.
//!
//! A blob begins as an [`Ingest`] under `ingest/` (a random name, locked while it is written, removed when it is dropped; the
//! next writer removes those that nobody has locked) and becomes a blob by
//! [`Ingest::commit`] only: hashed while written, compared, fsynced, renamed. A download's is named after the digest that it
//! shall have (`<hex>.part`): its lock keeps two processes from fetching the same blob, and what a broken one left is kept
//! for a day, hashed again and gone on with. Two writers of one blob do no harm: the
//! second rename replaces equal bytes. Blobs are deleted by [`crate::image`]'s collection alone, under the store's
//! exclusive lock; whoever makes blobs that no image names yet holds a [`crate::Lease`].

use model::error::Context as _;
use model::{Digest, Error, Kind, Result};
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Store;
use crate::layout::Layout;

/// How the names of downloads end.
const PART: &str = ".part";
/// How long what a broken download left is kept.
const PART_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// A blob that is being written. Dropping it removes what was written, unless it is a download.
#[derive(Debug)]
pub struct Ingest {
    layout: Layout,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    written: u64,
    limit: u64,
    /// What is here when it is dropped is kept.
    kept: bool,
    /// A collection takes those that nobody writes any more.
    _lease: crate::Lease,
}

impl Ingest {
    /// Refuses to grow beyond so many bytes: a declared size, or a limit of [`model::limits`].
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }
    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }
    /// Begins again: what was written is gone.
    ///
    /// # Errors
    /// The file cannot be cut.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .context(|| format!("cut {}", self.path.display()))?;
        self.hasher = Sha256::new();
        self.written = 0;
        Ok(())
    }
    /// Whether what was written is this.
    pub(crate) fn is(&self, digest: &Digest) -> bool {
        Digest::from_bytes(self.hasher.clone().finalize().into()) == *digest
    }
    /// Keeps nothing of what was written, whatever comes.
    pub(crate) fn discard(mut self) {
        self.kept = false;
    }
    /// Makes it a blob, if its content is the expected one (`None`: whatever it is). Returns its digest and size.
    ///
    /// # Errors
    /// Names both digests where they differ, or what could not be written. Nothing is left then.
    pub fn commit(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.finish(expected, true)
    }
    /// As [`Ingest::commit`], but leaves it to the kernel when the bytes reach the disk: for what can be made again.
    ///
    /// # Errors
    /// As [`Ingest::commit`].
    pub fn commit_unsynced(self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.finish(expected, false)
    }
    fn finish(mut self, expected: Option<&Digest>, sync: bool) -> Result<(Digest, u64)> {
        let hasher = std::mem::take(&mut self.hasher);
        let digest = Digest::from_bytes(hasher.finalize().into());
        // From here on it is a blob, or of no use.
        self.kept = false;
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::invalid(format!("blob {expected}: its content has the digest {digest}")));
        }
        let target = self.layout.blob(&digest);
        if std::fs::metadata(&target).is_ok_and(|there| there.len() == self.written) {
            return Ok((digest, self.written));
        }
        sys::failpoint!("blob: written");
        if sync {
            self.file.sync_all().context(|| format!("write blob {digest}"))?;
        }
        std::fs::rename(&self.path, &target).context(|| format!("name blob {digest}"))?;
        sys::failpoint!("blob: named");
        if sync {
            sys::fs::sync(self.layout.blobs()).context(|| format!("name blob {digest}"))?;
        }
        // Its old name may be somebody else's by now.
        self.kept = true;
        Ok((digest, self.written))
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.saturating_add(bytes.len() as u64) > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is longer than {} bytes", self.limit),
            ));
        }
        let count = self.file.write(bytes).map_err(|error| {
            io::Error::new(error.kind(), format!("write {}: {error}", self.path.display()))
        })?;
        self.hasher.update(&bytes[..count]);
        self.written += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.kept || self.written == 0 {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A new file, locked for as long as this process writes it.
fn begin(layout: &Layout) -> Result<(PathBuf, File)> {
    loop {
        let path = layout.ingest().join(crate::random_name());
        let what = || format!("create {}", path.display());
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).context(what)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from).context(what)?;
        // Somebody may have swept it away before it was locked.
        if std::os::unix::fs::MetadataExt::nlink(&file.metadata().context(what)?) > 0 {
            return Ok((path, file));
        }
    }
}

/// Whether a file is what a download left that may still be gone on with.
pub(crate) fn is_resumable(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(PART.as_bytes()));
    let age = std::fs::symlink_metadata(path).and_then(|found| found.modified()).map(|time| time.elapsed());
    // A time in the future is that of a clock that was set back: young.
    named && age.is_ok_and(|age| age.unwrap_or_default() < PART_KEPT)
}

/// The file of a download, locked; `None` where somebody else has it.
fn part(path: &Path) -> Result<Option<File>> {
    use rustix::fs::OFlags;
    let what = || format!("open {}", path.display());
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    loop {
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(path);
        let file = opened.context(what)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io::Error::from(error)).context(what),
        }
        // It may have become a blob, or have been swept away, before it was locked.
        let (here, there) = (file.metadata().context(what)?, std::fs::symlink_metadata(path));
        let same = |there: std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt as _;
            (there.ino(), there.dev()) == (here.ino(), here.dev())
        };
        if there.is_ok_and(same) {
            return Ok(Some(file));
        }
    }
}

/// Removes what processes that were killed left behind: files that nobody has locked, downloads after a day.
fn sweep(layout: &Layout) {
    for entry in std::fs::read_dir(layout.ingest()).into_iter().flatten().flatten() {
        if is_resumable(&entry.path()) {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            // What cannot be removed is left to the collection, which reports it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Store {
    /// Begins a blob.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn ingest(&self) -> Result<Ingest> {
        let lease = self.lease()?;
        self.swept.call_once(|| sweep(&self.layout));
        let (path, file) = begin(&self.layout)?;
        Ok(Ingest {
            layout: self.layout.clone(),
            path,
            file,
            hasher: Sha256::new(),
            written: 0,
            limit: u64::MAX,
            kept: false,
            _lease: lease,
        })
    }
    /// Begins the download of a blob of `size` bytes, or goes on where one was broken off. `None`: somebody else is at it.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(crate) fn download(&self, digest: &Digest, size: u64) -> Result<Option<Ingest>> {
        let lease = self.lease()?;
        self.swept.call_once(|| sweep(&self.layout));
        let path = self.part(digest);
        let Some(file) = part(&path)? else { return Ok(None) };
        let (layout, hasher) = (self.layout.clone(), Sha256::new());
        let mut ingest =
            Ingest { layout, path, file, hasher, written: 0, limit: size, kept: true, _lease: lease };
        let what = || format!("read what was downloaded of blob {digest}");
        let mut buffer = vec![0u8; 128 << 10];
        loop {
            match ingest.file.read(&mut buffer).context(what)? {
                0 => break,
                count => {
                    ingest.hasher.update(&buffer[..count]);
                    ingest.written += count as u64;
                }
            }
            if ingest.written > size {
                ingest.restart()?;
                break;
            }
        }
        Ok(Some(ingest))
    }
    /// The file of a download.
    pub(crate) fn part(&self, digest: &Digest) -> PathBuf {
        self.layout.ingest().join(format!("{}{PART}", digest.hex()))
    }
    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where there is none.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        File::open(self.layout.blob(digest)).context(|| format!("open blob {digest}"))
    }
    /// The size of a blob; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        match std::fs::metadata(self.layout.blob(digest)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("blob {digest}")),
        }
    }
    /// Reads a small blob (manifest, configuration) whole and verifies it.
    ///
    /// # Errors
    /// There is none, it is longer than `limit`, or its bytes are not what its name says.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("read blob {digest}"))?;
        if bytes.len() as u64 > limit {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!("blob {digest}: it is longer than {limit} bytes"),
            ));
        }
        if Digest::of(&bytes) != *digest {
            return Err(Error::internal(format!("blob {digest}: its content is damaged")));
        }
        Ok(bytes)
    }
    /// Makes a small blob of these bytes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.blob_size(&digest)? == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).context(|| format!("write blob {digest}"))?;
        Ok(ingest.commit(Some(&digest))?.0)
    }
}
