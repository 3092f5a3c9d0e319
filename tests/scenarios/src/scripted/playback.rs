//! Position in a script.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use parking_lot::Mutex;

use crate::{
    format::{Script, Step},
    observed::Log,
    status,
};

/// Plays a script; clones share the position.
#[derive(Debug, Clone)]
pub(crate) struct Playback {
    script: Arc<Script>,
    /// Calls that each step has answered.
    used: Arc<Mutex<Vec<u32>>>,
    pub(crate) log: Log,
}

impl Playback {
    pub(crate) fn new(script: &Script, log: Log) -> Self {
        Self { used: Arc::new(Mutex::new(vec![0; script.steps.len()])), script: Arc::new(script.clone()), log }
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// Returns the step that answers the next call.
    pub(crate) fn next_step(&self) -> Step {
        let now = self.log.epoch().elapsed_ms();
        let mut used = self.used.lock();
        let steps = &self.script.steps;
        let is_left = |used: &[u32], at: usize| {
            steps[at].times.is_none_or(|times| used[at] < times) && steps[at].until_ms.is_none_or(|until| now < until)
        };
        let mut current = (0..steps.len()).find(|at| is_left(&used, *at));
        if current.is_none() && self.script.repeat {
            used.fill(0);
            current = (0..steps.len()).find(|at| is_left(&used, *at));
        }
        let Some(current) = current.or_else(|| steps.len().checked_sub(1)) else { return Step::default() };
        used[current] += 1;
        steps[current].clone()
    }
}

/// Headers or trailers that carry the status of a step.
pub(crate) fn status_headers(step: &Step) -> HeaderMap {
    let code = step.status.as_deref().and_then(|name| status::parse(name).ok()).unwrap_or(tonic::Code::Ok);
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from(code as i32));
    for (name, value) in &step.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Head of a gRPC response, or of the answer of a proxy.
pub(crate) fn head(step: &Step) -> Response<()> {
    let mut response = Response::new(());
    if let Some(status) = step.http.and_then(|status| http::StatusCode::from_u16(status).ok()) {
        *response.status_mut() = status;
        response.headers_mut().extend(status_headers(step));
        response.headers_mut().remove("grpc-status");
    } else {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    response
}

/// Whether the response has no body: an error of gRPC, or of a proxy.
pub(crate) fn is_head_only(step: &Step) -> bool {
    let is_error = step.status.as_deref().is_some_and(|status| status != "OK");
    step.http.is_some() || (is_error && !step.in_trailers)
}
