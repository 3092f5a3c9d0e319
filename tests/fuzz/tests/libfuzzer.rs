//! Runs one target, named by `FUZZ_TARGET`, with libFuzzer. See `make fuzz`.
#![no_main]
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[path = "../../../services/gateway/tests/gateway/fake_services.rs"]
mod fake_services;
#[path = "../../../services/gateway/tests/gateway/fake_stock.rs"]
mod fake_stock;
mod targets;

use std::{env, sync::LazyLock};

use targets::{TARGETS, Target};

static SELECTED: LazyLock<Target> = LazyLock::new(|| {
    let selected = env::var("FUZZ_TARGET").ok().and_then(|name| TARGETS.iter().find(|(target, ..)| *target == name));
    selected.unwrap_or_else(|| panic!("FUZZ_TARGET must be one of {:?}", TARGETS.iter().map(|(name, ..)| name).collect::<Vec<_>>())).2
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (*SELECTED)(input));
