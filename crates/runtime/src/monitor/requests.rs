//! What clients ask for, and execs from their start to their end.

use model::bundle::Process;
use model::{Error, Kind, Result};

use super::client::Purpose;
use super::session::Session;
use super::{MAIN, Monitor, exec, record};
use crate::wire::{self, Answer, Failure, FromInit, Request};
use crate::{ExecState, Streams};

impl Monitor {
    pub(super) fn handle(&mut self, at: usize, request: Request) {
        let done = match request {
            Request::Attach(streams) => {
                let running = self.running().map(|_| ());
                if running.is_ok() {
                    self.purpose(at, Purpose::Attached(MAIN, streams));
                }
                running
            }
            Request::Exec { id, process, streams, detach } => match self.exec(at, &id, &process) {
                Ok(()) => return self.purpose(at, Purpose::Starting(streams, detach)),
                Err(error) => {
                    let code = record::start_code(&error);
                    record::write_exec(
                        &self.bundle,
                        &id,
                        &ExecState { pid: 0, running: false, exit_code: Some(code) },
                    );
                    Err(error)
                }
            },
            Request::Stop(signal) => self.stop(signal),
            Request::Pause(paused) => self.pause(paused),
            Request::Resize { exec, rows, columns } => self.resize(exec.as_deref(), rows, columns),
            Request::Change(changed) => self.change(changed),
            Request::Ports => self.hold_ports(),
            Request::Resolve => self.open_resolver(),
            Request::Watch => self.watch_firewall(),
            Request::Wait { pid, start_time } => {
                if self.live.pid == pid && self.live.start_time == start_time {
                    return self.purpose(at, Purpose::Waiting);
                }
                Ok(())
            }
        };
        self.answer(at, done);
    }
    fn purpose(&mut self, at: usize, purpose: Purpose) {
        if let Some(client) = &mut self.clients[at] {
            client.purpose = purpose;
        }
    }
    /// Answers; a connection that is not for a stream ends with the answer.
    fn answer(&mut self, at: usize, result: Result<()>) {
        let answer: Answer = result.map_err(|error| Failure::from(&error));
        let failed = answer.is_err();
        let Some(client) = &mut self.clients[at] else { return };
        let gone = client.send(&wire::frame(&answer)).is_err();
        client.closing = failed || !matches!(client.purpose, Purpose::Attached(..));
        if gone || (client.closing && client.queue.is_empty()) {
            self.drop_client(at);
        } else {
            self.watch_client(at);
        }
    }
    fn running(&self) -> Result<&Session> {
        self.sessions[MAIN].as_ref().ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                format!("Container {} is restarting, wait until the container is running", self.bundle.id),
            )
        })
    }
    fn resize(&self, exec: Option<&str>, rows: u16, columns: u16) -> Result<()> {
        let session = match exec {
            None => self.running()?,
            Some(id) => self
                .sessions
                .iter()
                .flatten()
                .find(|session| session.exec.as_deref() == Some(id))
                .ok_or_else(|| Error::new(Kind::NotFound, format!("No such exec instance: {id}")))?,
        };
        session
            .resize(rows, columns)
            .map_err(|error| Error::new(Kind::Conflict, "resize the terminal").caused_by(error))
    }
    fn exec(&mut self, at: usize, id: &str, process: &Process) -> Result<()> {
        record::exec_path(&self.bundle.run_dir.0, id)?;
        if self.live.paused {
            let text = format!(
                "Container {} is paused, unpause the container before exec",
                self.bundle.name.trim_start_matches('/')
            );
            return Err(Error::new(Kind::Conflict, text));
        }
        let main = self.running()?;
        let mut session = exec::begin(main, &self.cgroup, process)?;
        session.exec = Some(id.to_owned());
        session.requester = Some(at);
        record::write_exec(&self.bundle, id, &ExecState { pid: session.pid, running: true, exit_code: None });
        self.add_session(session);
        Ok(())
    }
    pub(super) fn add_session(&mut self, session: Session) {
        let index =
            self.sessions.iter().skip(1).position(Option::is_none).map_or(self.sessions.len(), |at| at + 1);
        if index == self.sessions.len() {
            self.sessions.push(None);
        }
        self.watch(index, session);
    }
    /// A message of a process that is being set up; the end of the channel means that it runs, or has failed before.
    pub(super) fn channel_ready(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index).and_then(Option::as_mut) else { return };
        let Some(channel) = &session.channel else { return };
        let (message, fd) = sys::socket::receive(channel).unwrap_or_default();
        match wire::decode(&message) {
            Ok(FromInit::Terminal) => {
                if let Some(fd) = fd {
                    session.set_terminal(fd);
                    session.watched = false;
                    self.watch_outputs(index);
                }
            }
            Ok(FromInit::Warning(text)) => record::warning(&self.bundle, &text),
            Ok(FromInit::Failed(failure)) => session.failure = Some(failure),
            Ok(FromInit::Ready) => {}
            Err(_) => self.set_up(index),
        }
    }
    /// The channel is closed.
    fn set_up(&mut self, index: usize) {
        let Some(session) = self.sessions[index].as_mut() else { return };
        if let Some(channel) = session.channel.take() {
            self.poll.remove(&channel);
        }
        let result = match &session.failure {
            Some(failure) => Err(Error::from(failure.clone())),
            None => Ok(()),
        };
        let Some(at) = session.requester.take() else { return };
        if result.is_err() {
            // The answer comes after the state: whoever hears of the failure finds its code.
            session.requester = Some(at);
            return;
        }
        self.started(at, index);
    }
    fn started(&mut self, at: usize, index: usize) {
        let Some(client) = self.clients.get_mut(at).and_then(Option::as_mut) else { return };
        let Purpose::Starting(streams, detach) = client.purpose else { return };
        client.purpose = if detach {
            Purpose::Attached(index, Streams::default())
        } else {
            Purpose::Attached(index, streams)
        };
        let bytes = wire::frame(&Ok::<(), Failure>(()));
        let gone = client.send(&bytes).is_err();
        client.closing = detach;
        if gone || (detach && client.queue.is_empty()) {
            self.drop_client(at);
        } else {
            self.watch_client(at);
        }
    }
    pub(super) fn exec_ended(&mut self, index: usize) {
        let Some(session) = self.sessions.get(index).and_then(Option::as_ref) else { return };
        if let Ok(Some((_, ended))) = sys::process::wait(session.pid, false) {
            // Its last messages may not have been read.
            while self.sessions[index].as_ref().is_some_and(|session| session.channel.is_some()) {
                self.channel_ready(index);
            }
            self.finish(index, ended.code());
        }
    }
    /// The container has ended, and with it every exec.
    pub(super) fn end_with_container(&mut self, index: usize) {
        if let Some(session) = &self.sessions[index] {
            let _ = sys::process::signal(&session.pidfd, 9);
            let code =
                sys::process::wait(session.pid, true).ok().flatten().map_or(137, |(_, ended)| ended.code());
            self.finish(index, code);
        }
    }
    fn finish(&mut self, index: usize, code: i32) {
        let Some(mut session) = self.sessions[index].take() else { return };
        self.poll.remove(&session.pidfd);
        self.drain(index, &mut session);
        let failure = session.failure.take().map(Error::from);
        let code = failure.as_ref().map_or(code, record::start_code);
        if let Some(id) = &session.exec {
            record::write_exec(
                &self.bundle,
                id,
                &ExecState { pid: session.pid, running: false, exit_code: Some(code) },
            );
            if failure.is_none() {
                record::event(
                    &self.bundle,
                    "exec_die",
                    &[("execID", id.clone()), ("exitCode", code.to_string())],
                );
            }
        }
        if let (Some(at), Some(error)) = (session.requester, failure) {
            self.answer(at, Err(error));
        }
        if let Some((probe, _)) = session.probe.take() {
            self.probed(probe, code);
        }
        for at in 0..self.clients.len() {
            let Some(client) = &mut self.clients[at] else { continue };
            if matches!(client.purpose, Purpose::Attached(of, _) if of == index) {
                client.closing = true;
                if client.queue.is_empty() {
                    self.drop_client(at);
                } else {
                    self.watch_client(at);
                }
            }
        }
    }
}
