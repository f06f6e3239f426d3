//! One run of the binary: the engine that was chosen, the streams, and what the environment says.

use crate::fail::Failure;
use clap::ArgMatches;
use client::{Client, Options};
use std::cell::OnceCell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

/// Shared by everything that one command does.
#[derive(Clone)]
pub struct Session {
    inner: Rc<Inner>,
}

struct Inner {
    options: Options,
    program: String,
    group: Option<ArgMatches>,
    client: OnceCell<Client>,
    docker_config: PathBuf,
}

impl Session {
    /// With this choice of an engine; `program` is the name that we go by.
    /// `group`: what was given between the group's name and the verb's, or to a verb without a group.
    pub fn new(
        options: Options,
        program: String,
        docker_config: Option<PathBuf>,
        group: Option<ArgMatches>,
    ) -> Self {
        let docker_config = docker_config.or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from));
        let docker_config = docker_config.unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker")
        });
        Self { inner: Rc::new(Inner { options, program, group, client: OnceCell::new(), docker_config }) }
    }

    /// The engine's client, connected when it is first needed.
    ///
    /// # Errors
    /// There is no such engine.
    pub fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.inner.client.get() {
            return Ok(client);
        }
        let client = client::connect(&self.inner.options)?;
        Ok(self.inner.client.get_or_init(|| client))
    }

    /// What was given to the group of verbs (`compose -f …`).
    pub fn group(&self) -> Option<&ArgMatches> {
        self.inner.group.as_ref()
    }

    /// The choice of an engine.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// The arguments that choose the same engine once more.
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        let options = self.options();
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: Option<std::ffi::OsString>| {
            if let Some(value) = value {
                arguments.extend([flag.into(), value]);
            }
        };
        add("--host", options.host.clone().map(Into::into));
        add("--context", options.context.clone().map(Into::into));
        add("--root", Some(options.roots.root.clone().into()));
        add("--run-root", Some(options.roots.run_root.clone().into()));
        add("--config-file", options.roots.config.clone().map(Into::into));
        add("--tlscacert", options.tls.ca.clone().map(Into::into));
        add("--tlscert", options.tls.cert.clone().map(Into::into));
        add("--tlskey", options.tls.key.clone().map(Into::into));
        for (flag, on) in [("--tls", options.tls.enabled), ("--tlsverify", options.tls.verify)] {
            if on {
                arguments.push(flag.into());
            }
        }
        arguments
    }

    /// Where credentials are kept: `~/.docker`.
    pub fn docker_config(&self) -> &std::path::Path {
        &self.inner.docker_config
    }

    /// The name that we go by.
    pub fn program(&self) -> &str {
        &self.inner.program
    }

    /// Data, on stdout.
    ///
    /// # Errors
    /// Stdout is closed: silently, as for any filter.
    pub fn out(&self, text: &str) -> Result<(), Failure> {
        self.raw(text.as_bytes())
    }

    /// Data as bytes, on stdout.
    ///
    /// # Errors
    /// As [`Session::out`].
    pub fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::silent(141),
            _ => Failure::new(format!("write to stdout: {error}")),
        })
    }

    /// One line of data.
    ///
    /// # Errors
    /// As [`Session::out`].
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.out(&format!("{text}\n"))
    }

    /// Talk, on stderr.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// A failure that does not end the command, on stderr.
    pub fn complain(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        if self.inner.program == "docker" && failure.from_engine {
            self.say(&format!("Error response from daemon: {}", failure.message));
        } else {
            self.say(&format!("{}: {}", self.inner.program, failure.message));
        }
    }

    /// Seconds and nanoseconds since 1970.
    pub fn now(&self) -> (i64, u32) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
    }

    /// Asks on the terminal; anything but yes is no.
    pub fn confirm(&self, question: &str) -> bool {
        let _ = write!(std::io::stdout(), "{question} [y/N] ").and_then(|()| std::io::stdout().flush());
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    }

    /// Does the same to each object: names those that worked, complains about those that did not.
    ///
    /// # Errors
    /// Stdout is closed.
    pub async fn each<F>(&self, names: &[String], mut work: impl FnMut(String) -> F) -> crate::fail::Outcome
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let mut code = 0;
        for name in names {
            code = code.max(self.tell(name, work(name.clone()).await)?);
        }
        Ok(code)
    }

    /// As [`Session::each`], all at the same time: three containers that take their time to stop take it once.
    ///
    /// # Errors
    /// Stdout is closed.
    pub async fn together<F>(&self, names: &[String], work: impl FnMut(String) -> F) -> crate::fail::Outcome
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let outcomes = futures_util::future::join_all(names.iter().cloned().map(work)).await;
        let mut code = 0;
        for (name, outcome) in names.iter().zip(outcomes) {
            code = code.max(self.tell(name, outcome)?);
        }
        Ok(code)
    }

    /// Names an object for which something worked, or complains; the exit code.
    ///
    /// # Errors
    /// Stdout is closed.
    pub fn tell(&self, name: &str, outcome: Result<(), Failure>) -> crate::fail::Outcome {
        match outcome {
            Ok(()) => self.line(name).map(|()| 0),
            Err(failure) => {
                self.complain(&failure);
                Ok(failure.code.unwrap_or(1))
            }
        }
    }
}
