//! An image archive with names of its own, as `docker` and `oci` outputs are: what the engine saves, passed on.

use super::Place;
use crate::fail::{Failure, file};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of one of the archive's own documents.
const DOCUMENT_BYTES: u64 = 8 << 20;

/// How it is written.
pub struct Wish {
    /// An OCI layout alone, without Docker's documents.
    pub oci: bool,
    /// The image's names in it.
    pub names: Vec<String>,
    pub place: Place,
    /// A directory rather than a tar archive.
    pub directory: bool,
}

/// Where members go.
enum Sink {
    Tar(tar::Builder<Box<dyn Write>>),
    Directory(PathBuf),
}

impl Sink {
    fn put(&mut self, name: &str, size: u64, data: &mut dyn Read) -> std::io::Result<()> {
        match self {
            Self::Tar(archive) => {
                let mut header = tar::Header::new_ustar();
                header.set_size(size);
                header.set_mode(0o644);
                header.set_entry_type(tar::EntryType::Regular);
                archive.append_data(&mut header, name, data)
            }
            Self::Directory(dir) => {
                let path = dir.join(name);
                std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
                std::io::copy(data, &mut std::fs::File::create(path)?).map(drop)
            }
        }
    }
}

/// Writes it. Gives the descriptor of its manifest.
///
/// # Errors
/// The engine's archive is not what it should be, or the place cannot be written.
pub fn write(source: impl Read, wish: &Wish) -> Result<Value, Failure> {
    match &wish.place {
        Place::Stdout => {
            let out: Box<dyn Write> = Box::new(std::io::BufWriter::new(std::io::stdout()));
            pass(source, Sink::Tar(tar::Builder::new(out)), wish)
        }
        Place::Path(path) if wish.directory => {
            let staging = super::files::Staging::new(path)?;
            let descriptor = pass(source, Sink::Directory(staging.path.clone()), wish)?;
            staging.merge(path)?;
            Ok(descriptor)
        }
        Place::Path(path) => {
            let aside = super::files::Aside::new(path)?;
            let out: Box<dyn Write> = Box::new(std::io::BufWriter::with_capacity(1 << 18, aside.file()?));
            let descriptor = pass(source, Sink::Tar(tar::Builder::new(out)), wish)?;
            aside.publish(path)?;
            Ok(descriptor)
        }
    }
}

fn pass(source: impl Read, mut sink: Sink, wish: &Wish) -> Result<Value, Failure> {
    let wrong = |error: std::io::Error| Failure::new(format!("write the image archive: {error}"));
    let mut descriptor = Value::Null;
    let mut archive = tar::Archive::new(source);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let path = entry.path().map_err(wrong)?.to_string_lossy().into_owned();
        if is_blob(&path) {
            let size = entry.size();
            sink.put(&path, size, &mut entry).map_err(wrong)?;
            continue;
        }
        let mut text = Vec::new();
        match path.as_str() {
            "index.json" | "manifest.json" | "oci-layout" => {
                entry.by_ref().take(DOCUMENT_BYTES).read_to_end(&mut text).map_err(wrong)?;
            }
            _ => continue,
        }
        let mut document: Value = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(format!("the engine's archive: {path}: {error}")))?;
        match path.as_str() {
            "index.json" => {
                document = index(document, &wish.names);
                descriptor = document["manifests"][0].clone();
            }
            "manifest.json" if wish.oci => continue,
            "manifest.json" => {
                let names: Vec<String> = wish.names.iter().map(|name| tagged(name)).collect();
                document[0]["RepoTags"] = json!(names);
            }
            _ => {}
        }
        let text = document.to_string();
        sink.put(&path, text.len() as u64, &mut text.as_bytes()).map_err(wrong)?;
    }
    if descriptor.is_null() {
        return Err("the engine's archive is no OCI image layout: it is too old for this output".into());
    }
    if let Sink::Tar(archive) = sink {
        archive.into_inner().and_then(|mut out| out.flush()).map_err(wrong)?;
    }
    if let Value::Object(fields) = &mut descriptor {
        fields.remove("annotations");
    }
    Ok(descriptor)
}

/// `blobs/sha256/<hex>`: the only kind of name that is taken from the engine.
fn is_blob(path: &str) -> bool {
    path.strip_prefix("blobs/sha256/")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The index with one entry for each name.
fn index(mut index: Value, names: &[String]) -> Value {
    let Some(first) = index["manifests"].as_array().and_then(|all| all.first()).cloned() else {
        return index;
    };
    let named = |name: &String| {
        let mut entry = first.clone();
        let name = full(name);
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag).to_owned();
        entry["annotations"] =
            json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
        entry
    };
    if names.is_empty() {
        let mut entry = first;
        if let Value::Object(fields) = &mut entry {
            fields.remove("annotations");
        }
        index["manifests"] = json!([entry]);
    } else {
        index["manifests"] = names.iter().map(named).collect();
    }
    index
}

fn tagged(name: &str) -> String {
    let (_, tag) = super::super::super::pull::split(name);
    if tag.is_empty() { format!("{name}:latest") } else { name.to_owned() }
}

/// The name as registries know it: `docker.io/library/a:latest`.
pub fn full(name: &str) -> String {
    let name = tagged(name);
    let first = name.split('/').next().unwrap_or_default();
    let has_domain = name.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    match (has_domain, name.contains('/')) {
        (true, _) => name,
        (false, true) => format!("docker.io/{name}"),
        (false, false) => format!("docker.io/library/{name}"),
    }
}

/// Writes a small file whole or not at all.
///
/// # Errors
/// Names it.
pub fn document(path: &Path, text: &str) -> Result<(), Failure> {
    let aside = super::files::Aside::new(path)?;
    aside.file()?.write_all(text.as_bytes()).map_err(file("write", path))?;
    aside.publish(path)
}
