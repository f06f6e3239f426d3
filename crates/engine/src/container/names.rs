//! Names: `names/<name>` holds the id. Taking one is `link(2)` of a complete file, so exactly one process gets it.

use model::error::Context as _;
use model::{ContainerId, Error, Kind, Result, limits};
use std::path::Path;

use super::lookup::has_spec;
use crate::Engine;

/// First halves of made-up names: what fire and brewing do.
const QUALITIES: [&str; 64] = [
    "amber",
    "ashen",
    "balmy",
    "blazing",
    "boiling",
    "braised",
    "bright",
    "bubbling",
    "candied",
    "charred",
    "clear",
    "coppery",
    "crackling",
    "crisp",
    "curling",
    "dappled",
    "earthy",
    "embered",
    "fervent",
    "flaring",
    "fragrant",
    "frothy",
    "gilded",
    "gleaming",
    "glowing",
    "golden",
    "hearty",
    "herbal",
    "honeyed",
    "humming",
    "infused",
    "jovial",
    "kindled",
    "lively",
    "mellow",
    "minted",
    "misty",
    "molten",
    "mulled",
    "nimble",
    "peppery",
    "piping",
    "pungent",
    "quiet",
    "radiant",
    "roasted",
    "rustic",
    "salted",
    "savory",
    "searing",
    "silvery",
    "simmering",
    "singing",
    "smoky",
    "sparkling",
    "spiced",
    "steady",
    "steaming",
    "stirred",
    "tangy",
    "tempered",
    "toasty",
    "vivid",
    "zesty",
];
/// Second halves: people who studied heat, matter and machines.
const PEOPLE: [&str; 64] = [
    "agnesi",
    "archimedes",
    "avogadro",
    "bacon",
    "banneker",
    "bell",
    "berzelius",
    "biruni",
    "black",
    "bohr",
    "boyle",
    "carnot",
    "cavendish",
    "clapeyron",
    "clausius",
    "curie",
    "dalton",
    "davy",
    "dirac",
    "dulong",
    "euler",
    "fahrenheit",
    "faraday",
    "fourier",
    "gauss",
    "geber",
    "germain",
    "gibbs",
    "hamilton",
    "helmholtz",
    "hertz",
    "hooke",
    "hypatia",
    "joule",
    "kelvin",
    "kirchhoff",
    "lavoisier",
    "leavitt",
    "lovelace",
    "maxwell",
    "meitner",
    "mendeleev",
    "newcomen",
    "noether",
    "ohm",
    "paracelsus",
    "pasteur",
    "perkin",
    "planck",
    "priestley",
    "proust",
    "ramsay",
    "rankine",
    "razi",
    "rumford",
    "savery",
    "scheele",
    "somerville",
    "stokes",
    "tesla",
    "torricelli",
    "volta",
    "watt",
    "wien",
];

/// Docker's `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && name.len() <= limits::NAME_BYTES
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Refuses a malformed name with Docker's text.
pub(crate) fn check(name: &str) -> Result<()> {
    if is_valid(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

impl Engine {
    /// Who has a name.
    pub(crate) fn name_owner(&self, name: &str) -> Result<Option<ContainerId>> {
        if !is_valid(name) {
            return Ok(None);
        }
        let path = self.store.layout.names().join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(ContainerId::parse(text.trim_end()).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("read {}", path.display())),
        }
    }
    /// Takes a name for a container whose directory exists. The id is also a file of the directory (`id`), which the
    /// name is linked to: a name never shows up half-written.
    ///
    /// # Errors
    /// Docker's text where another container has it.
    pub(crate) fn take_name(&self, name: &str, id: &ContainerId) -> Result<()> {
        check(name)?;
        let path = self.store.layout.names().join(name);
        let file = self.store.layout.container(id).join("id");
        // After a loss of power it may be empty.
        if std::fs::metadata(&file).map_or(0, |metadata| metadata.len()) == 0 {
            sys::fs::private_file(&file, id.as_str().as_bytes())
                .context(|| format!("write {}", file.display()))?;
        }
        for _ in 0..3 {
            match std::fs::hard_link(&file, &path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(|| format!("take name {name}")),
            }
            if let Some(owner) = self.clear_stale_name(name, &path)? {
                return Err(Error::new(
                    Kind::Conflict,
                    format!(
                        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
                    ),
                ));
            }
        }
        Err(Error::conflict(format!("take name {name}: others keep taking it")))
    }
    /// A name whose container never came to be, or is gone, is free. Returns the owner otherwise.
    fn clear_stale_name(&self, name: &str, path: &Path) -> Result<Option<ContainerId>> {
        let lock = self.store.layout.lock("names");
        let _lock = sys::fs::Lock::exclusive(&lock).context(|| format!("lock {}", lock.display()))?;
        let remove = || match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("free name {name}"))
            }
            _ => Ok(None),
        };
        let Some(owner) = self.name_owner(name)? else {
            return remove();
        };
        let dir = self.store.layout.container(&owner);
        if has_spec(&dir) {
            return Ok(Some(owner));
        }
        // A directory without a specification is being made by whoever holds its lock, or was left by a crash.
        if dir.exists() && self.try_lock_container(&owner)?.is_none() {
            return Ok(Some(owner));
        }
        remove()
    }
    /// Gives a name back, if it is this container's. Idempotent.
    pub(crate) fn free_name(&self, name: &str, id: &ContainerId) -> Result<()> {
        if self.name_owner(name)?.as_ref() != Some(id) {
            return Ok(());
        }
        match std::fs::remove_file(self.store.layout.names().join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("free name {name}"))
            }
            _ => Ok(()),
        }
    }
    /// Waits until the names that are taken now are on the disk.
    pub(crate) fn sync_names(&self) -> Result<()> {
        let names = self.store.layout.names();
        sys::fs::sync(&names).context(|| format!("sync {}", names.display()))
    }
    /// Takes a made-up name.
    pub(crate) fn take_generated_name(&self, id: &ContainerId) -> Result<String> {
        for retry in 0..64u32 {
            let mut random = [0u8; 4];
            fill_random(&mut random)?;
            let quality = QUALITIES[usize::from(random[0]) % QUALITIES.len()];
            let person = PEOPLE[usize::from(random[1]) % PEOPLE.len()];
            let name = match retry {
                0..4 => format!("{quality}_{person}"),
                _ => format!("{quality}_{person}{}", u16::from_le_bytes([random[2], random[3]]) % 1000),
            };
            match self.take_name(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        let name = id.short().to_owned();
        self.take_name(&name, id).map(|()| name)
    }
}

/// Random bytes from the kernel.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(std::io::Error::from)
            .context(|| "read random bytes")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_docker_takes() {
        for name in ["ab", "A1", "web.1", "a_b-c", "0abc"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "a", "-ab", "_ab", "a/b", "a b", "..", "a\n", &"x".repeat(256)] {
            assert!(!is_valid(name), "{name:?}");
        }
        for name in QUALITIES.iter().chain(&PEOPLE) {
            assert!(is_valid(name), "{name}");
        }
    }
}
