//! How many requests may run at once, from how long they take: Gradient2 of Netflix' concurrency-limits, pure.

use std::time::Duration;

use super::{config::Config, window::Seen};

/// No single window, however bad, asks for more than a halving.
const MIN_GRADIENT: f64 = 0.5;
/// Windows whose plain mean is the first usual latency.
const WARM_UP: u32 = 10;
/// How many requests the limit tries to grow by: this, or its square root if that is more (as Envoy does, lest growth take minutes).
const MIN_ALLOWANCE: f64 = 4.0;
/// While the limit is reached a higher latency may be our own doing, so the usual one learns it this much more slowly. Without that,
/// overload becomes the usual thing within a minute and the limit runs away.
const SATURATED: f64 = 0.1;
/// When half as many at once take more than this share of the time, their number is not what makes them slow.
const NO_BETTER: f64 = 0.75;

/// The limit and what it has learnt.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    min: f64,
    max: f64,
    smoothing: f64,
    tolerance: f64,
    /// Seconds.
    floor: f64,
    usual: Average,
    cut: Option<Cut>,
}

/// The usual latency in seconds: a mean at first, then a slow exponential average.
#[derive(Debug)]
struct Average {
    value: f64,
    windows: u32,
    weight: f64,
}

/// A falling limit.
#[derive(Debug)]
struct Cut {
    /// Where it began to fall.
    from: f64,
    /// The highest latency since then, in seconds: that of the beginning comes late, with the requests that began with it.
    worst: f64,
}

impl Gradient {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.initial_limit.into(),
            min: config.min_limit.into(),
            max: config.max_limit.into(),
            smoothing: config.smoothing,
            tolerance: config.tolerance,
            floor: Duration::from_millis(config.floor_ms).as_secs_f64(),
            usual: Average { value: 0.0, windows: 0, weight: 2.0 / (f64::from(config.long_windows) + 1.0) },
            cut: None,
        }
    }

    /// How many may run at once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two numbers of 32 bits")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// How long requests usually take, if that is known.
    pub(super) fn usual(&self) -> Option<Duration> {
        (self.usual.windows > 0).then(|| Duration::from_secs_f64(self.usual.value))
    }

    /// One window of requests is over.
    pub(super) fn update(&mut self, seen: &Seen) {
        // With room to spare, latency is not the limit's doing; and growing on would mean no limit when the load comes.
        let busy = seen.peak * 2 >= self.limit();
        let Some(latency) = seen.latency else {
            if busy {
                self.cut.get_or_insert(Cut { from: self.limit, worst: 0.0 }).worst = f64::INFINITY;
                self.approach(self.limit * MIN_GRADIENT);
            }
            return;
        };
        let latency = latency.as_secs_f64().max(self.floor);
        self.usual.learn(latency, seen.peak >= self.limit());
        if busy {
            let gradient = self.gradient(latency);
            self.approach(self.limit * gradient + self.limit.sqrt().max(MIN_ALLOWANCE));
        }
    }

    fn gradient(&mut self, latency: f64) -> f64 {
        let gradient = (self.tolerance * self.usual.value / latency).clamp(MIN_GRADIENT, 1.0);
        if gradient >= 1.0 {
            self.cut = None;
            return gradient;
        }
        let cut = self.cut.get_or_insert(Cut { from: self.limit, worst: latency });
        cut.worst = cut.worst.max(latency);
        if self.limit > (cut.from / 2.0).max(self.min) {
            return gradient;
        }
        if latency > cut.worst * NO_BETTER {
            // A database became slower, say: refusing work does not make it faster. Netflix' limit would stay down for minutes.
            self.usual.value = latency;
            self.cut = None;
            return 1.0;
        }
        self.cut = Some(Cut { from: self.limit, worst: latency });
        gradient
    }

    fn approach(&mut self, target: f64) {
        self.limit += self.smoothing * (target - self.limit);
        self.limit = self.limit.clamp(self.min, self.max);
    }
}

impl Average {
    fn learn(&mut self, latency: f64, saturated: bool) {
        if self.windows < WARM_UP {
            self.windows += 1;
            self.value += (latency - self.value) / f64::from(self.windows);
        } else {
            let weight = if saturated && latency > self.value { self.weight * SATURATED } else { self.weight };
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
