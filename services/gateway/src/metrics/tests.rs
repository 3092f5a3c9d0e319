use palisade_tests::metrics_recorder;

use super::*;

fn record_everything() {
    for result in LOOKUPS {
        lookups(result).increment(1);
    }
    for outcome in LOADS {
        loads(outcome).increment(1);
    }
    for cause in CAUSES {
        invalidations(cause).increment(1);
    }
    for (operation, outcome) in REDIS_OPERATIONS {
        redis_operations(operation, outcome).increment(1);
    }
    record_size(1, 1);
}

#[test]
fn all_series_are_preregistered() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    metrics_recorder::assert_all_preregistered(catalogue, register, record_everything);
}
