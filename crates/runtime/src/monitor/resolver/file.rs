//! Files that others replace (write, rename) or change: read again only when they did.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

/// A file and what it said. It is held open, so that its inode's number cannot be given to the one that replaces it.
pub struct Watched {
    path: PathBuf,
    held: Option<(File, Mark)>,
    /// Its content; nothing where there is no such file.
    pub text: String,
}

/// Device, inode, bytes and time of the last change.
type Mark = (u64, u64, u64, Option<SystemTime>);

fn mark(meta: &Metadata) -> Mark {
    (meta.dev(), meta.ino(), meta.len(), meta.modified().ok())
}

impl Watched {
    /// One that has not been looked at.
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: None, text: String::new() }
    }
    /// Reads it if it is another one than before. True: it was.
    pub fn refresh(&mut self) -> bool {
        let now = std::fs::metadata(&self.path).ok().map(|meta| mark(&meta));
        if now == self.held.as_ref().map(|(_, mark)| *mark) {
            return false;
        }
        self.text = String::new();
        self.held = File::open(&self.path).ok().and_then(|mut file| {
            let meta = file.metadata().ok()?;
            (&mut file).take(model::dns::zone::BYTES).read_to_string(&mut self.text).ok()?;
            Some((file, mark(&meta)))
        });
        true
    }
}
