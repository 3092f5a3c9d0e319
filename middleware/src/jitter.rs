//! Random spread, so that what failed together does not come back together.

use std::time::Duration;

/// A number drawn evenly from 0.0..1.0. Decisions take it as a function, so that tests can fix it.
pub type RandomFn = fn() -> f64;

/// Draws from the operating system. Meant for failures and faults, not for every call: it may be a system call.
pub fn random_unit() -> f64 {
    // Without entropy everything else of a service is broken too; the middle is as good a spread as none.
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

/// `wait`, less or more by at most `share` of it.
pub fn jittered(wait: Duration, share: f64, draw: RandomFn) -> Duration {
    wait.mul_f64(1.0 + share * (2.0 * random_unit() - 1.0))
}

/// Anything from nothing to `wait` ("full jitter").
pub fn full_jitter(wait: Duration, draw: RandomFn) -> Duration {
    wait.mul_f64(random_unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_its_bounds() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0.2, || 0.0), Duration::from_millis(800));
        assert_eq!(jittered(second, 0.2, || 0.5), second);
        assert_eq!(full_jitter(second, || 0.25), Duration::from_millis(250));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_unit())));
    }
}
