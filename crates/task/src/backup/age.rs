//! Encryption by the machine's own `age`: its keys and files are those that people have, and can be opened without us.

use crate::definition::Encrypt;
use crate::error::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the program is there, before anything is done that needs it.
pub fn there() -> Result<()> {
    let found = Command::new("age").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(format!("encrypted backups need the program age: {error}"))
            .hint("install it (Debian: apt-get install age), or leave encrypt out")),
    }
}

/// Encrypts a file into another.
pub fn encrypt(how: &Encrypt, from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("age");
    command.arg("--encrypt");
    for recipient in &how.recipients {
        command.args(["--recipient", recipient]);
    }
    for file in &how.recipients_files {
        command.arg("--recipients-file").arg(file);
    }
    run(command, from, to)
}

/// Decrypts a file into another.
pub fn decrypt(identity: &Path, from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("age");
    command.arg("--decrypt").arg("--identity").arg(identity);
    run(command, from, to)
}

fn run(mut command: Command, from: &Path, to: &Path) -> Result<()> {
    command.arg("--output").arg(to).arg("--").arg(from);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::new(format!("run age for {}: {error}", from.display())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().filter(|line| line.starts_with("age: error: ")).collect();
    Err(Error::new(format!("age for {}: {}", from.display(), said.join("; "))))
}
