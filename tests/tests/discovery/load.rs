//! What may come of a load while replicas come and go.

use palisade_tests::load::Load;

/// Stops; not more than one in a thousand may have failed. How many there were.
pub(crate) async fn none_failed(load: Load) -> usize {
    let outcome = load.stop().await;
    // A retry does not know where the last attempt went: on a crowded machine all three of a call may fall on one that has just died.
    let (most, failures) = (outcome.requests / 1_000, outcome.failures);
    assert!(failures.len() <= most, "{} of {} failed: {:?}", failures.len(), outcome.requests, &failures[..failures.len().min(5)]);
    outcome.requests
}
