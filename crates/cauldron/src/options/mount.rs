//! `-v` and `--mount`.

use crate::render::size;
use client::bollard::models::{
    Mount, MountBindOptions, MountTmpfsOptions, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};
use std::collections::HashMap;
use std::path::Path;

/// A `-v` value: an anonymous volume, or a bind with its source made absolute.
#[derive(Debug, PartialEq, Eq)]
pub enum Volume {
    /// `-v /data`.
    Anonymous(String),
    /// `-v source:/data[:mode]`.
    Bind(String),
}

/// Reads `-v`; a source that begins with `.` or `~`-less relative path is below `cwd`.
///
/// # Errors
/// It is malformed.
pub fn volume(flag: &str, cwd: &Path) -> Result<Volume, String> {
    let parts: Vec<&str> = flag.split(':').collect();
    if flag.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    if parts.len() > 3 {
        return Err(format!("invalid volume specification: '{flag}'"));
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("invalid spec: {flag}: empty section between colons"));
    }
    match parts.as_slice() {
        [target] => Ok(Volume::Anonymous((*target).to_owned())),
        [source, rest @ ..] if rest.len() <= 2 => {
            let source =
                if *source == "." || *source == ".." || source.starts_with("./") || source.starts_with("../")
                {
                    clean(&cwd.join(source))
                } else {
                    (*source).to_owned()
                };
            Ok(Volume::Bind(format!("{source}:{}", rest.join(":"))))
        }
        _ => Err(format!("invalid spec: {flag}: invalid volume specification")),
    }
}

/// `.` and `..` resolved in the text, as the shell's user means them.
fn clean(path: &Path) -> String {
    let mut out = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out.to_string_lossy().into_owned()
}

/// Splits a comma-separated value with CSV's quotes.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let (mut field, mut quoted) = (String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err(format!("unterminated quote in {text}"));
    }
    out.push(field);
    Ok(out)
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "true" | "TRUE" | "True" | "t" => Ok(true),
        "0" | "false" | "FALSE" | "False" | "f" => Ok(false),
        _ => Err(format!("invalid value for {key}: {value}")),
    }
}

