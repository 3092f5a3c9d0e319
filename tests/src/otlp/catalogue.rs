//! The span catalogue of `docs/traces.md`, read to hold spans to it.

use std::{collections::BTreeSet, fs, path::Path};

use super::span::Span;

/// The page.
#[derive(Debug)]
pub struct Catalogue {
    rows: Vec<Row>,
    events: Vec<Row>,
    page: String,
}

/// What a row of a table allows.
#[derive(Debug)]
struct Row {
    names: Vec<String>,
    kind: String,
    always: BTreeSet<String>,
    all: BTreeSet<String>,
}

impl Catalogue {
    /// Reads it.
    pub fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/traces.md");
        let page = fs::read_to_string(path).expect("docs/traces.md is there");
        let rows = table(&page, "| Name | Kind |").into_iter().map(|cells| row(&cells[0], cells[1].trim(), &cells[2], &cells[3]));
        let events = table(&page, "| Name | On |").into_iter().map(|cells| row(&cells[0], "", &cells[2], ""));
        Self { rows: rows.collect(), events: events.collect(), page }
    }

    /// The example of an order's tree.
    pub fn example(&self) -> &str {
        let (_, rest) = self.page.split_once("```text\n").expect("there is an example");
        rest.split_once("```").expect("it ends").0
    }

    /// Panics if `span` is in no row, or lacks an attribute of its row, or has one of none.
    #[track_caller]
    pub fn check(&self, span: &Span) {
        let named: Vec<_> = self.rows.iter().filter(|row| row.kind == span.kind && row.is_named(&span.name)).collect();
        assert!(!named.is_empty(), "no row of the catalogue has this name and kind: {span:#?}");
        let keys: BTreeSet<_> = span.attributes.keys().cloned().collect();
        let fits = named.iter().any(|row| row.always.is_subset(&keys) && keys.is_subset(&row.all));
        assert!(fits, "its row does not have these attributes: {span:#?}\n{named:#?}");
        for (name, attributes) in &span.events {
            let mut named = self.events.iter().filter(|row| row.is_named(name));
            let keys: BTreeSet<_> = attributes.keys().cloned().collect();
            assert!(named.any(|row| row.always.is_subset(&keys) && keys.is_subset(&row.all)), "no event is so: {name} {keys:?}");
        }
    }
}

impl Row {
    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| matches(pattern, name))
    }
}

/// Word by word; a word in braces stands for any.
fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.split(' '), name.split(' '));
    loop {
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some(word), Some(of_name)) if word == of_name || (word.starts_with('{') && word.ends_with('}')) => {}
            _ => return false,
        }
    }
}

/// The rows below the header that begins so, without the line below it.
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
        always: start.iter().filter(|(_, optional)| !optional).map(|(key, _)| key.clone()).collect(),
        all: start.into_iter().chain(later).map(|(key, _)| key).collect(),
    }
}

/// What is between backticks, and whether a question mark follows.
fn quoted(cell: &str) -> Vec<(String, bool)> {
    let parts: Vec<_> = cell.split('`').collect();
    parts.windows(2).skip(1).step_by(2).map(|pair| (pair[0].to_owned(), pair[1].starts_with('?'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_braces_stand_for_any_other() {
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
