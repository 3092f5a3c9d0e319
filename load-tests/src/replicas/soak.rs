//! Soak: mixed load with faults for a long time. What grows although the load does not, leaks.

use std::{env, time::Duration};

use palisade_tests::{Client, Shop, process::Program, shop::SERVICES, traffic::Traffic};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::{CLIENTS, act_on_one, assertions, spread::CALLED_SERVICES, start};
use crate::{Environment, TimeLimits, reports::Assertions};

/// Duration, minutes. The first third is the warm-up.
pub(super) const MINUTES: &str = "PALISADE_SOAK_MINUTES";
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// A fault begins with each of these samples, and has ended with the next.
const SAMPLES_PER_FAULT: usize = 6;
/// Latency of a slow replica, milliseconds, of a part of its calls.
const SLOW_MS: u64 = 300;
const SLOW_SHARE: f64 = 0.2;
/// Allowed growth of the bytes per request in the store of orders.
const STORE_GROWTH: f64 = 1.25;

const MIB: f64 = 1024.0 * 1024.0;

/// What must not grow: name, allowed factor, allowed difference.
const GAUGES: [(&str, f64, f64); 4] = [
    ("process_resident_memory_bytes", 1.05, 4.0 * MIB),
    ("process_open_fds", 1.0, 8.0),
    ("tokio_alive_tasks", 1.0, 16.0),
    (SERIES, 1.02, 0.0),
];

/// Name of the number of series, which is no metric.
const SERIES: &str = "series";

/// Faults, one after another: a killed replica, or a slow one. They spare the first replica of each
/// service, which is measured.
const FAULTS: [(&str, bool); 5] = [("orders", true), ("products", false), ("gateway", true), ("orders", false), ("products", true)];

/// Loads a shop for [`MINUTES`].
pub(super) async fn soak() -> Assertions {
    let minutes: u64 = env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok()).expect("the duration is a number of minutes");
    let mut environment = start(TimeLimits::Default, |_| {});
    let traffic = Traffic::start(&environment.shop, CLIENTS).await;
    let samples = usize::try_from(minutes * 60 / SAMPLE_INTERVAL.as_secs()).expect("a soak has an end");
    assert!(samples >= 3 * SAMPLES_PER_FAULT, "a soak takes 3 minutes or more");
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut gauges, mut stored, mut faults) = (Vec::new(), Vec::new(), FAULTS.iter().cycle());
    let mut killed = None;
    for sample in 0..=samples {
        ticks.tick().await;
        gauges.push(read(&environment.shop).await);
        if sample % (samples / 3) == 0 {
            stored.push((environment.postgres.size("orders"), traffic.snapshot().requests));
        }
        if let Some(service) = killed.take() {
            environment = act_on_one(environment, service, 1, Program::restart).await;
        }
        if sample % SAMPLES_PER_FAULT == 0 {
            recover(&environment).await;
            if let Some(&(service, kill)) = faults.next() {
                if kill {
                    environment = act_on_one(environment, service, 1, Program::kill).await;
                    killed = Some(service);
                } else {
                    slow_down(&environment, service, SLOW_SHARE).await;
                }
            }
            let load = traffic.snapshot();
            eprintln!("{} s: {} requests, {} failed", sample * 10, load.requests, load.failures.len());
        }
    }
    if let Some(service) = killed {
        environment = act_on_one(environment, service, 1, Program::restart).await;
    }
    recover(&environment).await;
    environment.shop.ready().await;
    let outcome = traffic.stop(&environment.shop).await;
    let mut assertions = assertions(&outcome, samples / SAMPLES_PER_FAULT, "faults");
    for (service_index, service) in SERVICES.into_iter().enumerate() {
        for (gauge_index, (name, factor, difference)) in GAUGES.into_iter().enumerate() {
            let values: Vec<f64> = gauges.iter().map(|sample| sample[service_index][gauge_index]).collect();
            let (early, late) = middle_and_end(&values);
            let flat = late <= early * factor + difference;
            assertions.add(format!("{service}: {name} does not grow"), flat, format!("{early:.0} in the middle, {late:.0} at the end"));
        }
    }
    let (middle, end) = (bytes_per_request(&stored[1..=2]), bytes_per_request(&stored[2..]));
    let text = "the store of orders grows with the orders, and no faster";
    assertions.add(text, end <= middle * STORE_GROWTH, format!("{middle:.0} bytes per request in the middle, {end:.0} at the end"));
    assertions
}

/// Reads the gauges of the first replica of each service.
async fn read(shop: &Shop) -> [[f64; GAUGES.len()]; SERVICES.len()] {
    let mut values = [[0.0; GAUGES.len()]; SERVICES.len()];
    for (service, values) in SERVICES.into_iter().zip(&mut values) {
        let first = &shop.replicas(service)[0];
        for ((name, ..), value) in GAUGES.into_iter().zip(values) {
            *value = if name == SERIES { series(first, service).await } else { first.metric_value(service, name, &[]).await };
        }
    }
    values
}

async fn series(replica: &Program, service: &str) -> f64 {
    let metrics = Client::new(replica.admin_url(service), None).get("/metrics").attempt().await.expect("the admin port answers").text();
    f64::from(u32::try_from(metrics.lines().filter(|line| !line.starts_with('#')).count()).expect("few series"))
}

/// Slows down a share of the calls of the second replica of `service`.
async fn slow_down(environment: &Environment, service: &str, share: f64) {
    let (_, method) = CALLED_SERVICES.into_iter().find(|(name, _)| *name == service).expect("a called service");
    let fault = (share > 0.0).then(|| json!({ "latency": { "ms": SLOW_MS } }));
    environment.shop.replicas(service)[1].set_faults(service, method, share, fault).await;
}

/// Removes the injected faults. A killed replica has been restarted.
async fn recover(environment: &Environment) {
    environment.shop.ready().await;
    for (service, _) in CALLED_SERVICES {
        slow_down(environment, service, 0.0).await;
    }
}

/// Returns the medians of the second and the last third.
fn middle_and_end(values: &[f64]) -> (f64, f64) {
    let third = values.len() / 3;
    (median(&values[third..2 * third]), median(&values[2 * third..]))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the growth of the store per request between two measurements.
#[expect(clippy::cast_precision_loss, reason = "a store has less than 2^52 bytes")]
fn bytes_per_request(measured: &[(u64, usize)]) -> f64 {
    let [(size_before, requests_before), (size, requests)] = measured else { unreachable!("two measurements") };
    (size.saturating_sub(*size_before)) as f64 / (requests - requests_before).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_shows_in_the_medians_and_the_warm_up_does_not() {
        let warming_up: Vec<f64> = (0..90).map(|sample| f64::from(sample.min(30))).collect();
        assert_eq!(middle_and_end(&warming_up), (30.0, 30.0));
        let leaking: Vec<f64> = (0..90).map(f64::from).collect();
        assert_eq!(middle_and_end(&leaking), (45.0, 75.0));
    }

    #[test]
    fn growth_of_the_store_is_per_request() {
        assert!((bytes_per_request(&[(1_000, 10), (3_000, 20)]) - 200.0).abs() < f64::EPSILON);
    }
}