/// Reads `--mount`.
///
/// # Errors
/// It is malformed: names the field.
pub fn mount(flag: &str, cwd: &Path) -> Result<Mount, String> {
    let mut kind = "volume".to_owned();
    let mut mount = Mount::default();
    let (mut bind, mut volume, mut tmpfs) =
        (MountBindOptions::default(), MountVolumeOptions::default(), MountTmpfsOptions::default());
    let (mut has_bind, mut has_volume, mut has_tmpfs, mut subpath) = (false, false, false, None);
    for field in fields(flag)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "type" => kind = value.to_ascii_lowercase(),
            "source" | "src" => mount.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(boolean(&key, value)?),
            "rw" => mount.read_only = Some(!boolean(&key, value)?),
            "consistency" => mount.consistency = Some(value.to_owned()),
            "bind-propagation" => {
                has_bind = true;
                bind.propagation =
                    Some(value.parse().map_err(|_| format!("invalid value for bind-propagation: {value}"))?);
            }
            "bind-nonrecursive" => {
                has_bind = true;
                bind.non_recursive = Some(boolean(&key, value)?);
            }
            "bind-recursive" => {
                has_bind = true;
                match value {
                    "enabled" => {}
                    "disabled" => bind.non_recursive = Some(true),
                    "writable" => bind.read_only_non_recursive = Some(true),
                    "readonly" => bind.read_only_force_recursive = Some(true),
                    _ => return Err(format!("invalid value for bind-recursive: {value}")),
                }
            }
            "bind-create-src" | "create-host-path" => {
                has_bind = true;
                bind.create_mountpoint = Some(boolean(&key, value)?);
            }
            "volume-nocopy" => {
                has_volume = true;
                volume.no_copy = Some(boolean(&key, value)?);
            }
            "volume-label" => {
                has_volume = true;
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                volume.labels.get_or_insert_with(HashMap::new).insert(name.to_owned(), value.to_owned());
            }
            "volume-driver" => {
                has_volume = true;
                driver(&mut volume).name = Some(value.to_owned());
            }
            "volume-opt" => {
                has_volume = true;
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                driver(&mut volume)
                    .options
                    .get_or_insert_with(HashMap::new)
                    .insert(name.to_owned(), value.to_owned());
            }
            "volume-subpath" | "image-subpath" | "subpath" => subpath = Some(value.to_owned()),
            "tmpfs-size" => {
                has_tmpfs = true;
                tmpfs.size_bytes = Some(size::parse(value)?);
            }
            "tmpfs-mode" => {
                has_tmpfs = true;
                tmpfs.mode = Some(
                    i64::from_str_radix(value, 8)
                        .map_err(|_| format!("invalid value for tmpfs-mode: {value}"))?,
                );
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if mount.target.as_deref().unwrap_or_default().is_empty() {
        return Err("target is required".to_owned());
    }
    let typed = match kind.as_str() {
        "bind" => client::bollard::models::MountType::BIND,
        "volume" => client::bollard::models::MountType::VOLUME,
        "tmpfs" => client::bollard::models::MountType::TMPFS,
        "image" => client::bollard::models::MountType::IMAGE,
        _ => return Err(format!("mount type '{kind}' is not supported")),
    };
    mount.typ = Some(typed);
    if kind == "bind" {
        let source = mount.source.take().unwrap_or_default();
        mount.source = Some(if source.is_empty() || source.starts_with('/') {
            source
        } else {
            clean(&cwd.join(source))
        });
    }
    for (given, wanted) in [(has_bind, "bind"), (has_volume, "volume"), (has_tmpfs, "tmpfs")] {
        if given && kind != wanted {
            return Err(format!("cannot mix '{wanted}-*' options with mount type '{kind}'"));
        }
    }
    mount.bind_options = has_bind.then_some(bind);
    if kind == "image" {
        mount.image_options =
            subpath.map(|path| client::bollard::models::MountImageOptions { subpath: Some(path) });
    } else if subpath.is_some() {
        volume.subpath = subpath;
        has_volume = true;
    }
    mount.volume_options = has_volume.then_some(volume);
    mount.tmpfs_options = has_tmpfs.then_some(tmpfs);
    Ok(mount)
}

fn driver(volume: &mut MountVolumeOptions) -> &mut MountVolumeOptionsDriverConfig {
    volume.driver_config.get_or_insert_with(MountVolumeOptionsDriverConfig::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes() {
        let read = |flag: &str| volume(flag, Path::new("/here/now"));
        assert_eq!(read("/data"), Ok(Volume::Anonymous("/data".into())));
        assert_eq!(read("name:/data:ro"), Ok(Volume::Bind("name:/data:ro".into())));
        assert_eq!(read("./x:/data"), Ok(Volume::Bind("/here/now/x:/data".into())));
        assert_eq!(read(".:/data"), Ok(Volume::Bind("/here/now:/data".into())));
        assert_eq!(read("../y:/data"), Ok(Volume::Bind("/here/y:/data".into())));
        assert!(read(":/data").is_err() && read("a:b:c:d").is_err());
    }

    #[test]
    fn mounts() {
        let read = |flag: &str| mount(flag, Path::new("/here"));
        let bind = read("type=bind,source=x,\"target=/a,b\",readonly").unwrap();
        assert_eq!(
            (bind.source.as_deref(), bind.target.as_deref(), bind.read_only),
            (Some("/here/x"), Some("/a,b"), Some(true))
        );
        let volume = read("src=v,dst=/d,volume-nocopy,volume-subpath=s").unwrap();
        assert_eq!(volume.volume_options.unwrap().subpath.as_deref(), Some("s"));
        let tmpfs = read("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap().tmpfs_options.unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (Some(1 << 20), Some(0o1777)));
        for wrong in
            ["type=bind,source=/x", "type=nope,dst=/x", "dst=/x,what=1", "type=volume,dst=/x,tmpfs-size=1"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
