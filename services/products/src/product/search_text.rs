//! Search text: Unicode case folding and normalization, and the n-grams that an index contains.
//!
//! Two texts match if they are canonically equivalent after full case folding (Unicode, D145): a
//! final sigma equals a medial one, `ß` equals `ss`, and a composed letter equals a decomposed one.

use std::collections::BTreeSet;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

/// Length of an n-gram, characters. A shorter text has n-grams of its own length.
const MAX_GRAM: usize = 3;
/// Maximum number of n-grams of a query: a few of them exclude nearly all other texts.
const MAX_QUERY_GRAMS: usize = 16;

/// Returns the search text of a product, identical in every store. Query texts contain no newline,
/// so none matches across the separator.
pub fn searchable(name: &str, description: &str) -> String {
    format!("{}\n{}", normalize(name), normalize(description))
}

/// Returns the search text of the previous release, whose replicas search in it during an upgrade.
pub fn legacy_searchable(name: &str, description: &str) -> String {
    format!("{}\n{}", normalize_legacy(name), normalize_legacy(description))
}

/// Normalizes a text for comparison: canonical caseless matching (Unicode, D145).
pub fn normalize(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().nfd().default_case_fold().nfc().collect()
}

/// Normalizes a text like the previous release.
pub fn normalize_legacy(text: &str) -> String {
    text.to_lowercase()
}

/// Returns the composed form (NFC) of a label, so that canonically equivalent labels are equal.
pub fn compose(label: &str) -> String {
    label.nfc().collect()
}

/// Returns the n-grams of a search text, of 1 to 3 characters.
pub fn grams(text: &str) -> BTreeSet<&str> {
    (1..=MAX_GRAM).flat_map(|length| windows(text, length)).collect()
}

/// Returns n-grams that every search text has that contains the normalized query `text`. A query of
/// up to 3 characters is an n-gram itself.
pub fn query_grams(text: &str) -> Vec<&str> {
    let all: BTreeSet<&str> = if text.chars().count() <= MAX_GRAM { [text].into() } else { windows(text, MAX_GRAM).collect() };
    let step = all.len().div_ceil(MAX_QUERY_GRAMS).max(1);
    all.into_iter().step_by(step).collect()
}

/// Returns every substring of `length` characters.
fn windows(text: &str, length: usize) -> impl Iterator<Item = &str> {
    let ends = text.char_indices().map(|(start, _)| start).skip(length).chain([text.len()]);
    let is_long_enough = text.chars().nth(length - 1).is_some();
    text.char_indices().zip(ends).filter(move |_| is_long_enough).map(|((start, _), end)| &text[start..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equivalent_texts_are_equal() {
        for (one, other) in [
            ("ΚΟΣΜΟΣ", "κοσμος"),
            ("ΚΟΣΜΟΣ", "κοσμοσ"),
            ("STRASSE", "straße"),
            ("STRAẞE", "straße"),
            ("Café", "CAFE\u{301}"),
            ("Å", "\u{212b}"),
            ("ﬁsh", "FISH"),
            ("ŉ", "ʼN"),
            ("ᾳ", "ΑΙ"),
            ("Ω", "\u{2126}"),
            ("가", "\u{1100}\u{1161}"),
            ("a\u{323}\u{307}", "A\u{307}\u{323}"),
        ] {
            assert_eq!(normalize(one), normalize(other), "{one} {other}");
        }
        assert!(normalize("ΚΟΣΜΟΣ").contains(&normalize("ΚΟΣ")), "a final sigma is no other letter");
        assert_ne!(normalize("é"), normalize("e"), "accents count");
        assert_eq!((compose("Cafe\u{301}"), compose("Café")), ("Café".into(), "Café".into()));
    }

    #[test]
    fn grams_have_1_to_3_characters() {
        assert_eq!(grams("añb").into_iter().collect::<Vec<_>>(), ["a", "añ", "añb", "b", "ñ", "ñb"]);
        assert_eq!(grams("").len(), 0);
        assert_eq!((query_grams("añ"), query_grams("añb"), query_grams("añbc")), (vec!["añ"], vec!["añb"], vec!["añb", "ñbc"]));
        assert!(query_grams(&('a'..='z').collect::<String>().repeat(8)).len() <= MAX_QUERY_GRAMS);
    }

    proptest! {
        #[test]
        fn text_has_the_grams_of_its_parts(text in "[a-cñ ]{0,30}", start in 0_usize..30, length in 1_usize..30) {
            let part: String = text.chars().skip(start).take(length).collect();
            if !part.is_empty() {
                let grams = grams(&text);
                prop_assert!(query_grams(&part).into_iter().all(|gram| grams.contains(gram)));
            }
        }

        #[test]
        fn normalization_is_stable(text in any::<String>()) {
            let once = normalize(&text);
            prop_assert_eq!(normalize(&once), once);
        }
    }
}
