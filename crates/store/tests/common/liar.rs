//! A server that says what a test wants it to say.

use model::Digest;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A server that answers as a table says, and notes what it was asked.
pub struct Liar {
    pub host: String,
    pub asked: Arc<Mutex<Asked>>,
}

/// Path and head of each request.
pub type Asked = Vec<(String, Vec<String>)>;
/// Status, headers, body, and the length that is announced.
pub type Answer = (&'static str, Vec<(&'static str, String)>, Vec<u8>, usize);

pub fn liar(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Liar {
    liar_to(move |path, _| answer(path))
}

/// One whose answers depend on the whole head.
pub fn liar_to(answer: impl Fn(&str, &[String]) -> Answer + Send + Sync + 'static) -> Liar {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            std::thread::spawn(move || serve(stream.unwrap(), &log, &*answer));
        }
    });
    Liar { host, asked }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Asked>,
    answer: &(dyn Fn(&str, &[String]) -> Answer + Send + Sync),
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut head = Vec::new();
    loop {
        let mut line = Vec::new();
        // A TLS greeting is no line.
        if lines.read_until(b'\n', &mut line).unwrap_or(0) == 0 || line[0] == 0x16 {
            return;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let path = head[0].split(' ').nth(1).unwrap().to_owned();
    let (status, headers, body, length) = answer(&path, &head);
    log.lock().unwrap().push((path, head));
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(&body));
}

pub fn whole(status: &'static str, body: Vec<u8>) -> Answer {
    let length = body.len();
    (status, Vec::new(), body, length)
}

/// A registry whose one image has this layer, served as `sent` with `length` bytes announced.
pub fn image_with_layer(layer: &[u8], sent: Vec<u8>, length: usize) -> Liar {
    image_with(layer, move |_| ("200 OK", Vec::new(), sent.clone(), length))
}

/// The same with the layer served by a function of the head.
pub fn image_with(layer: &[u8], blob: impl Fn(&[String]) -> Answer + Send + Sync + 'static) -> Liar {
    let diff_id = Digest::of(layer);
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id] }
    }))
    .unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": layer.len() }]
    }))
    .unwrap();
    let config_path = format!("/v2/x/blobs/{}", Digest::of(&config));
    liar_to(move |path, head| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        "/v2/x/manifests/1" => whole("200 OK", manifest.clone()),
        path if path == config_path => whole("200 OK", config.clone()),
        _ => blob(head),
    })
}
