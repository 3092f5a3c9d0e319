use std::time::Duration;

use super::{
    super::{
        outlier_ejection::{self, EjectionLimit},
        peak_ewma::PeakEwma,
    },
    *,
};
use crate::client::{address::Address, connector::ConnectParams};
use palisade_resilience::circuit_breaker::{self, CallOutcome, State};

const SECOND: Duration = Duration::from_secs(1);

fn nodes(count: u16) -> Vec<Arc<BalancedEndpoint>> {
    let ejections = EjectionLimit::new("products");
    let config = circuit_breaker::Config { probes: 1, ..Default::default() };
    let nodes = (1..=count).map(|port| {
        let address = Address::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let node = BalancedEndpoint::new(address, ConnectParams::plain(SECOND), PeakEwma::new(SECOND * 10, SECOND * 5, Instant::now()));
        Arc::new(node.with_breaker("products", None, &config, ejections.clone()))
    });
    let nodes: Vec<_> = nodes.collect();
    ejections.set_limit(outlier_ejection::max_ejected_count(0.5, nodes.len()), std::iter::empty());
    nodes
}

fn default_context() -> PickContext<'static> {
    PickContext { now: Instant::now(), deadline: None, may_probe: true, previous: &[] }
}

/// Returns the number of picks per node when all calls stay in flight.
fn picks_per_node(nodes: &[Arc<BalancedEndpoint>], calls: u32) -> Vec<u32> {
    let dice = Rng::new();
    (0..calls).for_each(|_| pick(nodes, &dice, default_context()).node.load().increment_in_flight());
    nodes.iter().map(|node| node.load().in_flight()).collect()
}

fn open_breaker(node: &BalancedEndpoint, wait: Duration) {
    node.breaker().unwrap().open_for(wait);
}

#[test]
fn sampled_pairs_are_distinct_and_uniform() {
    let (rng, mut drawn) = (Rng::new(), [[0_u32; 3]; 3]);
    for _ in 0..6_000 {
        let (first, second) = distinct_pair(3, rng.next_u64());
        drawn[first][second] += 1;
    }
    for (first, row) in drawn.iter().enumerate() {
        for (second, count) in row.iter().enumerate() {
            assert!(if first == second { *count == 0 } else { (800..1_200).contains(count) }, "{drawn:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn p2c_spreads_over_equal_endpoints() {
    for chosen in picks_per_node(&nodes(5), 500) {
        assert!((80..=120).contains(&chosen), "{chosen} of 100");
    }
}

#[tokio::test(start_paused = true)]
async fn share_is_inverse_to_latency() {
    let nodes = nodes(2);
    nodes[0].load().observe_latency(Duration::from_millis(90), Instant::now());
    nodes[1].load().observe_latency(Duration::from_millis(30), Instant::now());
    assert_eq!(picks_per_node(&nodes, 100), [25, 75]);
}

#[tokio::test(start_paused = true)]
async fn fast_failing_endpoint_gets_no_calls() {
    let nodes = nodes(2);
    nodes[0].load().observe_failure(Duration::from_micros(100), Instant::now());
    nodes[1].load().observe_latency(Duration::from_millis(100), Instant::now());
    assert_eq!(picks_per_node(&nodes, 40), [0, 40]);
}

#[tokio::test(start_paused = true)]
async fn open_endpoint_is_skipped_until_probe_succeeds() {
    let (nodes, rng) = (nodes(2), Rng::new());
    open_breaker(&nodes[0], SECOND);
    nodes[0].load().observe_failure(SECOND, Instant::now());
    assert_eq!(picks_per_node(&nodes, 50), [0, 50]);
    tokio::time::advance(SECOND).await;
    let retry = pick(&nodes, &rng, PickContext { may_probe: false, ..default_context() });
    assert_eq!(retry.node.address, nodes[1].address, "a retry is no probe");
    let probe = pick(&nodes, &rng, default_context());
    assert_eq!(probe.node.address, nodes[0].address, "a probe ignores the load");
    assert_eq!(pick(&nodes, &rng, default_context()).node.address, nodes[1].address, "one probe at a time");
    probe.permit.unwrap().report(CallOutcome::Success.into(), None, Instant::now());
    assert_eq!(nodes[0].breaker().unwrap().state(), State::Closed);
    // The recovery reset its latency.
    assert_eq!(pick(&nodes, &rng, default_context()).node.address, nodes[0].address);
}

#[tokio::test(start_paused = true)]
async fn retry_picks_untried_endpoint_regardless_of_load() {
    let (nodes, rng) = (nodes(3), Rng::new());
    (0..100).for_each(|_| nodes[2].load().increment_in_flight());
    let mut previous = vec![nodes[0].clone(), nodes[1].clone()];
    for _ in 0..20 {
        assert_eq!(pick(&nodes, &rng, PickContext { previous: &previous, ..default_context() }).node.address, nodes[2].address);
    }
    open_breaker(&nodes[2], SECOND);
    let fallback = pick(&nodes, &rng, PickContext { may_probe: false, previous: &previous, ..default_context() });
    assert_ne!(fallback.node.address, nodes[2].address, "a tried endpoint is preferred to an open one");
    assert!(!fallback.panic_mode);
    previous.push(nodes[2].clone());
    pick(&nodes, &rng, PickContext { previous: &previous, ..default_context() });
}

#[tokio::test(start_paused = true)]
async fn ejection_is_limited_to_half() {
    let nodes = nodes(4);
    for node in &nodes[..3] {
        open_breaker(node, SECOND * 60);
    }
    let spread = picks_per_node(&nodes, 100);
    assert_eq!(spread[..2], [0, 0]);
    assert!((40..=60).contains(&spread[2]) && (40..=60).contains(&spread[3]), "{spread:?}");
}

#[tokio::test(start_paused = true)]
async fn panic_mode_uses_all_endpoints() {
    let nodes = nodes(2);
    nodes[0].ejection_slot().unwrap().ejections().set_limit(2, std::iter::empty());
    for node in &nodes {
        open_breaker(node, SECOND * 60);
    }
    let choice = pick(&nodes, &Rng::new(), default_context());
    assert!(choice.panic_mode && choice.permit.is_none());
    assert_eq!(picks_per_node(&nodes, 50), [25, 25]);
}
