//! Scripted server: HTTP/2 frames without a gRPC library, so that streams can be refused and
//! connections broken at any point.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::Request;
use tokio::{
    io::DuplexStream,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use super::playback::{Playback, head, is_head_only, status_headers};
use crate::{
    format::{Action, Step, Unreachable},
    network::Listener,
    observed::Running,
};

/// An empty message of gRPC.
const MESSAGE: Bytes = Bytes::from_static(&[0; 5]);

/// Command of an answer to its connection.
enum Command {
    Close,
    GoAway,
}

/// Serves a host, apart from the times without a server.
pub(crate) async fn serve(host: String, playback: Playback) {
    let epoch = playback.log.epoch();
    let mut times = playback.script().unreachable.clone();
    times.sort_by_key(|time| time.from_ms);
    for Unreachable { from_ms, until_ms, silent } in times {
        if from_ms > 0 {
            tokio::select! {
                () = accept(&host, &playback) => {}
                () = sleep_until(epoch.at(from_ms)) => {}
            }
        }
        // A silent host accepts connections and never reads.
        let silence = silent.then(|| Listener::bind(&host, None));
        match until_ms {
            Some(until_ms) => sleep_until(epoch.at(until_ms)).await,
            None => std::future::pending().await,
        }
        drop(silence);
    }
    accept(&host, &playback).await;
}

async fn accept(host: &str, playback: &Playback) {
    let mut listener = Listener::bind(host, Some(playback.log.clone()));
    let mut connections = JoinSet::new();
    while let Some(Ok((io, _))) = listener.next().await {
        connections.spawn(serve_connection(io, playback.clone()));
    }
}

async fn serve_connection(io: DuplexStream, playback: Playback) {
    let mut builder = server::Builder::new();
    if let Some(limit) = playback.script().max_streams {
        builder.max_concurrent_streams(limit);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else { return };
    let (commands, mut received) = mpsc::unbounded_channel();
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { return };
                let running = playback.log.received(request.headers());
                answers.spawn(answer(playback.next_step(), request, respond, running, commands.clone()));
            }
            Some(command) = received.recv() => match command {
                Command::Close => return,
                Command::GoAway => connection.graceful_shutdown(),
            },
        }
    }
}

/// Answers one request.
async fn answer(
    step: Step,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    running: Running,
    commands: mpsc::UnboundedSender<Command>,
) {
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.data().await {}
    tokio::select! {
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        () = sleep(Duration::from_millis(step.after_ms)) => {}
    }
    match step.action {
        Action::Respond | Action::Panic => send(&step, &mut respond),
        Action::GoAway => {
            send(&step, &mut respond);
            let _ = commands.send(Command::GoAway);
        }
        Action::Hang => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
            return;
        }
        Action::HangAfterHead => {
            if let Some(mut stream) = send_head(&step, &mut respond) {
                let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
            }
            return;
        }
        Action::Truncate => {
            if let Some(mut stream) = send_head(&step, &mut respond) {
                let _ = stream.send_data(Bytes::new(), true);
            }
        }
        Action::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Action::RefuseStream => respond.send_reset(Reason::REFUSED_STREAM),
        Action::Close => {
            let _ = commands.send(Command::Close);
        }
    }
    running.answered();
}

fn send_head(step: &Step, respond: &mut SendResponse<Bytes>) -> Option<SendStream<Bytes>> {
    respond.send_response(head(step), false).ok()
}

/// Sends the whole response. An error means that the caller has gone.
fn send(step: &Step, respond: &mut SendResponse<Bytes>) {
    if is_head_only(step) {
        let mut response = head(step);
        if step.http.is_none() {
            response.headers_mut().extend(status_headers(step));
        }
        let _ = respond.send_response(response, true);
    } else if let Some(mut stream) = send_head(step, respond) {
        if step.status.is_none() {
            let _ = stream.send_data(MESSAGE, false);
        }
        let _ = stream.send_trailers(status_headers(step));
    }
}
