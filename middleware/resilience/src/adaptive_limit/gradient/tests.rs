use super::*;

const BASE: Duration = Duration::from_millis(20);

fn gradient() -> Gradient {
    Gradient::new(&Config { initial_limit: 64, ..Config::default() })
}

/// Feeds `windows` windows with as many concurrent requests as the limit allows, of the `latency`
/// at that concurrency.
fn saturate(gradient: &mut Gradient, windows: u32, latency: impl Fn(usize) -> Duration) {
    for _ in 0..windows {
        let peak = gradient.limit();
        gradient.update(&WindowSample { latency: Some(latency(peak)), peak, windows: 1.0 });
    }
}

/// Latency model of a server with room for `capacity` concurrent requests; more requests share it.
fn sharing(capacity: u32) -> impl Fn(usize) -> Duration {
    move |at_once| BASE.mul_f64((f64::from(u32::try_from(at_once).unwrap()) / f64::from(capacity)).max(1.0))
}

#[test]
fn gradient_grows_to_max_at_steady_latency() {
    let mut gradient = gradient();
    saturate(&mut gradient, 400, |_| BASE);
    assert_eq!(gradient.limit(), 1_000);
}

#[test]
fn gradient_ignores_traffic_below_half_of_limit() {
    let mut gradient = gradient();
    saturate(&mut gradient, 20, |_| BASE);
    let (limit, peak) = (gradient.limit(), gradient.limit() / 2 - 1);
    for latency in [Some(BASE), Some(BASE * 30), None] {
        for _ in 0..50 {
            gradient.update(&WindowSample { latency, peak, windows: 1.0 });
        }
        assert_eq!(gradient.limit(), limit);
    }
}

#[test]
fn gradient_at_most_halves_limit_and_recovers() {
    let mut gradient = gradient();
    saturate(&mut gradient, 400, |_| BASE);
    let mut lowest = 1_000;
    for _ in 0..8 {
        let before = gradient.limit();
        saturate(&mut gradient, 1, |_| BASE * 3);
        assert!((before / 2..before).contains(&gradient.limit()), "{before} to {}", gradient.limit());
        lowest = gradient.limit();
    }
    assert!(lowest < 600, "{lowest}");
    saturate(&mut gradient, 400, |_| BASE);
    assert_eq!(gradient.limit(), 1_000);
}

#[test]
fn gradient_settles_at_server_capacity() {
    let mut gradient = gradient();
    saturate(&mut gradient, 100, |_| BASE);
    saturate(&mut gradient, 100, sharing(50));
    let settled = gradient.limit();
    assert!((50..120).contains(&settled), "{settled}");
    // A minute of overload does not become the baseline.
    saturate(&mut gradient, 600, sharing(50));
    assert!((50..150).contains(&gradient.limit()), "{}", gradient.limit());
}

#[test]
fn gradient_accepts_latency_that_halving_keeps() {
    let mut gradient = gradient();
    saturate(&mut gradient, 400, |_| BASE);
    for _ in 0..300 {
        saturate(&mut gradient, 1, |_| BASE * 3);
        assert!(gradient.limit() > 400, "{}", gradient.limit());
    }
    assert_eq!(gradient.limit(), 1_000);
}

#[test]
fn gradient_leaves_minimum_if_it_does_not_help() {
    let mut gradient = Gradient::new(&Config { initial_limit: 10, ..Config::default() });
    saturate(&mut gradient, 20, |_| BASE);
    saturate(&mut gradient, 300, |_| BASE * 10);
    assert!(gradient.limit() > 100, "{}", gradient.limit());
}

#[test]
fn gradient_falls_on_timeouts() {
    let mut gradient = gradient();
    gradient.update(&WindowSample { latency: None, peak: 64, windows: 1.0 });
    assert_eq!(gradient.limit(), 57);
    for _ in 0..100 {
        gradient.update(&WindowSample { latency: None, peak: 64, windows: 1.0 });
    }
    assert_eq!(gradient.limit(), 8);
}

#[test]
fn gradient_ignores_noise_below_min_latency() {
    let mut gradient = gradient();
    saturate(&mut gradient, 400, |_| Duration::from_micros(50));
    saturate(&mut gradient, 100, |_| Duration::from_millis(9));
    assert_eq!(gradient.limit(), 1_000);
}

#[test]
fn gradient_falls_by_time_if_requests_are_slow() {
    let mut gradient = gradient();
    saturate(&mut gradient, 20, |_| BASE);
    let before = gradient.limit();
    gradient.update(&WindowSample { latency: Some(BASE * 100), peak: before, windows: 40.0 });
    assert!((before / 2..before * 2 / 3).contains(&gradient.limit()), "{before} to {}", gradient.limit());
}

#[test]
fn gradient_never_accepts_a_latency_at_which_callers_give_up() {
    let slow = Duration::from_secs(8);
    for warm_up in [0, 20] {
        let mut gradient = gradient();
        saturate(&mut gradient, warm_up, |_| BASE);
        saturate(&mut gradient, 300, |_| slow);
        assert_eq!(gradient.limit(), 8, "after {warm_up} windows");
        assert!(gradient.baseline_latency().unwrap() <= Duration::from_secs(2));
    }
}

#[test]
fn gradient_leaves_minimum_at_a_database_of_two_seconds() {
    for latency in [1_900, 2_100, 2_900] {
        let mut gradient = gradient();
        saturate(&mut gradient, 20, |_| BASE);
        saturate(&mut gradient, 300, |_| Duration::from_millis(latency));
        assert!(gradient.limit() > 100, "{latency} ms: {}", gradient.limit());
    }
}
