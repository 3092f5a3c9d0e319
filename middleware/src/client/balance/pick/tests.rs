use std::time::Duration;

use super::{
    super::{
        ejection::{self, Ejections},
        load::Load,
    },
    *,
};
use crate::{
    circuit_breaker::{self, State, Verdict},
    client::{address::Address, connector::Way},
};

const SECOND: Duration = Duration::from_secs(1);

fn nodes(count: u16) -> Vec<Arc<Node>> {
    let ejections = Ejections::new("products");
    let config = circuit_breaker::Config { probes: 1, ..Default::default() };
    let nodes = (1..=count).map(|port| {
        let address = Address::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let node = Node::new(address, Way::plain(SECOND), Load::new(SECOND * 10, SECOND * 5, Instant::now()));
        Arc::new(node.guarded("products", None, &config, ejections.clone()))
    });
    let nodes: Vec<_> = nodes.collect();
    ejections.limit(ejection::most(0.5, nodes.len()), std::iter::empty());
    nodes
}

fn any() -> Wanted<'static> {
    Wanted { now: Instant::now(), deadline: None, may_probe: true, tried: &[] }
}

/// How often each is chosen, if calls take so long that all are in flight.
fn spread(nodes: &[Arc<Node>], calls: u32) -> Vec<u32> {
    let dice = Dice::new();
    (0..calls).for_each(|_| pick(nodes, &dice, any()).node.load().enter());
    nodes.iter().map(|node| node.load().in_flight()).collect()
}

fn open(node: &Node, wait: Duration) {
    node.breaker().unwrap().open_for(wait);
}

#[test]
fn draws_two_different_ones_and_all_pairs_alike() {
    let (dice, mut drawn) = (Dice::new(), [[0_u32; 3]; 3]);
    for _ in 0..6_000 {
        let (first, second) = two_below(3, dice.roll());
        drawn[first][second] += 1;
    }
    for (first, row) in drawn.iter().enumerate() {
        for (second, count) in row.iter().enumerate() {
            assert!(if first == second { *count == 0 } else { (800..1_200).contains(count) }, "{drawn:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn spreads_over_equal_endpoints() {
    for chosen in spread(&nodes(5), 500) {
        assert!((80..=120).contains(&chosen), "{chosen} of 100");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_less_by_as_much_as_it_is_slower() {
    let nodes = nodes(2);
    nodes[0].load().answered(Duration::from_millis(90), Instant::now());
    nodes[1].load().answered(Duration::from_millis(30), Instant::now());
    assert_eq!(spread(&nodes, 100), [25, 75]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_fast_attracts_nobody() {
    let nodes = nodes(2);
    nodes[0].load().failed(Duration::from_micros(100), Instant::now());
    nodes[1].load().answered(Duration::from_millis(100), Instant::now());
    assert_eq!(spread(&nodes, 40), [0, 40]);
}

#[tokio::test(start_paused = true)]
async fn an_open_endpoint_is_skipped_until_a_probe_has_found_it_well() {
    let (nodes, dice) = (nodes(2), Dice::new());
    open(&nodes[0], SECOND);
    nodes[0].load().failed(SECOND, Instant::now());
    assert_eq!(spread(&nodes, 50), [0, 50]);
    tokio::time::advance(SECOND).await;
    let retry = pick(&nodes, &dice, Wanted { may_probe: false, ..any() });
    assert_eq!(retry.node.address, nodes[1].address, "a retry is no probe");
    let probe = pick(&nodes, &dice, any());
    assert_eq!(probe.node.address, nodes[0].address, "whatever its load");
    assert_eq!(pick(&nodes, &dice, any()).node.address, nodes[1].address, "one probe at a time");
    probe.permit.unwrap().settle(Verdict::Success.into(), None, Instant::now());
    assert_eq!(nodes[0].breaker().unwrap().state(), State::Closed);
    // What was known of it was from its bad days.
    assert_eq!(pick(&nodes, &dice, any()).node.address, nodes[0].address);
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_where_its_call_has_not_been_however_busy_it_is_there() {
    let (nodes, dice) = (nodes(3), Dice::new());
    (0..100).for_each(|_| nodes[2].load().enter());
    let mut tried = vec![nodes[0].clone(), nodes[1].clone()];
    for _ in 0..20 {
        assert_eq!(pick(&nodes, &dice, Wanted { tried: &tried, ..any() }).node.address, nodes[2].address);
    }
    open(&nodes[2], SECOND);
    let again = pick(&nodes, &dice, Wanted { may_probe: false, tried: &tried, ..any() });
    assert_ne!(again.node.address, nodes[2].address, "better one that failed once than one that is known to fail");
    assert!(!again.panics);
    tried.push(nodes[2].clone());
    pick(&nodes, &dice, Wanted { tried: &tried, ..any() });
}

#[tokio::test(start_paused = true)]
async fn at_most_half_are_left_out() {
    let nodes = nodes(4);
    for node in &nodes[..3] {
        open(node, SECOND * 60);
    }
    let spread = spread(&nodes, 100);
    assert_eq!(spread[..2], [0, 0]);
    assert!((40..=60).contains(&spread[2]) && (40..=60).contains(&spread[3]), "{spread:?}");
}

#[tokio::test(start_paused = true)]
async fn if_all_are_left_out_all_are_used() {
    let nodes = nodes(2);
    nodes[0].seat().unwrap().ejections().limit(2, std::iter::empty());
    for node in &nodes {
        open(node, SECOND * 60);
    }
    let choice = pick(&nodes, &Dice::new(), any());
    assert!(choice.panics && choice.permit.is_none());
    assert_eq!(spread(&nodes, 50), [25, 25]);
}
