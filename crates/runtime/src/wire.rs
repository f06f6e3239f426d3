//! What launcher, monitor and init say to each other: one message a packet on `SOCK_SEQPACKET` pairs, and framed JSON on
//! `monitor.sock` (u32 BE length, then the object).

use model::bundle::Process;
use model::state::Live;
use model::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::Streams;

/// Bytes of a request or an answer on `monitor.sock`.
pub const FRAME_BYTES: usize = 8 << 20;

/// An error in transit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    kind: String,
    message: String,
    hint: Option<String>,
}

const KINDS: [(Kind, &str); 14] = [
    (Kind::InvalidArgument, "invalid"),
    (Kind::NotFound, "not-found"),
    (Kind::AlreadyExists, "exists"),
    (Kind::Conflict, "conflict"),
    (Kind::NotModified, "not-modified"),
    (Kind::PermissionDenied, "denied"),
    (Kind::Unauthorized, "unauthorized"),
    (Kind::ResourceExhausted, "exhausted"),
    (Kind::Unavailable, "unavailable"),
    (Kind::NotImplemented, "not-implemented"),
    (Kind::CannotExecute, "cannot-execute"),
    (Kind::CommandNotFound, "command-not-found"),
    (Kind::Cancelled, "cancelled"),
    (Kind::Internal, "internal"),
];

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = KINDS.iter().find(|(kind, _)| *kind == error.kind()).map_or("internal", |(_, name)| name);
        Self { kind: kind.to_owned(), message: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind =
            KINDS.iter().find(|(_, name)| *name == failure.kind).map_or(Kind::Internal, |(kind, _)| *kind);
        let error = Error::new(kind, failure.message);
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// From init to the monitor. The end of the channel means that `execve` has succeeded.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromInit {
    /// The terminal's controlling end comes with this packet.
    Terminal,
    /// Something was done differently from what was asked.
    Warning(String),
    /// All is set up but what waits for [`GO`].
    Ready,
    /// It is over.
    Failed(Failure),
}

/// From the monitor to init: the cgroups are there.
pub const CGROUPS: u8 = b'C';
/// From the monitor to init, from the launcher to the monitor: run.
pub const GO: u8 = b'S';

/// From the launcher to the monitor: the bundle is there; the network namespace comes with this packet, if there is one.
pub const BUNDLE: u8 = b'B';

/// From the monitor to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromMonitor {
    /// Init exists.
    Pid(i32),
    /// The process runs.
    Started(Live),
    /// It does not, and nothing is left.
    Failed(Failure),
}

/// What is asked on `monitor.sock`.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// The answer is followed by the stream.
    Attach(Streams),
    /// The answer is followed by the stream, unless `detach`.
    Exec {
        /// The exec's identifier.
        id: String,
        /// What to run.
        process: Box<Process>,
        /// Wanted streams.
        streams: Streams,
        /// No stream.
        detach: bool,
    },
    /// No restart follows.
    Stop(Option<i32>),
    /// Freeze or thaw.
    Pause(bool),
    /// Terminal size.
    Resize {
        /// Of this exec, or of the container.
        exec: Option<String>,
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// What may change while it runs.
    Change(crate::Changed),
    /// `ports.json` has changed.
    Ports,
    /// `resolver.json` has come: names are resolved from now on.
    Resolve,
    /// Watch over the firewall, if nobody does.
    Watch,
    /// Answered when the run of this process is over.
    Wait {
        /// Of init.
        pid: i32,
        /// Of init.
        start_time: u64,
    },
}

/// The answer to a [`Request`].
pub type Answer = Result<(), Failure>;

/// JSON of one of the above.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The inverse of [`encode`].
///
/// # Errors
/// It is something else.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::internal("malformed message of the monitor's").caused_by(error))
}

/// With its length in front.
pub fn frame<T: Serialize>(value: &T) -> Vec<u8> {
    let body = encode(value);
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// Sends a request and waits for the answer; what follows it stays in the stream.
///
/// # Errors
/// The monitor's, or [`Kind::Unavailable`] where it went away.
pub fn call(mut stream: UnixStream, request: &Request) -> Result<UnixStream> {
    let gone = |error: std::io::Error| {
        Error::new(Kind::Unavailable, "the container's monitor does not answer").caused_by(error)
    };
    stream.write_all(&frame(request)).map_err(gone)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(gone)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES {
        return Err(Error::internal("malformed answer of the monitor's"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).map_err(gone)?;
    let answer: Answer = decode(&body)?;
    answer.map_err(Error::from)?;
    Ok(stream)
}
