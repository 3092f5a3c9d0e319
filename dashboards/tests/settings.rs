//! Upper bounds: a huge value of any numeric setting is rejected by its key.

use palisade_middleware::config::{self, Validate};

/// Loads `T` with each numeric setting at a huge value.
fn assert_huge_values_are_rejected<T: serde::de::DeserializeOwned + schemars::JsonSchema + Validate>(service: &str) {
    let keys = config::numeric_keys::<T>();
    assert!(keys.len() > 30, "{service}: {}", keys.len());
    for (key, maximum) in keys {
        for huge in [maximum + 1, 1_000_000_000_000_000, i64::MAX.unsigned_abs(), u64::MAX] {
            let flag = format!("--{}={huge}", key.replace(['.', '_'], "-"));
            let Err(error) = config::from_args::<T>(("test", "A test.", &[]), ["test".into(), flag.clone().into()]) else {
                panic!("{service} accepts {flag}");
            };
            assert!(error.to_string().contains(&key), "{service} {flag}: {error}");
        }
    }
}

#[test]
fn huge_values_are_rejected_by_key() {
    assert_huge_values_are_rejected::<palisade_gateway::Config>("gateway");
    assert_huge_values_are_rejected::<palisade_products::Config>("products");
    assert_huge_values_are_rejected::<palisade_orders::Config>("orders");
}
