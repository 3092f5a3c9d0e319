//! Exact money: decimal text in JSON, integer minor units inside, never a float.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// Decimal places of one minor unit.
const DECIMALS: usize = 2;

/// Minor units per unit.
const MINOR_PER_UNIT: u64 = 100;

/// Amount in minor units. Serialized as a JSON number with the exact value and no trailing zeros:
/// 1250 is `12.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount(pub(crate) i64);

/// Source text of a JSON number, which avoids a conversion through a float.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NumberText(String);

/// Why a number is not a valid amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmountError {
    /// Not digits with an optional decimal point. Exponents are not accepted.
    #[error("must be a plain decimal number")]
    NotDecimal,
    /// More precise than one minor unit.
    #[error("must have at most 2 decimals")]
    TooManyDecimals,
    /// Exceeds 64 bits.
    #[error("is out of range")]
    TooLarge,
}

impl AmountError {
    /// Returns the slug of the violated rule.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotDecimal => "not_a_decimal",
            Self::TooManyDecimals => "too_many_decimals",
            Self::TooLarge => "out_of_range",
        }
    }
}

impl Amount {
    /// Parses `-?digits(.digits)?`. Trailing zeros of the decimals are ignored.
    pub(crate) fn parse(text: &str) -> Result<Self, AmountError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        if !is_digits(whole) || !is_digits(decimals) {
            return Err(AmountError::NotDecimal);
        }
        let decimals = decimals.trim_end_matches('0');
        if decimals.len() > DECIMALS {
            return Err(AmountError::TooManyDecimals);
        }
        let sign = if negative { "-" } else { "" };
        format!("{sign}{whole}{decimals:0<DECIMALS$}").parse().map(Self).map_err(|_| AmountError::TooLarge)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.0.unsigned_abs();
        let (whole, decimals) = (minor / MINOR_PER_UNIT, minor % MINOR_PER_UNIT);
        let sign = if self.0 < 0 { "-" } else { "" };
        match decimals {
            0 => write!(f, "{sign}{whole}"),
            tenths if tenths % 10 == 0 => write!(f, "{sign}{whole}.{}", tenths / 10),
            hundredths => write!(f, "{sign}{whole}.{hundredths:02}"),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    /// Parses a query parameter.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = |_| de::Error::invalid_value(de::Unexpected::Other("text"), &"a decimal number with at most 2 decimals");
        Self::parse(&String::deserialize(deserializer)?).map_err(expected)
    }
}

impl NumberText {
    /// Parses the number as an amount.
    pub(crate) fn amount(&self) -> Result<Amount, AmountError> {
        Amount::parse(&self.0)
    }
}

impl<'de> Deserialize<'de> for NumberText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            Ok(Self(raw.get().to_owned()))
        } else {
            Err(de::Error::invalid_type(de::Unexpected::Other("another value"), &"a number"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parse_accepts_whole_minor_units() {
        for (text, minor) in [("0", 0), ("-0.00", 0), ("12", 1200), ("12.5", 1250), ("12.50", 1250), ("0.1000", 10), ("-3.07", -307)] {
            assert_eq!(Amount::parse(text), Ok(Amount(minor)), "{text}");
        }
    }

    #[test]
    fn parse_rejects_inexact_or_non_decimal_text() {
        for text in ["", "-", ".5", "5.", "1e2", "1E2", "+1", " 1", "1,5", "0x1", "1.2.3", "NaN", "--1", "٣"] {
            assert_eq!(Amount::parse(text), Err(AmountError::NotDecimal), "{text}");
        }
        assert_eq!(Amount::parse("0.001"), Err(AmountError::TooManyDecimals));
        assert_eq!(Amount::parse("92233720368547758.08"), Err(AmountError::TooLarge));
        assert_eq!(Amount::parse("92233720368547758.07"), Ok(Amount(i64::MAX)));
    }

    #[test]
    fn json_number_keeps_its_text() {
        assert_eq!(serde_json::to_string(&Amount(999_999_999)).unwrap(), "9999999.99");
        let text: NumberText = serde_json::from_str("10000000000000000.01").unwrap();
        assert_eq!(text.amount(), Ok(Amount(1_000_000_000_000_000_001)));
        assert!(serde_json::from_str::<NumberText>("\"12\"").is_err());
    }

    proptest! {
        #[test]
        fn display_and_parse_round_trip(minor: i64) {
            prop_assert_eq!(Amount::parse(&Amount(minor).to_string()), Ok(Amount(minor)));
        }

        #[test]
        fn display_has_no_trailing_zeros(whole in 0..10_000_000_u32, cents in 0..100_u32) {
            let text = format!("{whole}.{cents:02}");
            let shortest = text.trim_end_matches('0').trim_end_matches('.').to_owned();
            let shortest = if cents == 0 { whole.to_string() } else { shortest };
            prop_assert_eq!(Amount::parse(&text).map(|amount| amount.to_string()), Ok(shortest));
        }

        #[test]
        fn parse_never_panics(text in ".{0,40}") {
            let _ = Amount::parse(&text);
        }
    }
}
