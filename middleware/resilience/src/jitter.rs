//! Random jitter, so that clients that failed together do not retry together.

use std::time::Duration;

/// Source of uniform random numbers in 0.0..1.0. Passed as a function, so that tests can fix the
/// number.
pub type RandomFn = fn() -> f64;

/// Returns a random number from the operating system. Meant for failures and fault injection, not
/// for every call: it may be a system call.
pub fn random_unit() -> f64 {
    // Without entropy the whole service is broken anyway; the middle means no jitter.
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

/// Returns `wait` plus or minus a random part of at most `share` of it, at most `Duration::MAX`.
pub fn jittered(wait: Duration, share: f64, draw: RandomFn) -> Duration {
    scaled(wait, 1.0 + share * (2.0 * draw() - 1.0))
}

/// Returns a random duration between zero and `wait` ("full jitter").
pub fn full_jitter(wait: Duration, draw: RandomFn) -> Duration {
    scaled(wait, draw())
}

fn scaled(wait: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.2, || 0.0), Duration::from_millis(800));
        assert_eq!(jittered(second, 0.2, || 0.5), second);
        assert_eq!(full_jitter(second, || 0.25), Duration::from_millis(250));
        assert_eq!(jittered(Duration::MAX, 0.2, || 0.9), Duration::MAX);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_unit())));
    }
}
