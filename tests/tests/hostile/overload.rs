//! Overload by many users, none of whom is greedy: the service goes on at its capacity.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant as WallClock},
};

use palisade_tests::{Shop, eventually, shop::CUSTOMER};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use crate::{attack::Attack, victim::Victim};

/// Requests that products handles at once.
const AT_ONCE: usize = 16;
/// Time that products takes for a request, so that the capacity does not depend on the machine.
const LATENCY_MS: u64 = 100;
/// Offered load in multiples of the capacity.
const OVERLOAD: usize = 5;
/// Successful requests per measurement.
const MEASURED: usize = 20 * AT_ONCE;
/// Minimum goodput under overload, as a share of the goodput at capacity. Half of it would be lost
/// to a service that works for callers that no longer wait.
const GOODPUT_SHARE: f64 = 0.6;

/// Sends a request of each of `users` users in every `LATENCY_MS`, each on a new connection,
/// whatever the answer. Returns the time until enough have succeeded.
#[expect(clippy::disallowed_methods, reason = "measures real processes, whose clock cannot be paused")]
async fn time_of_measured(shop: &Shop, path: &str, users: usize) -> (Duration, usize) {
    let (mut load, succeeded, refused) = (Attack::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for user in 0..users {
        let client = shop.client(&format!("user-{user}"), CUSTOMER);
        let (path, succeeded, refused) = (path.to_owned(), succeeded.clone(), refused.clone());
        load.spawn(async move {
            let mut ticks = interval(Duration::from_millis(LATENCY_MS));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match client.get(&path).header("connection", "close").attempt().await {
                    Ok(answer) if answer.status == 200 => succeeded.fetch_add(1, Ordering::Relaxed),
                    _ => refused.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
    }
    // The limits adapt first.
    let reached = async |count: usize| eventually(async || (succeeded.load(Ordering::Relaxed) >= count).then_some(())).await;
    reached(MEASURED / 2).await;
    let (started, before) = (WallClock::now(), succeeded.load(Ordering::Relaxed));
    reached(before + MEASURED).await;
    let took = started.elapsed();
    load.stop().await;
    (took, refused.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn goodput_does_not_collapse_at_five_times_the_capacity() {
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "products" {
            command.env("PALISADE_SERVER__FAULT_INJECTION__ENABLED", "true");
            command.env("PALISADE_SERVER__MAX_IN_FLIGHT", AT_ONCE.to_string());
        }
    });
    let victim = Victim::enter(&shop).await;
    let path = format!("/products/{}", victim.product());
    let latency = json!({ "latency": { "ms": LATENCY_MS, "jitter_ms": 0 } });
    shop.program("products").set_faults("products", "palisade.products.v1.ProductsService/FindOne", 1.0, Some(latency)).await;

    let (at_capacity, _) = time_of_measured(&shop, &path, AT_ONCE).await;
    let (overloaded, refused) = time_of_measured(&shop, &path, OVERLOAD * AT_ONCE).await;
    let share = at_capacity.as_secs_f64() / overloaded.as_secs_f64();
    eprintln!("{MEASURED} requests: {at_capacity:?} at capacity, {overloaded:?} overloaded ({refused} refused): goodput {share:.2}");
    assert!(refused > MEASURED, "no overload");
    assert!(share >= GOODPUT_SHARE, "goodput fell to {share:.2}");
}
