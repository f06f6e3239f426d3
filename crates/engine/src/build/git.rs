//! Git repositories as contexts and as sources of `ADD`: fetched by the host's `git`, which runs nothing that a repository or
//! the host's configuration says.
//!
//! No configuration but ours is read, no hook, no pager, no credential helper and no prompt; transports are http(s), git and
//! ssh, and `file` only where the user named the repository on the command line (a Dockerfile must not read the
//! host's repositories). What is fetched is one commit deep.

use model::dockerfile::remote::Git;
use model::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::archive::Unpacked;

/// A commit of a repository, checked out.
pub struct Checkout {
    /// Its id.
    pub commit: String,
    /// The directory in use below the checkout: the repository's root, or the directory that was named.
    pub dir: PathBuf,
    /// Holds the files.
    _files: Unpacked,
}

/// What else is wanted of a repository.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// `.git` stays.
    pub keep_git_dir: bool,
    /// The commit must be this (the beginning of its id is enough).
    pub checksum: Option<&'a str>,
    /// `file://` may be used.
    pub local: bool,
    /// The agent for ssh.
    pub agent: Option<&'a Path>,
}

impl crate::Engine {
    /// Checks a repository out into a directory of its own.
    ///
    /// # Errors
    /// `git` is missing, the repository cannot be fetched, or it has no such reference or directory.
    pub fn checkout(&self, git: &Git, wanted: Wanted<'_>) -> Result<Checkout> {
        if git.local && !wanted.local {
            return Err(Error::invalid(format!(
                "{}: a Dockerfile cannot use a repository of the host's",
                git.url
            ))
            .hint("name it on the command line: --build-context NAME=file:///…, and COPY --from=NAME"));
        }
        let files = self.new_context()?;
        let run = Runner { dir: files.path(), wanted };
        run.git(&["init", "-q", "--template="])?;
        let commit = run.fetch(git)?;
        if let Some(expected) = wanted.checksum.filter(|expected| !matches_commit(&commit, expected)) {
            return Err(Error::invalid(format!(
                "{}: expected checksum to match {expected}, got {commit}",
                git.url
            )));
        }
        run.git(&["-c", "advice.detachedHead=false", "checkout", "-q", "--detach", &commit])?;
        if files.path().join(".gitmodules").is_file() {
            run.git(&["submodule", "-q", "update", "--init", "--recursive", "--depth=1"])?;
        }
        if !wanted.keep_git_dir {
            crate::container::reap::remove_tree(&files.path().join(".git"))?;
        }
        let dir = below(files.path(), git.subdir.as_deref())?;
        Ok(Checkout { commit, dir, _files: files })
    }
}

/// A commit's id begins with what was expected (seven digits at least).
fn matches_commit(commit: &str, expected: &str) -> bool {
    expected.len() >= 7 && commit.starts_with(&expected.to_ascii_lowercase())
}

/// A directory of a checkout. No link leads there: what it names is where it is (CVE-2024-23652 shows why).
fn below(root: &Path, subdir: Option<&str>) -> Result<PathBuf> {
    let mut dir = root.to_owned();
    for part in subdir.unwrap_or_default().split('/').filter(|part| !part.is_empty() && *part != ".") {
        dir.push(part);
        let is_dir = std::fs::symlink_metadata(&dir).is_ok_and(|data| data.is_dir());
        if part == ".." || !is_dir {
            return Err(Error::invalid(format!(
                "the repository has no directory {:?}",
                subdir.unwrap_or_default()
            )));
        }
    }
    Ok(dir)
}

struct Runner<'a> {
    dir: &'a Path,
    wanted: Wanted<'a>,
}

impl Runner<'_> {
    /// Fetches the reference and returns its commit.
    fn fetch(&self, git: &Git) -> Result<String> {
        let reference = git.reference.as_deref().unwrap_or("HEAD");
        let shallow = self.git(&[
            "fetch",
            "-q",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--",
            &git.url,
            reference,
        ]);
        match shallow {
            Ok(_) => self.git(&["rev-parse", "--verify", "-q", "FETCH_HEAD^{commit}"]),
            // The beginning of a commit's id, or a server that gives no single commits: it is somewhere in the history.
            Err(error) if reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit()) => {
                let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
                self.git(&["fetch", "-q", "--no-recurse-submodules", "--", &git.url, all[0], all[1]])
                    .and_then(|_| {
                        self.git(&["rev-parse", "--verify", "-q", &format!("{reference}^{{commit}}")])
                    })
                    .map_err(|_| error)
            }
            Err(error) => Err(error),
        }
        .map_err(|error| error.within(format!("repository {} at {reference}", git.url)))
    }
    /// The transports that a command may use. A submodule's URL is the repository's to choose: never one of this machine.
    fn protocols(&self, args: &[&str]) -> &'static str {
        if self.wanted.local && args[0] == "fetch" { "file:http:https:git:ssh" } else { "http:https:git:ssh" }
    }
    /// Runs git in the checkout and returns what it printed.
    fn git(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("git");
        command
            .current_dir(self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .env("HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_ALLOW_PROTOCOL", self.protocols(args))
            .env("GIT_TEMPLATE_DIR", "")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
            .env("GIT_CEILING_DIRECTORIES", self.dir.parent().unwrap_or(self.dir))
            .stdin(Stdio::null());
        if let Some(agent) = self.wanted.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let output = command.args(args).output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::not_found("git is not installed on this machine")
                .hint("git repositories are fetched by it: apt-get install git"),
            _ => Error::internal("run git").caused_by(error),
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().rev().take(LINES).collect();
        let said = said.into_iter().rev().collect::<Vec<_>>().join("; ");
        Err(Error::new(Kind::InvalidArgument, format!("git {}: {said}", args[0])))
    }
}

/// Lines of git's that an error shows.
const LINES: usize = 4;

/// What git is told, whatever its defaults.
const SETTINGS: [&str; 4] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    // The directory is ours, whoever runs us.
    "safe.directory=*",
];
