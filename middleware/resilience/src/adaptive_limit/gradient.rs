//! Gradient concurrency limit computed from latency: Gradient2 of Netflix' concurrency-limits.
//! Pure.

use std::time::Duration;

use super::{config::Config, window::WindowSample};

/// Lower bound of the gradient: one window, however bad, asks for at most a halving of the limit.
const MIN_GRADIENT: f64 = 0.5;
/// Number of windows whose plain mean is the first baseline latency.
const WARM_UP_WINDOWS: u32 = 10;
/// Minimum growth per window, requests. The square root of the limit applies if it is larger, as in
/// Envoy, because growth would take minutes otherwise.
const MIN_GROWTH: f64 = 4.0;
/// Weight factor of the baseline for latency increases while the limit is reached. Such an increase
/// may be caused by our own concurrency, so the baseline follows it this much more slowly. Without
/// the factor overload becomes the baseline within a minute and the limit runs away.
const SATURATED_WEIGHT: f64 = 0.1;
/// Latency ratio above which halving the concurrency did not help: concurrency is then not the
/// cause of the latency.
const NO_IMPROVEMENT: f64 = 0.75;

/// The concurrency limit and the latency statistics it is computed from.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    min: f64,
    max: f64,
    smoothing: f64,
    tolerance: f64,
    /// Minimum latency that can count as overload, seconds.
    min_latency: f64,
    /// Maximum baseline latency, seconds.
    max_latency: f64,
    baseline: Baseline,
    decrease: Option<LimitDecrease>,
}

/// Baseline latency, seconds: a plain mean during warm-up, then a slow exponential average.
#[derive(Debug)]
struct Baseline {
    value: f64,
    windows: u32,
    weight: f64,
}

/// A decrease of the limit in progress.
#[derive(Debug)]
struct LimitDecrease {
    /// Limit at the start of the decrease.
    start_limit: f64,
    /// Highest latency since the start, seconds. The latency of the start arrives late, with the
    /// requests that began then.
    max_latency: f64,
}

impl Gradient {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.initial_limit.into(),
            min: config.min_limit.into(),
            max: config.max_limit.into(),
            smoothing: config.smoothing,
            tolerance: config.tolerance,
            min_latency: Duration::from_millis(config.min_latency_ms).as_secs_f64(),
            max_latency: Duration::from_millis(config.max_latency_ms).as_secs_f64(),
            baseline: Baseline { value: 0.0, windows: 0, weight: 2.0 / (f64::from(config.baseline_windows) + 1.0) },
            decrease: None,
        }
    }

    /// Returns the limit, concurrent requests.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped between two u32 values")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Returns the baseline latency, or `None` before the first window.
    pub(super) fn baseline_latency(&self) -> Option<Duration> {
        (self.baseline.windows > 0).then(|| Duration::from_secs_f64(self.baseline.value))
    }

    /// Updates the limit with a finished window of requests.
    pub(super) fn update(&mut self, seen: &WindowSample) {
        // Below half of the limit, latency is not caused by the limit. Growing on would leave no
        // limit when the load comes.
        let busy = seen.peak * 2 >= self.limit();
        let Some(latency) = seen.latency else {
            if busy {
                self.decrease.get_or_insert(LimitDecrease { start_limit: self.limit, max_latency: 0.0 }).max_latency = f64::INFINITY;
                self.smooth_towards(self.limit * MIN_GRADIENT, seen.windows);
            }
            return;
        };
        let latency = latency.as_secs_f64().max(self.min_latency);
        self.baseline.update(latency.min(self.max_latency), seen.peak >= self.limit());
        if busy {
            let gradient = self.gradient(latency);
            self.smooth_towards(self.limit * gradient + self.limit.sqrt().max(MIN_GROWTH), seen.windows);
        }
    }

    fn gradient(&mut self, latency: f64) -> f64 {
        let gradient = (self.tolerance * self.baseline.value / latency).clamp(MIN_GRADIENT, 1.0);
        if gradient >= 1.0 {
            self.decrease = None;
            return gradient;
        }
        let cut = self.decrease.get_or_insert(LimitDecrease { start_limit: self.limit, max_latency: latency });
        cut.max_latency = cut.max_latency.max(latency);
        if self.limit > (cut.start_limit / 2.0).max(self.min) {
            return gradient;
        }
        if latency > cut.max_latency * NO_IMPROVEMENT && latency <= self.tolerance * self.max_latency {
            // Half the concurrency did not improve latency: a database became slower, for example,
            // and shedding does not make it faster. Accept the latency as the baseline; Netflix'
            // limit would stay low for minutes. A latency at which callers give up is never
            // accepted: it may be that of requests that began before the limit fell.
            self.baseline.value = latency.min(self.max_latency);
            self.decrease = None;
            return 1.0;
        }
        self.decrease = Some(LimitDecrease { start_limit: self.limit, max_latency: latency });
        gradient
    }

    /// Moves the limit towards `target`, after so many of the shortest windows: slow requests make
    /// a window long, and must not make the limit slow.
    fn smooth_towards(&mut self, target: f64, windows: f64) {
        let share = 1.0 - (1.0 - self.smoothing).powf(windows);
        self.limit += share * (target - self.limit);
        self.limit = self.limit.clamp(self.min, self.max);
    }
}

impl Baseline {
    fn update(&mut self, latency: f64, saturated: bool) {
        if self.windows < WARM_UP_WINDOWS {
            self.windows += 1;
            self.value += (latency - self.value) / f64::from(self.windows);
        } else {
            let weight = if saturated && latency > self.value { self.weight * SATURATED_WEIGHT } else { self.weight };
            self.value += weight * (latency - self.value);
        }
        // Recovery from a long overload: lower the baseline faster than the average would.
        if self.value > latency * 2.0 {
            self.value *= 0.95;
        }
    }
}

#[cfg(test)]
mod tests;
