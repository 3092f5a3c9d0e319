//! Reproducible randomness: one printed seed determines all random choices of a test.

use std::{env, ops::Range, time::Duration};

/// `SplitMix64` generator. Not suitable for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator seeded from `PALISADE_SEED`, or randomly. Prints the seed.
    pub fn from_environment() -> Self {
        let given = env::var("PALISADE_SEED").ok().map(|seed| seed.parse().expect("PALISADE_SEED is a number"));
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        eprintln!("to reproduce: PALISADE_SEED={seed}");
        Self(seed)
    }

    /// Creates a generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Creates an independent generator for another task.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns a number in this non-empty range.
    pub fn choose_index(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// Returns a random element of a non-empty slice.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Returns a random mutable element of a non-empty slice.
    pub fn choose_mut<'a, T>(&mut self, choices: &'a mut [T]) -> &'a mut T {
        let index = self.index(choices.len());
        &mut choices[index]
    }

    /// Returns a random duration between `from` and `to` milliseconds.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.choose_index(from..to))
    }

    fn index(&mut self, of: usize) -> usize {
        usize::try_from(self.choose_index(0..of as u64)).expect("an index of a slice")
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
