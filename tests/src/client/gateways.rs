//! Client-side load balancer for several gateways.
//!
//! It behaves like a minimal load balancer:
//! - Round robin over ready gateways. While [watched](Gateways::watch), each gateway is probed with
//!   `GET /readyz` every 50 ms. A gateway that is not ready receives no new request, even over an
//!   open connection. A kubelet's readiness probe with the endpoints of a Service does the same:
//!   the gateway's drain delay must be longer than this takes.
//! - Failover: a request goes to another gateway, once, and is counted, if the connection failed or
//!   ended before a complete response. In the latter case only if the request may be repeated: an
//!   idempotent method (RFC 9110, section 9.2.2) or an `Idempotency-Key`. A response is final,
//!   whatever its status.
//! - Keep-alive as in HTTP/1.1. A connection that the gateway closes, or marks with `Connection:
//!   close`, is not reused.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, Request, RequestBuilder, Url};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Client, Response};

/// Interval of readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of a readiness probe.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Gateways of a shop.
#[derive(Debug)]
pub struct Gateways {
    members: Vec<Gateway>,
    next_index: AtomicUsize,
    failovers: AtomicUsize,
}

#[derive(Debug)]
struct Gateway {
    port: u16,
    admin: String,
    /// [`READY`], [`SLOW`] or [`NOT_READY`]: gateways are tried in ascending order.
    state: AtomicU8,
}

const READY: u8 = 0;
/// The probe timed out, as on a busy machine.
const SLOW: u8 = 1;
/// The gateway answered that it is not ready, or is not running.
const NOT_READY: u8 = 2;

impl Gateways {
    /// Creates the balancer from pairs of public address and admin address.
    pub(crate) fn new<'a>(addresses: impl Iterator<Item = [&'a String; 2]>) -> Self {
        let gateway = |[address, admin]: [&String; 2]| Gateway {
            port: Url::parse(&format!("http://{address}")).expect("valid address").port().expect("address has a port"),
            admin: format!("http://{admin}"),
            state: AtomicU8::new(READY),
        };
        Self { members: addresses.map(gateway).collect(), next_index: AtomicUsize::new(0), failovers: AtomicUsize::new(0) }
    }

    /// Returns the number of requests that failed over to another gateway.
    pub fn failed_over(&self) -> usize {
        self.failovers.load(Ordering::Relaxed)
    }

    /// Probes the gateways and routes around those that are not ready or time out, until the result
    /// is dropped.
    pub fn watch(self: &Arc<Self>) -> JoinSet<()> {
        let mut probes = JoinSet::new();
        for index in 0..self.members.len() {
            let gateways = self.clone();
            probes.spawn(async move { gateways.members[index].watch().await });
        }
        probes
    }

    /// Sends the request to the gateways in turn until one responds.
    pub(crate) async fn attempt(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        let (http, request) = request.build_split();
        let request = request?;
        let mut candidates = self.failover_order().into_iter().peekable();
        loop {
            let gateway = candidates.next().expect("at least one gateway");
            let mut attempt = request.try_clone().expect("request body is not a stream");
            attempt.url_mut().set_port(Some(gateway.port)).expect("URL has a host");
            let error = match Response::read_to_end(http.execute(attempt).await).await {
                Err(error) if candidates.peek().is_some() && may_retry(&request, &error) => error,
                result => return result,
            };
            eprintln!("failover: {} {}: {error:?}", request.method(), request.url().path());
            self.failovers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns all gateways in the order in which a request tries them.
    fn failover_order(&self) -> Vec<&Gateway> {
        let index = self.next_index.fetch_add(1, Ordering::Relaxed) % self.members.len();
        let (later, first) = self.members.split_at(index);
        let mut candidates: Vec<_> = first.iter().chain(later).collect();
        candidates.sort_by_key(|gateway| gateway.state.load(Ordering::Relaxed));
        candidates
    }
}

impl Gateway {
    async fn watch(&self) {
        let (admin, mut ticks) = (Client::new(&self.admin, None), interval(PROBE_INTERVAL));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match timeout(PROBE_TIMEOUT, admin.get("/readyz").attempt()).await {
                Ok(Ok(answer)) if answer.status == 200 => self.state.store(READY, Ordering::Relaxed),
                Ok(_) => self.state.store(NOT_READY, Ordering::Relaxed),
                // A late answer does not make a stopped gateway better.
                Err(_) => drop(self.state.fetch_max(SLOW, Ordering::Relaxed)),
            }
        }
    }
}

fn may_retry(request: &Request, error: &reqwest::Error) -> bool {
    let repeatable = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(request.method());
    error.is_connect() || repeatable || request.headers().contains_key("idempotency-key")
}
