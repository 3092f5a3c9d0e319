//! Every process restarted once, and killed once; `make replicas` does it a hundred times.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use palisade_load_tests::{
    assertions::Assertions,
    replicas::{kills, rolling},
    reports,
};

/// As many as there are.
const PROCESSES: usize = 8;

fn hold(name: &str, claims: &Assertions) {
    reports::keep(&format!("replicas-{name}"), &format!("# {name}\n\n{claims}")).unwrap();
    eprintln!("{claims}");
    assert!(claims.all_passed(), "{claims}");
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request() {
    hold("rolling", &rolling(PROCESSES).await);
}

#[tokio::test]
async fn a_killed_replica_loses_nothing_and_fails_no_request_that_may_be_repeated() {
    hold("kills", &kills(PROCESSES).await);
}
