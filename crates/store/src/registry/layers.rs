//! A pull's layers: downloaded several at a time, each gone on with where it broke off, unpacked lowest first.

use model::digest::chain_id;
use model::error::Context as _;
use model::image::{Descriptor, ImageConfig, Manifest};
use model::{Digest, Error, Kind, Reference, Result};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode, header};

use super::http::Client;
use super::refusal::{self, Refusal};
use super::{Progress, Report, retry};
use crate::Store;
use crate::blob::Ingest;

/// Time between two reports of one transfer.
pub(super) const REPORT_EVERY: Duration = Duration::from_millis(100);
/// Bytes after which an attempt counts as one that got on: the attempts are counted anew.
const PROGRESS: u64 = 64 << 10;
/// A download that brings less than [`SLOWEST`] bytes in this time is broken off.
const WINDOW: Duration = Duration::from_secs(60);
/// One KiB a second.
const SLOWEST: u64 = 60 << 10;
/// How often somebody who waits looks again.
const LOOK: Duration = Duration::from_millis(50);
/// Who waits for another's download does it himself when that one has not got on for so long.
const STALLED: Duration = Duration::from_secs(60);

/// The layers of one pull.
pub(super) struct Layers<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
    pub reference: &'a Reference,
    pub manifest: &'a Manifest,
    pub config: &'a ImageConfig,
    /// Downloads at the same time.
    pub at_once: usize,
    pub report: Report<'a>,
}

/// Downloads a blob that belongs to no pull.
pub(super) fn one(
    store: &Store,
    client: &Client,
    reference: &Reference,
    blob: &Descriptor,
    report: Report<'_>,
) -> Result<()> {
    let none = Descriptor {
        media_type: String::new(),
        digest: Digest::of(b""),
        size: 0,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: None,
        config: none,
        layers: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
    };
    let config = ImageConfig::default();
    Layers { store, client, reference, manifest: &manifest, config: &config, at_once: 1, report }
        .blob(blob, &AtomicBool::new(false))
}

