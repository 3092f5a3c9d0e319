//! Span catalogue of `docs/traces.md`, to validate exported spans.

use std::{collections::BTreeSet, fs, path::Path};

use super::span::Span;

/// Parsed span catalogue.
#[derive(Debug)]
pub struct Catalogue {
    rows: Vec<Row>,
    events: Vec<Row>,
    page: String,
}

/// Span or event allowed by a table row.
#[derive(Debug)]
struct Row {
    names: Vec<String>,
    kind: String,
    required: BTreeSet<String>,
    allowed: BTreeSet<String>,
}

impl Catalogue {
    /// Reads and parses the page.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/traces.md");
        let page = fs::read_to_string(path).expect("docs/traces.md is there");
        let rows = table(&page, "| Name | Kind |").into_iter().map(|cells| row(&cells[0], cells[1].trim(), &cells[2], &cells[3]));
        let events = table(&page, "| Name | On |").into_iter().map(|cells| row(&cells[0], "", &cells[2], ""));
        Self { rows: rows.collect(), events: events.collect(), page }
    }

    /// Returns the example tree of an order.
    pub fn example(&self) -> &str {
        let (_, rest) = self.page.split_once("```text\n").expect("page has an example");
        rest.split_once("```").expect("example is closed").0
    }

    /// Panics if `span` has no row, lacks a required attribute, or has an attribute that is not
    /// listed.
    #[track_caller]
    pub fn check(&self, span: &Span) {
        let rows: Vec<_> = self.rows.iter().filter(|row| row.kind == span.kind && row.is_named(&span.name)).collect();
        assert!(!rows.is_empty(), "span missing in docs/traces.md: {span:#?}");
        let keys: BTreeSet<_> = span.attributes.keys().cloned().collect();
        let is_listed = rows.iter().any(|row| row.required.is_subset(&keys) && keys.is_subset(&row.allowed));
        assert!(is_listed, "attributes differ from docs/traces.md: {span:#?}\n{rows:#?}");
        for (name, attributes) in &span.events {
            let mut rows = self.events.iter().filter(|row| row.is_named(name));
            let keys: BTreeSet<_> = attributes.keys().cloned().collect();
            assert!(
                rows.any(|row| row.required.is_subset(&keys) && keys.is_subset(&row.allowed)),
                "event missing in docs/traces.md: {name} {keys:?}"
            );
        }
    }
}

impl Row {
    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }
}

/// Matches word by word. A word in braces matches any word.
fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.split(' '), name.split(' '));
    loop {
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some(word), Some(actual)) if word == actual || (word.starts_with('{') && word.ends_with('}')) => {}
            _ => return false,
        }
    }
}

/// Returns the rows of the table whose header starts with `header`, without the separator line.
fn table(page: &str, header: &str) -> Vec<Vec<String>> {
    let rows = page.lines().skip_while(|line| !line.starts_with(header)).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<_>> = rows.map(|line| line.trim_matches('|').split('|').map(str::to_owned).collect()).collect();
    assert!(!rows.is_empty(), "no table begins with {header}");
    rows
}

fn row(names: &str, kind: &str, start: &str, later: &str) -> Row {
    let (start, later) = (quoted(start), quoted(later));
    Row {
        names: quoted(names).into_iter().map(|(name, _)| name).collect(),
        kind: kind.to_owned(),
        required: start.iter().filter(|(_, optional)| !optional).map(|(key, _)| key.clone()).collect(),
        allowed: start.into_iter().chain(later).map(|(key, _)| key).collect(),
    }
}

/// Returns the texts in backticks, and whether a question mark follows.
fn quoted(cell: &str) -> Vec<(String, bool)> {
    let parts: Vec<_> = cell.split('`').collect();
    parts.windows(2).skip(1).step_by(2).map(|pair| (pair[0].to_owned(), pair[1].starts_with('?'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_words_in_braces_match_any_word() {
        for (pattern, name, matching) in [
            ("{method} {route}", "GET /products/{id}", true),
            ("{method} {route}", "GET", false),
            ("{method}", "GET", true),
            ("step {step}", "step reserve_stock", true),
            ("step {step}", "compensate reserve_stock", false),
        ] {
            assert_eq!(matches(pattern, name), matching, "{pattern} {name}");
        }
        assert_eq!(quoted(" `a`, `b`?, c "), [("a".to_owned(), false), ("b".to_owned(), true)]);
    }
}
