//! Why `execve` failed, in words: the kernel's ENOENT and ENOEXEC say little.

use model::{Error, Kind};
use std::ffi::CString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::process::lower;

/// Bytes of the program that are looked at.
const HEAD: usize = 4096;

/// The error of an `execve` that failed.
pub fn refused(name: &str, program: &CString, error: &std::io::Error) -> Error {
    let kind = if error.raw_os_error() == Some(2) { Kind::CommandNotFound } else { Kind::CannotExecute };
    let failure = Error::new(kind, format!("exec {name}: {}", lower(error)));
    let path = Path::new(std::ffi::OsStr::from_bytes(program.as_bytes()));
    let head = head(path).unwrap_or_default();
    match (error.raw_os_error(), hint(&head, |path| Path::new(path).exists())) {
        (Some(2 | 8 | 13 | 20), Some(hint)) => failure.hint(hint),
        (Some(13), None) => failure.hint(format!(
            "{name} (or its interpreter) is not executable for this user, or lies on a noexec mount"
        )),
        _ => failure,
    }
}

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(0o4000 /* O_NONBLOCK */).open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(HEAD as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// What the first bytes of a program say about why it cannot run.
fn hint(head: &[u8], exists: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(rest) = head.strip_prefix(b"#!") {
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        if text.ends_with('\r') {
            return Some("the script has Windows line ends (CRLF): the kernel looks for an interpreter whose name ends in a carriage return".to_owned());
        }
        let interpreter = text.split_whitespace().next().unwrap_or_default();
        return (!exists(interpreter))
            .then(|| format!("the script's interpreter {interpreter:?} is not in the image"));
    }
    if head.starts_with(b"\x7fELF") {
        return elf(head, exists);
    }
    if head.is_empty() {
        return Some("the file is empty".to_owned());
    }
    let text = head.iter().take(256).all(|byte| matches!(byte, 9 | 10 | 13 | 27 | 32..=126 | 128..));
    text.then(|| {
        "the file is a script without an interpreter line: its first line must be like #!/bin/sh".to_owned()
    })
}

fn elf(head: &[u8], exists: impl Fn(&str) -> bool) -> Option<String> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
    let machine = u16_at(18)?;
    if machine != 62 && machine != 3 {
        let name = match machine {
            183 => "arm64",
            40 => "arm",
            243 => "riscv64",
            22 => "s390x",
            21 => "ppc64le",
            8 => "mips",
            258 => "loongarch64",
            _ => "another architecture",
        };
        return Some(format!(
            "the program is built for {name}, this machine is amd64: use an image for linux/amd64"
        ));
    }
    if machine == 3 || head.get(4) != Some(&2) {
        return None;
    }
    let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    for number in 0..u64::from(count.min(64)) {
        let at = usize::try_from(table.checked_add(number * u64::from(size))?).ok()?;
        if head.get(at..at.checked_add(4)?)? == [3, 0, 0, 0] {
            let offset = usize::try_from(u64_at(at + 8)?).ok()?;
            let length = usize::try_from(u64_at(at + 32)?).ok()?;
            let loader = head.get(offset..offset.checked_add(length)?)?;
            let loader = String::from_utf8_lossy(loader).trim_end_matches('\0').to_owned();
            return (!exists(&loader)).then(|| {
                format!("the program needs the dynamic loader {loader}, which is not in the image: link it statically, or use a base image that has it")
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints() {
        let none = |_: &str| false;
        let says = |head: &[u8], word: &str| assert!(hint(head, none).unwrap().contains(word), "{word}");
        says(b"#!/bin/nope -x\n", "/bin/nope");
        says(b"#!/bin/sh\r\n", "CRLF");
        says(b"echo hi\n", "#!/bin/sh");
        says(b"", "empty");
        assert_eq!(hint(b"#!/bin/sh\n", |_| true), None);
        let mut elf = vec![0; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[18] = 183;
        says(&elf, "arm64");
        elf[18] = 62;
        elf[4] = 2;
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        elf.extend([0; 56]);
        elf[64] = 3;
        (elf[72], elf[96]) = (120, 5);
        elf.extend(b"/ld.1");
        says(&elf, "/ld.1");
        elf[73] = 0xff;
        assert_eq!(hint(&elf, none), None);
    }
}