impl Layers<'_> {
    /// Downloads on several threads, unpacks on this one, lowest first.
    pub fn fetch(&self) -> Result<()> {
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for layer in &self.manifest.layers {
            if !blobs.iter().any(|blob| blob.digest == layer.digest) {
                blobs.push(layer);
            }
        }
        for blob in &blobs {
            (self.report)(Progress::new(blob.digest.short(), "Pulling fs layer"))?;
        }
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let channels: Vec<_> = blobs.iter().map(|_| mpsc::channel::<Result<()>>()).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let senders = Mutex::new(senders);
        std::thread::scope(|scope| {
            for _ in 0..self.at_once.max(1).min(blobs.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(blob) = blobs.get(at) else { return };
                        let result = self.blob(blob, &stop);
                        let failed = result.is_err();
                        // Nobody listens any more where another layer has failed.
                        let _ = senders.lock().unwrap_or_else(PoisonError::into_inner)[at].send(result);
                        if failed {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
            let unpacked = self.unpack(&blobs, &receivers);
            if unpacked.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            unpacked
        })
    }

    fn unpack(&self, blobs: &[&Descriptor], receivers: &[mpsc::Receiver<Result<()>>]) -> Result<()> {
        let mut here = vec![false; blobs.len()];
        let mut parent: Option<Digest> = None;
        for (layer, diff_id) in self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids) {
            let at = blobs.iter().position(|blob| blob.digest == layer.digest).unwrap_or_default();
            if !here[at] {
                let gone = || Error::internal(format!("layer {}: its download has no result", layer.digest));
                match receivers[at].recv() {
                    Ok(Ok(())) => {}
                    // The one that stopped the others says why.
                    Ok(Err(error)) if error.kind() == Kind::Cancelled => {
                        let cause =
                            receivers[at + 1..].iter().filter_map(|other| other.try_recv().ok()?.err());
                        return Err(cause
                            .into_iter()
                            .find(|cause| cause.kind() != Kind::Cancelled)
                            .unwrap_or(error));
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(gone()),
                }
                here[at] = true;
            }
            let id = layer.digest.short();
            let chain = chain_id(parent.as_ref(), diff_id);
            if self.store.layer(&chain)?.is_some() {
                (self.report)(Progress::new(id, "Already exists"))?;
            } else {
                let bytes = Some((layer.size, layer.size));
                (self.report)(Progress { id: id.to_owned(), status: "Extracting".to_owned(), bytes })?;
                self.store.unpack_layer(parent.as_ref(), layer, Some(diff_id))?;
                (self.report)(Progress::new(id, "Pull complete"))?;
            }
            parent = Some(chain);
        }
        Ok(())
    }

    /// Downloads one blob, if it is not here.
    fn blob(&self, blob: &Descriptor, stop: &AtomicBool) -> Result<()> {
        let Some(mut ingest) = self.begin(blob, stop)? else { return Ok(()) };
        let (mut failed, mut old, mut most) = (0, ingest.written(), ingest.written());
        loop {
            let error = match self.download(blob, &mut ingest, stop) {
                // What was here before was not what it should be: once more from the start.
                Ok(()) if old > 0 && !ingest.is(&blob.digest) => {
                    old = 0;
                    ingest.restart()?;
                    continue;
                }
                Ok(()) => break,
                Err(error) => error,
            };
            if error.is_out_of_space() {
                // Room for others; without it the rest could not be written either.
                ingest.discard();
                return Err(error);
            }
            if error.kind() != Kind::Unavailable {
                return Err(error);
            }
            // Not merely as far as before: a server could go on so for ever.
            if ingest.written() >= most + PROGRESS {
                (failed, most) = (0, ingest.written());
            }
            failed += 1;
            if failed >= retry::ATTEMPTS {
                return Err(error);
            }
            let pause = retry::random_pause(failed, None);
            let seconds = pause.as_secs_f64().ceil();
            let unit = if seconds > 1.0 { "seconds" } else { "second" };
            (self.report)(Progress::new(blob.digest.short(), format!("Retrying in {seconds} {unit}")))?;
            self.wait(pause, stop, blob)?;
        }
        (self.report)(Progress::new(blob.digest.short(), "Verifying Checksum"))?;
        ingest.commit(Some(&blob.digest)).context(|| self.what(blob))?;
        (self.report)(Progress::new(blob.digest.short(), "Download complete"))
    }

    fn what(&self, blob: &Descriptor) -> String {
        format!("layer {} of {}", blob.digest, self.reference.familiar())
    }

    fn wait(&self, time: Duration, stop: &AtomicBool, blob: &Descriptor) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.go_on(stop, blob)?;
            std::thread::sleep(LOOK.min(time));
        }
        Ok(())
    }

    fn go_on(&self, stop: &AtomicBool, blob: &Descriptor) -> Result<()> {
        match stop.load(Ordering::Relaxed) {
            true => {
                Err(Error::new(Kind::Cancelled, format!("{}: another layer has failed", self.what(blob))))
            }
            false => Ok(()),
        }
    }

    /// The file to download into, whatever is in it. `None`: the blob is here. Where another process downloads it this one
    /// waits, but not for one that does not get on.
    fn begin(&self, blob: &Descriptor, stop: &AtomicBool) -> Result<Option<Ingest>> {
        let mut waiting: Option<(Instant, u64)> = None;
        loop {
            if self.store.blob_size(&blob.digest)? == Some(blob.size) {
                if waiting.is_some() {
                    (self.report)(Progress::new(blob.digest.short(), "Download complete"))?;
                }
                return Ok(None);
            }
            if let Some(ingest) = self.store.download(&blob.digest, blob.size)? {
                // Between the look and the lock another one may have finished.
                if self.store.blob_size(&blob.digest)? == Some(blob.size) {
                    ingest.discard();
                    continue;
                }
                return Ok(Some(ingest));
            }
            let length = std::fs::metadata(self.store.part(&blob.digest)).map_or(0, |found| found.len());
            match waiting {
                None => {
                    let status = "Waiting for another pull that downloads it";
                    (self.report)(Progress::new(blob.digest.short(), status))?;
                    waiting = Some((Instant::now(), length));
                }
                Some((_, before)) if before != length => waiting = Some((Instant::now(), length)),
                Some((since, _)) if since.elapsed() >= STALLED => {
                    return Ok(Some(self.store.ingest()?.limit(blob.size)));
                }
                Some(_) => {}
            }
            self.wait(LOOK, stop, blob)?;
        }
    }

    /// Gets what is missing of a blob.
    fn download(&self, blob: &Descriptor, ingest: &mut Ingest, stop: &AtomicBool) -> Result<()> {
        if ingest.written() == blob.size && blob.size > 0 {
            return Ok(());
        }
        let response = self.open(blob, ingest)?;
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0u8; 128 << 10];
        let mut told = Instant::now();
        let (mut since, mut brought) = (Instant::now(), 0);
        loop {
            self.go_on(stop, blob)?;
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let (what, done) = (self.what(blob), ingest.written());
                    let message =
                        format!("{what}: the transfer broke off after {done} of {} bytes", blob.size);
                    return Err(Error::new(Kind::Unavailable, message).caused_by(error));
                }
            };
            ingest.write_all(&buffer[..count]).context(|| self.what(blob))?;
            sys::failpoint!("pull: part of a blob");
            brought += count as u64;
            if since.elapsed() >= WINDOW {
                if is_too_slow(brought) {
                    let (what, seconds) = (self.what(blob), WINDOW.as_secs());
                    let message = format!("{what}: the registry sent {brought} bytes in {seconds} s");
                    return Err(Error::new(Kind::Unavailable, message));
                }
                (since, brought) = (Instant::now(), 0);
            }
            if told.elapsed() >= REPORT_EVERY {
                told = Instant::now();
                (self.report)(Progress {
                    id: blob.digest.short().to_owned(),
                    status: "Downloading".to_owned(),
                    bytes: Some((ingest.written(), blob.size)),
                })?;
            }
        }
        if ingest.written() < blob.size {
            let (what, done) = (self.what(blob), ingest.written());
            let message = format!("{what}: the registry sent {done} of {} bytes", blob.size);
            return Err(Error::new(Kind::Unavailable, message));
        }
        Ok(())
    }

    /// Asks for what is missing; where the registry sends something else than that, from the start.
    fn open(&self, blob: &Descriptor, ingest: &mut Ingest) -> Result<Response<Body>> {
        let path = format!("{}/blobs/{}", self.reference.path(), blob.digest);
        if ingest.written() > 0 {
            let range = format!("bytes={}-", ingest.written());
            let response = self.client.following(&Method::GET, &path, &[("range", &range)])?;
            if response.status() == StatusCode::PARTIAL_CONTENT
                && continues(&response, ingest.written(), blob.size)
            {
                return Ok(response);
            }
            ingest.restart()?;
            if response.status() == StatusCode::OK {
                return self.announced(blob, response);
            }
        }
        let response = self.client.following(&Method::GET, &path, &[])?;
        if response.status() != StatusCode::OK {
            return Err(refusal::of_pull(self.reference, &Refusal::read(response)).within(self.what(blob)));
        }
        self.announced(blob, response)
    }

    /// A length that is not the manifest's is not worth reading.
    fn announced(&self, blob: &Descriptor, response: Response<Body>) -> Result<Response<Body>> {
        let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        match length.and_then(|value| value.parse::<u64>().ok()) {
            Some(length) if length != blob.size => Err(Error::invalid(format!(
                "{}: the registry announces {length} bytes, the manifest {}",
                self.what(blob),
                blob.size
            ))),
            _ => Ok(response),
        }
    }
}

fn is_too_slow(bytes: u64) -> bool {
    bytes < SLOWEST
}

/// Whether an answer of status 206 is the rest that was asked for: `Content-Range: bytes FROM-LAST/SIZE`.
fn continues<B>(response: &Response<B>, from: u64, size: u64) -> bool {
    let parse = || {
        let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
        let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, whole.to_owned()))
    };
    parse().is_some_and(|(first, last, whole)| {
        first == from && last < size && (whole == "*" || whole == size.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_blob() {
        let of = |range: &str| {
            continues(&Response::builder().header("content-range", range).body(()).unwrap(), 10, 30)
        };
        assert!(of("bytes 10-29/30") && of("bytes 10-19/30") && of("bytes 10-29/*"));
        for other in ["bytes 0-29/30", "bytes 10-30/30", "bytes 10-29/31", "bytes 10-/30", "10-29/30", ""] {
            assert!(!of(other), "{other}");
        }
        assert!(!continues(&Response::new(()), 10, 30));
    }

    #[test]
    fn slowness_has_a_limit() {
        assert!(is_too_slow(SLOWEST - 1) && !is_too_slow(SLOWEST));
    }
}
