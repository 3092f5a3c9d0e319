//! Replay of the corpus and of mutations of it, without a fuzzing engine.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "../../../services/gateway/tests/gateway/fake_services.rs"]
mod fake_services;
#[path = "../../../services/gateway/tests/gateway/fake_stock.rs"]
mod fake_stock;
#[macro_use]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use targets::TARGETS;

/// Maximum length of a mutated input, bytes.
const MAX_BYTES: usize = 1_024;
/// Maximum number of files of the whole corpus.
const MAX_FILES: usize = 200;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus"].iter().collect()
}

/// Returns the inputs of a target, sorted by file name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(folder().join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Runs a target with its corpus and with inputs derived from it.
fn run(name: &str) {
    let (_, mutations, target) = *TARGETS.iter().find(|(target, ..)| *target == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "corpus/{name} has no file");
    let run = |input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            eprintln!("{name} failed with the input \"{}\"", input.escape_ascii());
            resume_unwind(panic);
        }
    };
    run(b"");
    for input in &corpus {
        run(input);
    }
    let mut random = Random(0);
    for _ in 0..mutations {
        run(&mutate(&corpus, &mut random));
    }
}

test_each!(run);

#[test]
fn corpus_is_small_and_has_a_folder_for_each_target() {
    let targets: Vec<_> = TARGETS.iter().map(|(name, ..)| *name).collect();
    let mut folders: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    assert_eq!(folders, targets);
    let files: usize = targets.iter().map(|target| corpus(target).len()).sum();
    assert!(files <= MAX_FILES, "the corpus has {files} files");
}

/// `SplitMix64` generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Changes an input of the corpus in one to four places.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let to = at + random.below(input.len() - at + 1).min(16);
        let byte = u8::try_from(random.below(256)).unwrap();
        match random.below(7) {
            0 => input.insert(at, byte),
            1 => drop(input.drain(at..to)),
            2 => input.splice(at..at, input[at..to].to_vec()).for_each(drop),
            3 => input.truncate(at),
            4 => {
                let other = &corpus[random.below(corpus.len())];
                input.splice(at..to, other[random.below(other.len() + 1)..].iter().copied()).for_each(drop);
            }
            5 if at < input.len() => input[at] ^= 1 << random.below(8),
            _ if at < input.len() => input[at] = byte,
            _ => input.push(byte),
        }
    }
    input.truncate(MAX_BYTES);
    input
}
