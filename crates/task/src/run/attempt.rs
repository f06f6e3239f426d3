//! One target: tries until one succeeds or there are enough. One try: steps before, container, time limit, steps undone.

use super::{Ask, Ended, Event, LAST_LINES, NOT_RUN, Run, STOPPED, TIMED_OUT};
use crate::backup::{self, Part, Taken};
use crate::body::{self, Try};
use crate::definition::Overlap;
use crate::error::{Context as _, Error, Result};
use crate::history::{End, Recorder, TryRow};
use crate::target::Target;
use client::{Demultiplexer, Lines, Method, query};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

/// Between two looks at a running container's use of resources, in the long run; at first they are closer.
const SAMPLE: Duration = Duration::from_secs(2);
/// How long a container may take to end after it was asked to stop, where it does not say itself.
const GRACE: i64 = 10;

/// What a container's process did.
#[derive(Default)]
struct Done {
    code: Option<i64>,
    error: Option<String>,
    timed_out: bool,
    stopped: bool,
    cpu_nanos: Option<i64>,
    memory_peak: Option<i64>,
}

impl Run<'_> {
    /// All tries of a target.
    pub(super) async fn target(&self, target: Option<&Target>) -> Result<Ended> {
        let retries = self.task.definition.retries;
        let mut attempt = 1;
        loop {
            let mut ended = self.attempt(target, attempt).await?;
            if ended.code != 0 && attempt <= retries.max && !self.stopping() {
                ended.retry = Some(retries.wait(attempt + 1));
            }
            let retry = ended.retry;
            (self.runner.listener)(Event::Ended(ended.clone()));
            let Some(wait) = retry else { return Ok(ended) };
            let mut stop = self.stop.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(ended),
            }
            attempt += 1;
        }
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    async fn attempt(&self, target: Option<&Target>, attempt: u64) -> Result<Ended> {
        let name = target.map(|target| target.name.clone()).unwrap_or_default();
        let began = Instant::now();
        (self.runner.listener)(Event::Started { target: name.clone(), attempt });
        let row = self.runner.history.begin_try(&TryRow {
            run: self.id.clone(),
            target: name.clone(),
            target_id: target.map(|target| target.id.clone()).unwrap_or_default(),
            attempt: i64::try_from(attempt).unwrap_or(i64::MAX),
            image: self.task.image().to_owned(),
            image_id: self.image_id.clone(),
            started: Timestamp::now(),
            ..TryRow::default()
        })?;
        let mut recorder = Recorder::default();
        let prepared = match target {
            _ if self.stopping() => Err(Error::new(STOPPED)),
            Some(target) => self.before(target).await,
            None => Ok(()),
        };
        let part = match (prepared, &self.task.definition.backup) {
            (Ok(()), Some(backup)) => Part::begin(backup, &self.task.key, &self.id, &name).map(Some),
            (prepared, _) => prepared.map(|()| None),
        };
        let (done, part) = match part {
            Ok(part) => (self.contain(target, attempt, row, &mut recorder, part.as_ref()).await, part),
            Err(error) => (Err(error), None),
        };
        let mut done =
            done.unwrap_or_else(|error| Done { error: Some(error.to_string()), ..Done::default() });
        if let Some(target) = target {
            for failure in self.undo(target).await {
                let text =
                    done.error.take().map_or_else(|| failure.clone(), |error| format!("{error}; {failure}"));
                done.error = Some(text);
            }
        }
        if let Some(part) = part.filter(|_| done.code == Some(0) && done.error.is_none())
            && let Err(error) = self.keep(part, &name).await
        {
            done.error = Some(error.to_string());
        }
        let code = match done.code {
            _ if done.timed_out => TIMED_OUT,
            Some(0) if done.error.is_some() => NOT_RUN,
            Some(code) => u8::try_from(code & 0xff).unwrap_or(NOT_RUN),
            None => NOT_RUN,
        };
        let last_lines = if code == 0 { String::new() } else { recorder.last_lines(LAST_LINES) };
        self.runner.history.finish_try(
            row,
            &End {
                finished: Timestamp::now(),
                exit_code: done.code,
                error: done.error.clone(),
                cpu_nanos: done.cpu_nanos,
                memory_peak: done.memory_peak,
                output: recorder.finish(),
            },
        )?;
        Ok(Ended {
            target: name,
            attempt,
            code,
            error: done.error,
            took: began.elapsed(),
            retry: None,
            last_lines,
        })
    }

    /// A backup is checked and kept, and older ones go.
    async fn keep(&self, part: Part, target: &str) -> Result<()> {
        let Some(how) = self.task.definition.backup.clone() else { return Ok(()) };
        let mut verified = None;
        if let Some(verify) = &self.task.verify {
            let mut task = (**verify).clone();
            task.definition.overlap = Overlap::Allow;
            backup::mount(&mut task.body, &part.data(), &how.mount, true);
            let ask = Ask { cause: format!("verify {}", self.id), ..Ask::default() };
            let outcome = Box::pin(self.runner.run(&task, ask, self.stop.clone())).await?;
            if outcome.code != 0 {
                let why = outcome.error.unwrap_or_else(|| format!("exit code {}", outcome.code));
                return Err(Error::new(format!("the backup is not kept: {} failed: {why}", task.key)));
            }
            verified = Some(Timestamp::now());
            client::failpoint!("task: backup verified");
        }
        let taken = Taken {
            task: self.task.key.to_string(),
            run: self.id.clone(),
            target: target.to_owned(),
            image: self.image_id.clone(),
            started: Timestamp::now(),
            finished: Timestamp::now(),
            verified,
            encrypted: false,
            files: Vec::new(),
            path: std::path::PathBuf::new(),
        };
        let (home, key, target) = (self.runner.home.clone(), self.task.key.clone(), target.to_owned());
        let work = move || {
            part.keep(&how, taken)?;
            // The new one is kept; that an old one could not be removed does not make it less so.
            Ok::<_, Error>(backup::prune(&home, &how, &key, &target))
        };
        let pruned = tokio::task::spawn_blocking(work).await;
        let pruned = pruned.map_err(|error| Error::new(format!("keep the backup: {error}")))?;
        if let Err(error) = pruned? {
            (self.runner.listener)(Event::Warning(error.to_string()));
        }
        Ok(())
    }

    /// Makes the container, runs it, removes it.
    async fn contain(
        &self,
        target: Option<&Target>,
        attempt: u64,
        row: i64,
        recorder: &mut Recorder,
        part: Option<&Part>,
    ) -> Result<Done> {
        let task = self.task.key.to_string();
        let of = Try { task: &task, run: &self.id, attempt, slot: self.slot };
        let mut request =
            body::request(&self.task.body, &self.task.definition, target, of).map_err(Error::new)?;
        if let (Some(part), Some(how)) = (part, &self.task.definition.backup) {
            backup::mount(&mut request.body, &part.data(), &how.mount, false);
        }
        let client = &self.runner.client;
        let path = query("/containers/create", [("platform", self.task.platform.clone())]);
        let made = client.json(Method::POST, &path, Some(&request.body)).await?;
        for warning in made["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            (self.runner.listener)(Event::Warning(warning.to_owned()));
        }
        let id = made["Id"].as_str().unwrap_or_default().to_owned();
        client::failpoint!("task: container made");
        let ran = async {
            self.runner.history.set_container(row, &id)?;
            for (network, endpoint) in &request.connect {
                let body = json!({"Container": id, "EndpointConfig": endpoint});
                client
                    .json(
                        Method::POST,
                        &format!("/networks/{}/connect", client::encode(network)),
                        Some(&body),
                    )
                    .await?;
            }
            let delivered = compose::apply::deliver(client, &id, &self.task.deliveries).await;
            delivered.map_err(|error| Error::new(error.to_string()))?;
            self.start(target, &id, recorder).await
        };
        let ran = ran.await;
        client::failpoint!("task: container over");
        let removed = client.bytes(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await;
        match (ran, removed) {
            (Ok(_), Err(error)) if error.status() != Some(404) => Err(error.into()),
            (ran, _) => ran,
        }
    }

    async fn start(&self, target: Option<&Target>, id: &str, recorder: &mut Recorder) -> Result<Done> {
        let client = &self.runner.client;
        let attach = query(
            &format!("/containers/{id}/attach"),
            ["stream", "stdout", "stderr"].map(|name| (name, "1".to_owned())),
        );
        let mut stream = client.hijack(&attach, None).await?;
        client::failpoint!("task: attached");
        let wait =
            client.call(Method::POST, &format!("/containers/{id}/wait?condition=next-exit"), None).await?;
        client.post(&format!("/containers/{id}/start")).await?;
        client::failpoint!("task: started");
        let name = target.map(|target| target.name.as_str()).unwrap_or_default();
        let tty = self.task.body["Tty"] == true;
        let output = async {
            let mut splitter = Demultiplexer::default();
            let mut buffer = vec![0; 32 * 1024];
            loop {
                let count = match stream.read(&mut buffer).await {
                    Ok(0) => return Ok(()),
                    Ok(count) => count,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error).context(|| "read what it printed"),
                };
                let mut take = |stream: u8, bytes: &[u8]| {
                    recorder.write(stream, bytes);
                    (self.runner.listener)(Event::Output {
                        target: name.to_owned(),
                        stream,
                        bytes: bytes.to_vec(),
                    });
                };
                if tty {
                    take(1, &buffer[..count]);
                } else {
                    let _ = splitter.feed(&buffer[..count], |stream, bytes| {
                        take(stream, bytes);
                        Ok::<(), std::convert::Infallible>(())
                    });
                }
            }
        };
        let exit = async { exit(wait).await };
        let ((), (code, mut done)) = tokio::try_join!(output, self.watch(id, exit))?;
        match code {
            Ok(code) => done.code = Some(code),
            Err(text) => done.error = Some(text),
        }
        if done.timed_out {
            let limit = self.task.definition.timeout.unwrap_or_default();
            done.error = Some(format!("timed out after {}", crate::duration::show(limit)));
        } else if done.stopped {
            done.error = Some(STOPPED.to_owned());
        }
        Ok(done)
    }

    /// Waits for the exit; stops the container at its time limit or when the run is to stop; measures meanwhile.
    async fn watch(
        &self,
        id: &str,
        exit: impl Future<Output = Result<Result<i64, String>>>,
    ) -> Result<(Result<i64, String>, Done)> {
        let mut done = Done::default();
        let limit = self.task.definition.timeout;
        let deadline = limit.map(|limit| tokio::time::Instant::now() + limit);
        let mut pause = SAMPLE / 32;
        let mut sample = tokio::time::Instant::now() + pause;
        let mut stop = self.stop.clone();
        tokio::pin!(exit);
        loop {
            let over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                code = &mut exit => return Ok((code?, done)),
                () = over, if !done.timed_out && !done.stopped => {
                    done.timed_out = true;
                    self.end(id).await;
                }
                _ = stop.wait_for(|stop| *stop), if !done.timed_out && !done.stopped => {
                    done.stopped = true;
                    self.end(id).await;
                }
                () = tokio::time::sleep_until(sample) => {
                    self.measure(id, &mut done).await;
                    pause = (pause * 2).min(SAMPLE);
                    sample = tokio::time::Instant::now() + pause;
                }
            }
        }
    }

    /// Stops a container: its stop signal, its grace, then SIGKILL; the engine does both.
    async fn end(&self, id: &str) {
        let grace = self.task.body["StopTimeout"].as_i64().unwrap_or(GRACE);
        if let Err(error) = self.runner.client.post(&format!("/containers/{id}/stop?t={grace}")).await
            && error.status() != Some(404)
        {
            (self.runner.listener)(Event::Warning(format!("stop {id}: {error}")));
        }
    }

    async fn measure(&self, id: &str, done: &mut Done) {
        // It may be over by now: then there is nothing to measure.
        let Ok(stats) =
            self.runner.client.get(&format!("/containers/{id}/stats?stream=false&one-shot=true")).await
        else {
            return;
        };
        let memory = &stats["memory_stats"];
        let peak = memory["max_usage"].as_i64().or_else(|| memory["usage"].as_i64());
        done.memory_peak = done.memory_peak.max(peak);
        done.cpu_nanos = done.cpu_nanos.max(stats["cpu_stats"]["cpu_usage"]["total_usage"].as_i64());
    }
}

async fn exit(response: client::Response) -> Result<Result<i64, String>> {
    let answer = Lines::new(response)
        .next()
        .await?
        .ok_or_else(|| Error::new("the engine did not tell the exit code"))?;
    Ok(match answer["Error"]["Message"].as_str().filter(|text| !text.is_empty()) {
        Some(text) => Err(text.to_owned()),
        None => {
            answer["StatusCode"].as_i64().ok_or_else(|| "the engine did not tell the exit code".to_owned())
        }
    })
}
