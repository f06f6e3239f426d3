//! The Router on sockets: unix, TCP with and without TLS, and systemd's, several at once, until SIGTERM or SIGINT.
//!
//! The server owns nothing but its sockets and its pid file: containers, logs and events live without it, and another
//! server on the same roots finds them as they are.

mod connection;
mod host;
mod listener;
mod raw;
mod supervisor;
mod tls;

use crate::Shared;
use engine::model::Result;
use engine::model::error::Context as _;
use rustls::ServerConfig;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use host::Host;
use listener::Listener;
use supervisor::{PidFile, notify, notify_reloading};
pub use tls::TlsFiles;

/// How long running requests are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Threads for calls of the engine. A transfer to or from a slow client keeps one; followers and waits keep none.
const THREADS: usize = 2048;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub hosts: Vec<Host>,
    /// TLS on TCP sockets.
    pub tls: Option<TlsFiles>,
    /// The group of unix sockets, by name or number.
    pub group: Option<String>,
    /// The mode of unix sockets.
    pub mode: u32,
    /// TCP off loopback even where clients are not verified.
    pub insecure: bool,
    /// Where this process's id is written.
    pub pid_file: Option<PathBuf>,
}

/// What the server has to say.
pub enum Notice {
    /// All hosts listen, at these addresses (a port 0 was chosen).
    Ready(Vec<String>),
    /// A line for the log.
    Line(String),
}

/// Serves the API until SIGTERM or SIGINT; SIGHUP reads the TLS files again.
///
/// # Errors
/// A host cannot be listened on, or a file of TLS's cannot be used.
pub fn serve(engine: &Shared, options: &Options, tell: fn(Notice)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .context(|| "start the event loop")?;
    let result = runtime.block_on(run(engine, options, tell));
    runtime.shutdown_timeout(GRACE);
    result
}

/// What TLS files say now; none without TLS.
type Tls = Option<watch::Receiver<Arc<ServerConfig>>>;

async fn run(engine: &Shared, options: &Options, tell: fn(Notice)) -> Result<()> {
    let _pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let mut files = options.tls.clone();
    let tls = files.as_mut().map(TlsFiles::read).transpose()?.map(watch::Sender::new);
    let mut listeners = Vec::new();
    for host in &options.hosts {
        listeners.extend(Listener::bind(host, options).await?);
    }
    if let Err(error) = engine.keep_known() {
        tell(Notice::Line(format!("containers are read anew for each list: {error}")));
    }
    let mut terminate = signal(SignalKind::terminate()).context(|| "wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context(|| "wait for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context(|| "wait for SIGHUP")?;
    tell(Notice::Ready(listeners.iter().map(|listener| listener.address.clone()).collect()));
    notify("READY=1");
    let (stop, stopping) = watch::channel(false);
    let sockets: Vec<_> = listeners.iter_mut().filter_map(|listener| listener.file.take()).collect();
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let tls = tls.as_ref().map(watch::Sender::subscribe);
            tokio::spawn(accept(listener, Arc::clone(engine), tls, stopping.clone(), tell))
        })
        .collect();
    drop(stopping);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(files.as_mut(), tls.as_ref(), tell),
        }
    }
    notify("STOPPING=1");
    drop(sockets);
    let _ = stop.send(true);
    for task in accepting {
        let _ = task.await;
    }
    // Each connection holds a receiver until it is done.
    let _ = tokio::time::timeout(GRACE, stop.closed()).await;
    Ok(())
}

/// Reads the TLS files again. Where they cannot be used, those before stay in force.
fn reload(files: Option<&mut TlsFiles>, tls: Option<&watch::Sender<Arc<ServerConfig>>>, tell: fn(Notice)) {
    notify_reloading();
    if let (Some(files), Some(current)) = (files, tls) {
        match files.read() {
            Ok(config) => {
                current.send_replace(config);
                tell(Notice::Line("TLS files read again".to_owned()));
            }
            Err(error) => tell(Notice::Line(format!("TLS files kept as they were: {error}"))),
        }
    }
    notify("READY=1");
}

async fn accept(
    listener: Listener,
    engine: Shared,
    tls: Tls,
    mut stopping: watch::Receiver<bool>,
    tell: fn(Notice),
) {
    let router = crate::listener_router(engine, &listener.access);
    loop {
        let stop = stopping.clone();
        let accepted = tokio::select! {
            _ = stopping.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok(stream) = accepted else {
            // Out of descriptors, say: let some connections end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let served = connection::serve(stream, tls.clone(), router.clone(), stop);
        tokio::spawn(async move {
            if let Err(text) = served.await {
                tell(Notice::Line(text));
            }
        });
    }
}
