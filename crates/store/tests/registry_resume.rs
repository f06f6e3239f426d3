//! Downloads that break off and go on, pulls that meet, servers that are in trouble for a while.

mod common;

use common::liar::{Answer, image_with, image_with_layer, liar_to, whole};
use common::{Dir, image, quiet, reference, registry};
use model::{Digest, Kind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use store::registry::{Access, Progress};

/// Where a `Range: bytes=N-` begins.
fn from(head: &[String]) -> Option<usize> {
    let line = head
        .iter()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned))?;
    line.trim_end_matches('-').parse().ok()
}

/// The rest of a blob, of which `much` bytes are sent before the connection is cut.
fn rest(blob: &[u8], head: &[String], much: usize) -> Answer {
    let at = from(head).unwrap_or(0);
    let end = blob.len().min(at + much);
    let length = blob.len() - at;
    if at == 0 {
        return ("200 OK", Vec::new(), blob[..end].to_vec(), length);
    }
    let range = format!("bytes {at}-{}/{}", blob.len() - 1, blob.len());
    ("206 Partial Content", vec![("content-range", range)], blob[at..end].to_vec(), length)
}

fn ingest(store: &store::Store) -> Vec<u64> {
    let entries = std::fs::read_dir(store.layout.ingest()).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let dir = Dir::new("resume");
    let layer = common::rootfs("resume");
    let piece = layer.len() / 7;
    let (starts, blob) = (Arc::new(Mutex::new(Vec::new())), layer.clone());
    let log = Arc::clone(&starts);
    let server = image_with(&layer, move |head| {
        log.lock().unwrap().push(from(head).unwrap_or(0));
        rest(&blob, head, piece)
    });
    let store = dir.store("s");
    let name = reference(&format!("{}/x:1", server.host));
    store.pull(&name, None, &Access::default(), &quiet).unwrap();
    let starts = starts.lock().unwrap();
    assert!(starts.len() >= 7 && starts.windows(2).all(|pair| pair[0] < pair[1]), "{starts:?}");
    assert!(ingest(&store).is_empty());
}

#[test]
fn another_pull_goes_on_with_what_the_first_left() {
    let dir = Dir::new("resume-later");
    let layer = common::rootfs("later");
    let half = layer.len() / 2;
    // It knows no ranges and always breaks off at the same place.
    let broken = image_with_layer(&layer, layer[..half].to_vec(), layer.len());
    let (starts, blob) = (Arc::new(Mutex::new(Vec::new())), layer.clone());
    let log = Arc::clone(&starts);
    let whole = image_with(&layer, move |head| {
        log.lock().unwrap().push(from(head).unwrap_or(0));
        rest(&blob, head, blob.len())
    });
    for damaged in [false, true] {
        let name = if damaged { "damaged" } else { "intact" };
        let pull = |host: &str| {
            dir.store(name).pull(&reference(&format!("{host}/x:1")), None, &Access::default(), &quiet)
        };
        let error = pull(&broken.host).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        let said = error.to_string();
        assert!(said.contains(&format!("broke off after {half} of {} bytes", layer.len())), "{said}");
        let store = dir.store(name);
        assert_eq!(ingest(&store), [half as u64]);
        assert!(store.images().unwrap().is_empty());
        if damaged {
            let part = std::fs::read_dir(store.layout.ingest()).unwrap().next().unwrap().unwrap().path();
            let mut bytes = std::fs::read(&part).unwrap();
            bytes[half / 2] ^= 1;
            std::fs::write(&part, bytes).unwrap();
        }
        // A collection leaves it alone.
        store.collect(&|| Ok(Vec::new())).unwrap();
        pull(&whole.host).unwrap();
        let begun = std::mem::take(&mut *starts.lock().unwrap());
        assert_eq!(begun, if damaged { vec![half, 0] } else { vec![half] });
        assert!(ingest(&store).is_empty());
    }
}

#[test]
fn what_a_download_left_is_kept_for_a_day() {
    let dir = Dir::new("resume-old");
    let store = dir.store("s");
    let part = store.layout.ingest().join(format!("{}.part", Digest::of(b"x").hex()));
    std::fs::write(&part, "half").unwrap();
    store.collect(&|| Ok(Vec::new())).unwrap();
    assert!(part.exists());
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 60 * 60);
    std::fs::File::options().write(true).open(&part).unwrap().set_modified(old).unwrap();
    drop(store.ingest().unwrap());
    assert!(!part.exists());
}

