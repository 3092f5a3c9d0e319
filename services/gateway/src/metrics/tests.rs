use palisade_tests::recorded;

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
    for (operation, outcome) in SECOND_LEVEL {
        second_level(operation, outcome).increment(1);
    }
    kept(1, 1);
}

#[test]
fn every_series_is_there_at_zero_from_the_start_and_no_other_is_recorded() {
    let catalogue = METRICS.iter().map(|metric| (metric.exposed(), metric.labels));
    recorded::is_all_there_from_the_start(catalogue, register, record_everything);
}
