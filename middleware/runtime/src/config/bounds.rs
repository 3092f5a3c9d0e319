//! Upper bounds of numeric settings. A value above its bound would overflow a point in time, or
//! reserve memory without a limit; it is a mistake in any case.

use serde_json::Value;

/// Ten years, hours.
const MAX_HOURS: u64 = 87_600;
/// 1 TiB.
const MAX_BYTES: u64 = 1 << 40;
/// Settings without a unit in their name: counts and rates.
const MAX_COUNT: u64 = 1_000_000_000;

/// Returns the maximum of the setting `key`, in the unit that its name ends with.
pub(super) fn maximum(key: &str) -> u64 {
    let name = key.rsplit('.').next().unwrap_or_default();
    match name.rsplit('_').next() {
        Some("ms" | "millis") => MAX_HOURS * 3_600_000,
        Some("s" | "seconds" | "secs") => MAX_HOURS * 3_600,
        Some("minutes") => MAX_HOURS * 60,
        Some("hours") => MAX_HOURS,
        Some("days") => MAX_HOURS / 24,
        Some("bytes") => MAX_BYTES,
        _ => MAX_COUNT,
    }
}

/// Returns the rule that the number `value` of the setting `key` breaks.
pub(super) fn violation(key: &str, value: &Value) -> Option<String> {
    let maximum = maximum(key);
    #[expect(clippy::cast_precision_loss, reason = "the bounds are far below 2^52")]
    let is_above = match value.as_u64() {
        Some(number) => number > maximum,
        None => value.as_f64().is_some_and(|number| number > maximum as f64),
    };
    is_above.then(|| format!("must be at most {maximum}"))
}
