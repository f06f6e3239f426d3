//! `context export` and `import`: a context as Docker's own archive, a tar of `meta.json` and `tls/docker/{ca,cert,key}.pem`.

use super::{DEFAULT, MATERIAL, check, load, meta, store, tls, write_material};
use crate::args::Given;
use crate::fail::{Failure, Outcome, file};
use crate::session::Session;
use clap::ArgMatches;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Bytes of an archive that is imported, at most, as in Docker.
const ARCHIVE_BYTES: u64 = 10 << 20;

/// Bytes of a tar's block.
const BLOCK: usize = 512;
/// A file of TLS material: its name in the context, and what is in it.
type Content = (&'static str, Vec<u8>);

pub(super) fn export(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("context").unwrap_or_default();
    if name != DEFAULT {
        check(name)?;
    }
    let archive = pack(session, name)?;
    let target = match given.text("file") {
        Some("-") => {
            if crate::stream::is_terminal(std::io::stdout()) {
                return Err("cowardly refusing to export to a terminal, specify a file path".into());
            }
            session.raw(&archive)?;
            return Ok(0);
        }
        Some(path) => path.to_owned(),
        None => format!("{name}.dockercontext"),
    };
    let path = std::path::Path::new(&target);
    let out = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    out.and_then(|mut out| out.write_all(&archive)).map_err(file("open", path))?;
    session.say(&format!("Written file \"{target}\""));
    Ok(0)
}

fn pack(session: &Session, name: &str) -> Result<Vec<u8>, Failure> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive
            .append_data(&mut header, path, bytes)
            .map_err(|error| Failure::new(format!("export context \"{name}\": {error}")))
    };
    add("meta.json", load(session, name)?.to_string().as_bytes())?;
    for (_, part) in MATERIAL {
        let path = tls(session, name).join("docker").join(part);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            read => add(&format!("tls/docker/{part}"), &read.map_err(file("open", &path))?)?,
        }
    }
    archive.into_inner().map_err(|error| Failure::new(format!("export context \"{name}\": {error}")))
}

pub(super) fn import(session: &Session, given: &ArgMatches) -> Outcome {
    let name = given.text("context").unwrap_or_default();
    check(name)?;
    if name == DEFAULT {
        return Err("\"default\" is a reserved context name".into());
    }
    if meta(session, name).exists() {
        return Err(Failure::new(format!("context \"{name}\" already exists")));
    }
    let source = given.text("file").unwrap_or_default();
    let path = std::path::Path::new(source);
    let mut bytes = Vec::new();
    let read = match source {
        "-" => std::io::stdin().lock().take(ARCHIVE_BYTES + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(path).and_then(|from| from.take(ARCHIVE_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(file("open", path))?;
    if bytes.len() as u64 > ARCHIVE_BYTES {
        return Err(Failure::new(format!("read: exceeded maximum allowed size of {ARCHIVE_BYTES} bytes")));
    }
    let (mut value, files) = unpack(bytes)?;
    value["Name"] = name.into();
    for (part, bytes) in files {
        write_material(session, name, part, &bytes)?;
    }
    store(session, name, &value)?;
    session.line(name)?;
    session.say(&format!("Successfully imported context \"{name}\""));
    Ok(0)
}

/// The metadata of an archive, and its TLS material by the names that a context has for it.
fn unpack(mut bytes: Vec<u8>) -> Result<(Value, Vec<Content>), Failure> {
    // Docker's archives end with the last file's last byte.
    bytes.resize(bytes.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    let bad = |error: std::io::Error| Failure::new(format!("invalid context: {error}"));
    let (mut found, mut files) = (None, Vec::new());
    for entry in tar::Archive::new(bytes.as_slice()).entries().map_err(bad)? {
        let mut entry = entry.map_err(bad)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(bad)?;
        let part = path.strip_prefix("tls/docker/");
        match MATERIAL.iter().map(|(_, part)| *part).find(|known| Some(*known) == part) {
            Some(part) => files.push((part, content)),
            None if path == "meta.json" => {
                let value = serde_json::from_slice::<Value>(&content).ok();
                found =
                    Some(value.filter(|value| value["Endpoints"].is_object()).ok_or_else(|| {
                        Failure::new("invalid context: meta.json has no endpoints".to_owned())
                    })?);
            }
            None => return Err(Failure::new(format!("{path}: unexpected context file"))),
        }
    }
    let found = found.ok_or_else(|| Failure::new("invalid context: no metadata found".to_owned()))?;
    Ok((found, files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn archives_of_contexts() {
        let meta = ("meta.json", r#"{"Name":"a","Endpoints":{"docker":{"Host":"unix:///x"}}}"#);
        let Ok((value, files)) = unpack(archive(&[meta, ("tls/docker/ca.pem", "CA")])) else { panic!() };
        assert_eq!(value["Endpoints"]["docker"]["Host"], "unix:///x");
        assert_eq!(files, [("ca.pem", b"CA".to_vec())]);
        for bad in [
            archive(&[]),
            archive(&[("meta.json", "[]")]),
            archive(&[meta, ("tls/docker/../../../x", "")]),
            archive(&[meta, ("/etc/passwd", "")]),
            b"no archive at all, but long enough".repeat(40),
        ] {
            assert!(unpack(bad).is_err());
        }
    }
}
