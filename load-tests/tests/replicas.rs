//! Every process restarted once and killed once. `make replicas` does it a hundred times.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use palisade_load_tests::{
    TimeLimits,
    replicas::{kills, rolling},
    reports::{self, Assertions},
};

/// Number of processes.
const PROCESSES: usize = 8;

fn assert_all_passed(name: &str, assertions: &Assertions) {
    reports::write(&format!("replicas-{name}"), &format!("# {name}\n\n{assertions}")).unwrap();
    eprintln!("{assertions}");
    assert!(assertions.all_passed(), "{assertions}");
}

#[tokio::test]
async fn rolling_restart_fails_no_request() {
    assert_all_passed("rolling", &rolling(PROCESSES, TimeLimits::Raised).await);
}

#[tokio::test]
async fn kills_lose_nothing_and_fail_no_repeatable_request() {
    assert_all_passed("kills", &kills(PROCESSES, TimeLimits::Raised).await);
}
