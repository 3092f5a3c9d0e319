//! Verdicts about held traces, sent to the endpoint over the connection of its calls, so that they
//! reach the process that served them.
//!
//! They travel in a header of a health check: it needs no token and is never shed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use palisade_resilience::{
    task,
    trace::tail_sampling::{KEPT_TRACES_HEADER, MAX_VERDICTS, SendVerdict, Verdict, count_unsent},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, time};
use tonic::{body::Body, transport::Channel};
use tower::ServiceExt;

/// Maximum number of verdicts that wait to be sent. More are counted as unsent.
const MAX_WAITING: usize = 1_024;
/// Time for which verdicts are collected, so that many failures are one request.
const LINGER: Duration = Duration::from_millis(20);
/// Timeout of a request with verdicts.
const TIMEOUT: Duration = Duration::from_secs(2);

const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// gRPC frame of an empty message.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Sends verdicts to one endpoint.
#[derive(Debug, Clone)]
pub(super) struct TraceVerdicts(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    channel: Channel,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Verdict>,
    /// Whether a task sends them.
    sending: bool,
}

impl TraceVerdicts {
    pub(super) fn over(channel: Channel) -> Arc<dyn SendVerdict> {
        Arc::new(Self(Arc::new(Queue { channel, state: Mutex::default() })))
    }
}

impl SendVerdict for TraceVerdicts {
    fn send(&self, verdict: Verdict) {
        let mut state = self.0.state.lock();
        // Without a runtime the process ends.
        if state.waiting.len() >= MAX_WAITING || Handle::try_current().is_err() {
            return count_unsent(1);
        }
        state.waiting.push(verdict);
        if !std::mem::replace(&mut state.sending, true) {
            drop(state);
            drop(task::spawn(send_all(self.0.clone())));
        }
    }
}

/// Sends verdicts until none is left.
async fn send_all(queue: Arc<Queue>) {
    loop {
        time::sleep(LINGER).await;
        let next: Vec<_> = {
            let mut state = queue.state.lock();
            let count = state.waiting.len().min(MAX_VERDICTS);
            state.sending = count > 0;
            state.waiting.drain(..count).collect()
        };
        if next.is_empty() {
            return;
        }
        let sent = time::timeout(TIMEOUT, queue.channel.clone().oneshot(health_check(&next))).await;
        if !matches!(sent, Ok(Ok(_))) {
            count_unsent(next.len());
        }
    }
}

fn health_check(verdicts: &[Verdict]) -> Request<Body> {
    let text = verdicts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut request = Request::new(Body::new(Full::new(Bytes::from_static(EMPTY_MESSAGE))));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(HEALTH_CHECK);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // Digits and hyphens only.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(KEPT_TRACES_HEADER, value);
    }
    request
}
