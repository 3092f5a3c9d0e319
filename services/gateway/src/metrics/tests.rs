use palisade_tests::recorded::Recorded;

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
    let recorded = Recorded::new();
    let _recording = recorded.here();
    let labels = |metric: &Metric| metric.labels.iter().map(|label| (*label).to_owned()).collect();
    let expected = METRICS.iter().map(|metric| (metric.exposed(), labels(metric))).collect();
    recorded.is_all_there_from_the_start(&expected, register, record_everything);
}
