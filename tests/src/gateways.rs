//! Several gateways, as a load balancer in front of them sees them.
//!
//! What it does, and no more than that:
//! - Requests go round the gateways that say that they are ready (`GET /readyz` every 50 ms, while somebody [watches](Gateways::watch)); one that
//!   does not say so gets no new request, not even over a connection that is open. So do a kubelet's readiness probe and the endpoints
//!   of a service: the gateway's lame duck must be longer than that takes.
//! - A request that failed to connect, or whose connection ended before there was a whole answer, goes to another gateway, once, and is counted. The
//!   latter only if it may be repeated: its method is idempotent (RFC 9110, section 9.2.2) or it has an `Idempotency-Key`. An answer is
//!   final whatever it says.
//! - Connections are kept and used again, as HTTP/1.1 has it; one that the gateway closes, or marks `Connection: close`, is not used again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, Request, RequestBuilder, Url};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::client::{Answer, Client};

/// How often each is asked whether it is ready.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long it may take to say so.
const PATIENCE: Duration = Duration::from_millis(200);

/// The gateways of a shop.
#[derive(Debug)]
pub struct Gateways {
    each: Vec<Gateway>,
    next_index: AtomicUsize,
    passed_on: AtomicUsize,
}

#[derive(Debug)]
struct Gateway {
    port: u16,
    admin: String,
    ready: AtomicBool,
}

impl Gateways {
    /// Those with these addresses: the public one and that of the admin port.
    pub(crate) fn new<'a>(each: impl Iterator<Item = [&'a String; 2]>) -> Self {
        let gateway = |[address, admin]: [&String; 2]| Gateway {
            port: Url::parse(&format!("http://{address}")).expect("an address").port().expect("it has a port"),
            admin: format!("http://{admin}"),
            ready: AtomicBool::new(true),
        };
        Self { each: each.map(gateway).collect(), next_index: AtomicUsize::new(0), passed_on: AtomicUsize::new(0) }
    }

    /// How many requests got their answer from another gateway than the first.
    pub fn failed_over(&self) -> usize {
        self.passed_on.load(Ordering::Relaxed)
    }

    /// Takes out who is not ready, or does not say so in time, and in again who is, until this is dropped.
    pub fn watch(self: &Arc<Self>) -> JoinSet<()> {
        let mut watching = JoinSet::new();
        for index in 0..self.each.len() {
            let gateways = self.clone();
            watching.spawn(async move { gateways.each[index].watch().await });
        }
        watching
    }

    /// The answer of the first gateway that gives one.
    pub(crate) async fn attempt(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let (http, request) = request.build_split();
        let request = request?;
        let mut ways = self.ways().into_iter().peekable();
        loop {
            let way = ways.next().expect("there is a gateway");
            let mut attempt = request.try_clone().expect("a body that is no stream can be sent again");
            attempt.url_mut().set_port(Some(way.port)).expect("a URL with a host");
            let error = match Answer::read_to_end(http.execute(attempt).await).await {
                Err(error) if ways.peek().is_some() && may_retry(&request, &error) => error,
                result => return result,
            };
            eprintln!("passed on: {} {}: {error:?}", request.method(), request.url().path());
            self.passed_on.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All of them, in the order in which a request tries them.
    fn ways(&self) -> Vec<&Gateway> {
        let turn = self.next_index.fetch_add(1, Ordering::Relaxed) % self.each.len();
        let (later, first) = self.each.split_at(turn);
        let mut ways: Vec<_> = first.iter().chain(later).collect();
        ways.sort_by_key(|gateway| !gateway.ready.load(Ordering::Relaxed));
        ways
    }
}

impl Gateway {
    async fn watch(&self) {
        let (admin, mut pace) = (Client::new(&self.admin, None), interval(PROBE_INTERVAL));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let answer = timeout(PATIENCE, admin.get("/readyz").attempt()).await;
            self.ready.store(matches!(answer, Ok(Ok(answer)) if answer.status == 200), Ordering::Relaxed);
        }
    }
}

fn may_retry(request: &Request, error: &reqwest::Error) -> bool {
    let repeatable = [Method::GET, Method::HEAD, Method::PUT, Method::DELETE].contains(request.method());
    error.is_connect() || repeatable || request.headers().contains_key("idempotency-key")
}
