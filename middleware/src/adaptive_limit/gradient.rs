//! How many requests may run at once, from how long they take: Gradient2 of Netflix' concurrency-limits, pure.

use std::time::Duration;

use super::{config::Config, window::WindowSample};

/// No single window, however bad, asks for more than a halving.
const MIN_GRADIENT: f64 = 0.5;
/// Windows whose plain mean is the first usual latency.
const WARM_UP_WINDOWS: u32 = 10;
/// How many requests the limit tries to grow by: this, or its square root if that is more (as Envoy does, lest growth take minutes).
const MIN_GROWTH: f64 = 4.0;
/// While the limit is reached a higher latency may be our own doing, so the usual one learns it this much more slowly. Without that,
/// overload becomes the usual thing within a minute and the limit runs away.
const SATURATED_WEIGHT: f64 = 0.1;
/// When half as many at once take more than this share of the time, their number is not what makes them slow.
const NO_IMPROVEMENT: f64 = 0.75;

/// The limit and what it has learnt.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    min: f64,
    max: f64,
    smoothing: f64,
    tolerance: f64,
    /// Seconds.
    min_latency: f64,
    baseline: Baseline,
    decrease: Option<LimitDecrease>,
}

/// The usual latency in seconds: a mean at first, then a slow exponential average.
#[derive(Debug)]
struct Baseline {
    value: f64,
    windows: u32,
    weight: f64,
}

/// A falling limit.
#[derive(Debug)]
struct LimitDecrease {
    /// Where it began to fall.
    start_limit: f64,
    /// The highest latency since then, in seconds: that of the beginning comes late, with the requests that began with it.
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
            baseline: Baseline { value: 0.0, windows: 0, weight: 2.0 / (f64::from(config.baseline_windows) + 1.0) },
            decrease: None,
        }
    }

    /// How many may run at once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two numbers of 32 bits")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// How long requests usually take, if that is known.
    pub(super) fn baseline_latency(&self) -> Option<Duration> {
        (self.baseline.windows > 0).then(|| Duration::from_secs_f64(self.baseline.value))
    }

    /// One window of requests is over.
    pub(super) fn update(&mut self, seen: &WindowSample) {
        // With room to spare, latency is not the limit's doing; and growing on would mean no limit when the load comes.
        let busy = seen.peak * 2 >= self.limit();
        let Some(latency) = seen.latency else {
            if busy {
                self.decrease.get_or_insert(LimitDecrease { start_limit: self.limit, max_latency: 0.0 }).max_latency = f64::INFINITY;
                self.smooth_towards(self.limit * MIN_GRADIENT);
            }
            return;
        };
        let latency = latency.as_secs_f64().max(self.min_latency);
        self.baseline.update(latency, seen.peak >= self.limit());
        if busy {
            let gradient = self.gradient(latency);
            self.smooth_towards(self.limit * gradient + self.limit.sqrt().max(MIN_GROWTH));
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
        if latency > cut.max_latency * NO_IMPROVEMENT {
            // A database became slower, say: refusing work does not make it faster. Netflix' limit would stay down for minutes.
            self.baseline.value = latency;
            self.decrease = None;
            return 1.0;
        }
        self.decrease = Some(LimitDecrease { start_limit: self.limit, max_latency: latency });
        gradient
    }

    fn smooth_towards(&mut self, target: f64) {
        self.limit += self.smoothing * (target - self.limit);
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
        // Recovered from a long overload: no need to wait for the average.
        if self.value > latency * 2.0 {
            self.value *= 0.95;
        }
    }
}

#[cfg(test)]
mod tests;
