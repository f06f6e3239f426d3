//! Attach over a websocket, for browsers: each message is input; output goes in binary messages, in text ones for clients
//! before API 1.28, without the frames that tell stdout from stderr.

use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use engine::model::log::Unframe;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
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
            copy(socket, near, framed.then(Unframe::default), text).await;
        };
        tokio::join!(hijack.run(far, Gone::Dropped(dropped)), copied);
    })
}

/// Copies both ways until one side ends. The two directions do not wait for each other: a process that echoes takes no
/// more input until its output is read.
async fn copy(socket: WebSocket, stream: DuplexStream, frames: Option<Unframe>, text: bool) {
    let (sender, receiver) = socket.split();
    let (output, input) = tokio::io::split(stream);
    tokio::select! {
        () = send(output, sender, frames, text) => {}
        () = receive(receiver, input) => {}
    }
}

async fn send(
    mut output: ReadHalf<DuplexStream>,
    mut socket: SplitSink<WebSocket, Message>,
    mut frames: Option<Unframe>,
    text: bool,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let Ok(count @ 1..) = output.read(&mut buffer).await else {
            let _ = socket.send(Message::Close(None)).await;
            return;
        };
        let bytes = match &mut frames {
            Some(frames) => {
                let mut bytes = Vec::with_capacity(count);
                frames.feed(&buffer[..count], &mut bytes);
                bytes
            }
            None => buffer[..count].to_vec(),
        };
        let message = if text {
            Message::Text(String::from_utf8_lossy(&bytes).into_owned().into())
        } else {
            Message::Binary(bytes.into())
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn receive(mut socket: SplitStream<WebSocket>, mut input: WriteHalf<DuplexStream>) {
    loop {
        let bytes = match socket.next().await {
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
