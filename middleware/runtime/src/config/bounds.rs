//! Upper bounds of numeric settings. A value above its bound would overflow a point in time, or
//! reserve memory without a limit; it is a mistake in any case.

use figment::{
    Figment,
    value::{Num, Value},
};

use super::{Error, schema};
use palisade_resilience::setting::Invalid;

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
        Some("bytes") => MAX_BYTES,
        _ => MAX_COUNT,
    }
}

/// Checks every number in `figment` whose key is a numeric setting.
pub(super) fn check(figment: &Figment, keys: &[schema::Key]) -> Result<(), Error> {
    // An unreadable file is reported by the extraction.
    let Ok(values) = figment.extract::<Value>() else { return Ok(()) };
    visit("", &values, &|path, number| {
        let is_numeric = keys.iter().any(|key| key.is_numeric() && key.matches(path));
        let maximum = maximum(path);
        if !is_numeric || is_at_most(number, maximum) {
            return Ok(());
        }
        Err(Error::Rule(Invalid::new(path.to_owned(), format!("must be at most {maximum}"))))
    })
}

fn visit(path: &str, value: &Value, check: &impl Fn(&str, Num) -> Result<(), Error>) -> Result<(), Error> {
    let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Dict(_, entries) => entries.iter().try_for_each(|(name, value)| visit(&child(name), value, check)),
        Value::Num(_, number) => check(path, *number),
        _ => Ok(()),
    }
}

fn is_at_most(number: Num, maximum: u64) -> bool {
    if let Some(number) = number.to_u128() {
        return number <= maximum.into();
    }
    if let Some(number) = number.to_i128() {
        return number <= maximum.into();
    }
    #[expect(clippy::cast_precision_loss, reason = "far below the precision of a bound that nobody reaches")]
    number.to_f64().is_none_or(|number| number <= maximum as f64)
}