#[test]
fn two_pulls_of_one_image_download_it_once() {
    let dir = Dir::new("meet");
    let layer = common::rootfs("meet");
    let (count, blob) = (Arc::new(AtomicUsize::new(0)), layer.clone());
    let (waits, waiting) = mpsc::channel::<()>();
    let (served, waiting) = (Arc::clone(&count), Mutex::new(waiting));
    let server = image_with(&layer, move |head| {
        served.fetch_add(1, Ordering::Relaxed);
        // Not before the other pull has said that it waits.
        waiting.lock().unwrap().recv().unwrap();
        rest(&blob, head, blob.len())
    });
    let name = reference(&format!("{}/x:1", server.host));
    let waits = Mutex::new(waits);
    let note = |progress: Progress| -> Result<()> {
        if progress.status.starts_with("Waiting for another pull") {
            waits.lock().unwrap().send(()).unwrap();
        }
        Ok(())
    };
    let stores = [dir.store("s"), dir.store("s")];
    std::thread::scope(|scope| {
        let pulls: Vec<_> = stores
            .iter()
            .map(|store| scope.spawn(|| store.pull(&name, None, &Access::default(), &note).unwrap().image.id))
            .collect();
        // Readers wait for nobody.
        assert!(stores[0].images().is_ok());
        let ids: Vec<_> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
        assert_eq!(ids[0], ids[1]);
    });
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

/// A server whose manifest is answered so, and how often it was asked for it.
fn manifests(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&count);
    let server = liar_to(move |path, _| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        _ => answer(asked.fetch_add(1, Ordering::Relaxed)),
    });
    (server.host, count)
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let dir = Dir::new("trouble");
    let store = dir.store("s");
    let pull = |host: &str| {
        store.pull(&reference(&format!("{host}/x:1")), None, &Access::default(), &quiet).unwrap_err()
    };
    // Twice in trouble, then it knows nothing: the last answer counts.
    let (host, asked) = manifests(|at| match at {
        0 => whole("503 Service Unavailable", Vec::new()),
        1 => ("429 Too Many Requests", vec![("retry-after", "0".to_owned())], Vec::new(), 0),
        _ => whole("404 Not Found", Vec::new()),
    });
    assert_eq!(pull(&host).kind(), Kind::NotFound);
    assert_eq!(asked.load(Ordering::Relaxed), 3);

    let (host, asked) = manifests(|_| whole("502 Bad Gateway", Vec::new()));
    let error = pull(&host);
    assert!(error.to_string().contains("received unexpected HTTP status: 502 Bad Gateway"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 5);

    // A limit that lasts is told at once, with what to do.
    let (host, asked) = manifests(|_| {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#.to_vec();
        let length = body.len();
        ("429 Too Many Requests", vec![("retry-after", "3600".to_owned())], body, length)
    });
    let error = pull(&host);
    assert!(error.to_string().contains("toomanyrequests: slow down"), "{error}");
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("in 3600 s") && hint.contains("login"), "{hint}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn mirrors_are_asked_first_and_hear_no_secret() {
    let dir = Dir::new("mirror");
    let store = dir.store("s");
    let (_server, full) = registry(&dir.0, None);
    let made = image(&store, &format!("{full}/library/app:1"));
    store.push(&reference(&format!("{full}/library/app:1")), &Access::default(), &quiet).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let curious = liar_to(|path, _| match path {
        "/v2/" => ("401 Unauthorized", vec![("www-authenticate", "Basic realm=x".to_owned())], Vec::new(), 0),
        _ => whole("401 Unauthorized", Vec::new()),
    });
    let empty = liar_to(|path, _| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        _ => whole("404 Not Found", Vec::new()),
    });
    let credentials =
        store::registry::Credentials::Basic { user: "me".to_owned(), password: "secret".to_owned() };
    let mirrors = [closed.to_string(), curious.host.clone(), empty.host.clone(), full];
    let access = Access {
        credentials: Some(credentials),
        mirrors: mirrors.iter().map(|host| format!("http://{host}")).collect(),
        ..Access::default()
    };
    let pulled = dir.store("other").pull(&reference("app:1"), None, &access, &quiet).unwrap();
    assert_eq!(pulled.image.id, made.id);
    assert_eq!(pulled.image.tags, [reference("docker.io/library/app:1")]);
    for server in [&curious, &empty] {
        let asked = server.asked.lock().unwrap();
        assert!(!asked.is_empty());
        let told = |line: &String| line.to_ascii_lowercase().starts_with("authorization");
        assert!(!asked.iter().any(|(_, head)| head.iter().any(told)));
    }
}

#[test]
fn a_layer_that_the_registry_has_elsewhere_is_mounted() {
    let dir = Dir::new("mount");
    let (_server, host) = registry(&dir.0, None);
    let (store, open) = (dir.store("s"), Access::default());
    let (one, two) = (reference(&format!("{host}/one:1")), reference(&format!("{host}/group/two:1")));
    let made = image(&store, &one.familiar());
    store.tag(&two, &made.id).unwrap();
    let said = Mutex::new(Vec::new());
    let note = |progress: Progress| -> Result<()> {
        said.lock().unwrap().push(progress.status);
        Ok(())
    };
    let first = store.push(&one, &open, &note).unwrap();
    assert!(said.lock().unwrap().iter().any(|status| status == "Pushed"));
    said.lock().unwrap().clear();
    let second = store.push(&two, &open, &note).unwrap();
    assert_eq!(first, second);
    let said = said.into_inner().unwrap();
    assert!(said.iter().any(|status| status == "Mounted from one"), "{said:?}");
    assert_eq!(dir.store("other").pull(&two, None, &open, &quiet).unwrap().image.id, made.id);
}
