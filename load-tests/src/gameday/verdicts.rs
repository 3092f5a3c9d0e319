//! Assertions of game days about detection, degradation and recovery. Latency limits are calibrated
//! with the latency before the fault.

use super::run_result::{Phase, RunResult};

/// Route prefix of product reads.
pub(super) const READ_ROUTES: &str = "GET /products";
/// Retries permitted before the budget denies them: half of its tokens.
const RETRY_BURST: f64 = 50.0;

pub(super) async fn assert_breaker_opens(result: &mut RunResult, job: &str, target: &str, within: f64) {
    let after = result.breaker_open_after(job, target).await;
    let measured = after.map_or_else(|| "never".to_owned(), |after| format!("{after:.1} s"));
    let passed = after.is_some_and(|after| after <= within);
    result.add_assertion(format!("the breaker of {job} for {target} opens within {within} s"), passed, measured);
}

pub(super) fn assert_excess_is_shed(result: &mut RunResult) {
    let limit = result.calibrated(1.5, "", 0.99);
    let samples = result.select(Phase::During, "");
    let rejected = samples.with(&[503]);
    let measured = format!("{:.0} % of {}: {}", 100.0 * samples.share(&[503]), samples.count(), rejected.summary());
    let passed = samples.share(&[503]) > 0.3 && rejected.quantile(0.99) < limit;
    result.add_assertion(format!("excess requests are shed within {limit:.1} s"), passed, measured);
}

pub(super) fn assert_rest_is_served(result: &mut RunResult) {
    let limit = result.calibrated(1.0, READ_ROUTES, 0.95);
    let samples = result.select(Phase::During, READ_ROUTES);
    let served = samples.with(&[200, 304]);
    let passed = served.count() >= 14 * 15 && served.quantile(0.95) < limit;
    let measured = format!("{}: {}; of all: {}", served.count(), served.summary(), samples.summary());
    let text = format!("at least fifteen reads per second are served, 95 % of them within {limit:.1} s");
    result.add_assertion(text, passed, measured);
}

pub(super) fn assert_reads_rejected_fast(result: &mut RunResult) {
    let limit = result.calibrated(0.25, READ_ROUTES, 0.95);
    let samples = result.select(Phase::During, READ_ROUTES);
    let passed = samples.count() > 20 && samples.share(&[503]) > 0.95 && samples.with(&[503]).quantile(0.95) < limit;
    let measured = samples.summary();
    let text = format!("product reads get 503 with Retry-After, 95 % of them within {:.0} ms", 1e3 * limit);
    result.add_assertion(text, passed, measured);
}

pub(super) fn assert_orders_accepted(result: &mut RunResult) {
    let samples = result.select(Phase::During, "POST /orders");
    let (passed, measured) = (samples.count() > 5 && samples.share(&[201, 202]) > 0.99, samples.summary());
    result.add_assertion("every order is accepted: 201, or 202 and finished later", passed, measured);
}

pub(super) fn assert_orders_rejected_fast(result: &mut RunResult) {
    let samples = result.select(Phase::During, "POST /orders");
    let p95 = samples.with(&[503]).quantile(0.95);
    let rejected = samples.share(&[503, 504]) > 0.9 || samples.count() == 0;
    let measured = format!("{}; rejections p95 {:.0} ms", samples.summary(), 1e3 * p95);
    result.add_assertion("orders are rejected with Retry-After within 5 s", rejected && p95 < 5.0, measured);
}

pub(super) fn assert_route_unaffected(result: &mut RunResult, route: &str) {
    let limit = result.calibrated(0.5, route, 0.99);
    let (before, during) = (result.select(Phase::Before, route), result.select(Phase::During, route));
    let passed = during.count() > 3 && during.share(&[200, 304]) > 0.99 && during.quantile(0.99) <= limit;
    let measured = format!("p99 {:.0} ms before, then {}", 1e3 * before.quantile(0.99), during.summary());
    result.add_assertion(format!("{route} is unaffected and keeps its latency"), passed, measured);
}

pub(super) async fn assert_retries_bounded(result: &mut RunResult, job: &str, target: &str) {
    let (retries, calls) = result.retries_and_calls(job, target).await;
    let passed = retries <= (0.2 * calls).max(RETRY_BURST);
    let text = format!("retries of {job} to {target} add at most 20 % to its calls, or {RETRY_BURST:.0}, the initial budget");
    result.add_assertion(text, passed, format!("{retries:.0} for {calls:.0} calls"));
}

pub(super) fn assert_recovery(result: &mut RunResult, within: f64) {
    let after = result.recovered_after("");
    let served = result.select(Phase::After, "").share(&[200, 201, 202, 304, 409]);
    let measured = format!("last failure {after:.1} s after recovery");
    result.add_assertion(format!("all requests succeed {within} s after recovery"), after <= within && served > 0.0, measured);
}

pub(super) async fn assert_alert(result: &mut RunResult, alert: &str) {
    let alerted = result.alerted(alert).await;
    result.add_assertion(format!("the condition of the alert {alert} is met"), alerted, if alerted { "yes" } else { "no" });
}
