//! Attach over a websocket, for browsers: each message is input; output goes in binary messages, in text ones for clients
//! before API 1.28, without the frames that tell stdout from stderr.

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::oneshot;

use crate::ApiVersion;
use crate::hijack::{BUFFER, Gone, Hijack};

/// Bytes of one message from the client.
const MESSAGE: usize = 1 << 20;

/// Answers the request and goes on with the connection in the background.
pub(crate) fn answer(hijack: Hijack, upgrade: WebSocketUpgrade, version: ApiVersion) -> Response {
    let text = version < ApiVersion(1, 28);
    let framed = hijack.multiplexed;
    let upgrade = upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE);
    upgrade.on_upgrade(move |socket| async move {
        let (near, far) = tokio::io::duplex(BUFFER);
        let (alive, dropped) = oneshot::channel::<()>();
        let copied = async move {
            let _alive = alive;
            copy(socket, near, framed.then(Frames::default), text).await;
        };
        tokio::join!(hijack.run(far, Gone::Dropped(dropped)), copied);
    })
}

/// Copies both ways until one side ends.
async fn copy(mut socket: WebSocket, stream: DuplexStream, mut frames: Option<Frames>, text: bool) {
    let (mut output, mut input) = tokio::io::split(stream);
    let mut buffer = vec![0; BUFFER];
    loop {
        tokio::select! {
            read = output.read(&mut buffer) => {
                let Ok(count @ 1..) = read else {
                    let _ = socket.send(Message::Close(None)).await;
                    return;
                };
                let bytes = &buffer[..count];
                let bytes = frames.as_mut().map_or_else(|| bytes.to_vec(), |frames| frames.strip(bytes));
                let message = if text {
                    Message::Text(String::from_utf8_lossy(&bytes).into_owned().into())
                } else {
                    Message::Binary(bytes.into())
                };
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            message = socket.recv() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                if input.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Takes the frames off a stream, in whatever pieces it comes.
#[derive(Default)]
struct Frames {
    header: Vec<u8>,
    left: usize,
}

impl Frames {
    fn strip(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
                out.extend_from_slice(payload);
                self.left -= payload.len();
                bytes = rest;
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let [_, _, _, _, length @ ..] = self.header.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u32::from_be_bytes(length) as usize;
                self.header.clear();
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::model::log::{Stream, frame};

    #[test]
    fn frames_come_off_in_any_pieces() {
        let mut framed = Vec::new();
        frame(Stream::Stdout, b"hello ", &mut framed);
        frame(Stream::Stderr, b"", &mut framed);
        frame(Stream::Stderr, b"world", &mut framed);
        for size in [1, 3, 8, 100] {
            let mut frames = Frames::default();
            let out: Vec<u8> = framed.chunks(size).flat_map(|piece| frames.strip(piece)).collect();
            assert_eq!(out, b"hello world", "{size}");
        }
    }
}
