//! Randomness that can be had again: one seed, printed, decides everything a test leaves to chance.

use std::{env, ops::Range, time::Duration};

/// A generator (`SplitMix64`), good enough for choosing and far too weak for secrets.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Seeded from `PALISADE_SEED`, or afresh; the seed is printed.
    pub fn from_environment() -> Self {
        let given = env::var("PALISADE_SEED").ok().map(|seed| seed.parse().expect("PALISADE_SEED is a number"));
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        eprintln!("to see this again: PALISADE_SEED={seed}");
        Self(seed)
    }

    /// Another generator, for another task.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A number of this range, which must not be empty.
    pub fn choose_index(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// One of these, of which there must be some.
    pub fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// As [`Self::one_of`], to be changed.
    pub fn one_of_mut<'a, T>(&mut self, choices: &'a mut [T]) -> &'a mut T {
        let index = self.index(choices.len());
        &mut choices[index]
    }

    /// Between `from` and `to` milliseconds.
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
