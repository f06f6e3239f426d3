//! What each instruction says once its flags and arguments are understood. Nothing is expanded yet.

use super::syntax::Heredoc;
use crate::container::Healthcheck;

/// An instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Instruction {
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Run(Run),
    /// `COPY` and `ADD`.
    Copy(Copy),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    StopSignal(String),
    Healthcheck(Healthcheck),
    /// The trigger as text: parsed again when the image is a base.
    Onbuild(String),
}

impl Instruction {
    /// The keyword, in upper case.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Run(_) => "RUN",
            Self::Copy(copy) if copy.add => "ADD",
            Self::Copy(_) => "COPY",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Shell(_) => "SHELL",
            Self::Workdir(_) => "WORKDIR",
            Self::User(_) => "USER",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Onbuild(_) => "ONBUILD",
        }
    }
}

/// A command in shell or exec form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The words of the exec form; one word, the script, in the shell form.
    pub words: Vec<String>,
    /// The shell form: `SHELL` goes in front.
    pub shell: bool,
}

/// `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: Command,
    /// Its heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, options not expanded.
    pub mounts: Vec<Vec<(String, Option<String>)>>,
    /// `--network`.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

/// `COPY` or `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// It is `ADD`.
    pub add: bool,
    /// Paths, patterns, and for `ADD` URLs.
    pub sources: Vec<String>,
    /// Heredocs given as sources.
    pub files: Vec<Heredoc>,
    /// The last argument.
    pub target: String,
    /// `--from`.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// `ADD --checksum`.
    pub checksum: Option<String>,
    /// `ADD --keep-git-dir`.
    pub keep_git_dir: bool,
    /// `ADD --unpack`.
    pub unpack: Option<bool>,
}

/// An instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub instruction: Instruction,
    /// First and last line.
    pub lines: (usize, usize),
    /// The joined line as it was written.
    pub text: String,
}

/// `FROM` and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// Image, stage name or `scratch`, not expanded.
    pub base: String,
    /// `--platform`, not expanded.
    pub platform: Option<String>,
    /// Its instructions.
    pub steps: Vec<Step>,
    /// Where `FROM` stands.
    pub lines: (usize, usize),
    /// The `FROM` line.
    pub text: String,
}

/// A whole Dockerfile, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// `ARG` before the first `FROM`.
    pub global_args: Vec<(String, Option<String>)>,
    /// At least one.
    pub stages: Vec<Stage>,
    /// `\` or a backtick.
    pub escape: char,
}
