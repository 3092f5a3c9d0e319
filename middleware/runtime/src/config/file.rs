//! TOML file. Errors name the file, the line and the key, and never quote a line: it may contain a
//! secret.

use std::path::Path;

use palisade_resilience::setting::Invalid;
use serde_json::Value;
use toml::Table;

use super::{schema::Keys, tree::Tree};

/// Merges the file at `path`.
pub(super) fn merge(path: &Path, keys: &Keys, tree: &mut Tree, invalid: &mut Vec<Invalid>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return invalid.push(Invalid::new("config", format!("cannot read {}: {error}", path.display()))),
    };
    match text.parse::<Table>() {
        Ok(table) => {
            tree.next_layer();
            let source = path.display().to_string();
            for (name, value) in table {
                merge_value(&name, value, &source, keys, tree, invalid);
            }
        }
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            invalid.push(Invalid::new(syntax_error_key(&text, offset), syntax_error(path, &text, offset)));
        }
    }
}

fn merge_value(path: &str, value: toml::Value, source: &str, keys: &Keys, tree: &mut Tree, invalid: &mut Vec<Invalid>) {
    if let Some(key) = keys.find(path) {
        // A date is no value of any key.
        let value = serde_json::to_value(&value).unwrap_or(Value::Null);
        return tree.set_value(key, path, value, source, invalid);
    }
    match value {
        toml::Value::Table(table) if keys.has_section(path) => {
            for (name, value) in table {
                merge_value(&format!("{path}.{name}"), value, source, keys, tree, invalid);
            }
        }
        _ if keys.has_section(path) => invalid.push(Invalid::new(path.to_owned(), format!("is a section, not a value ({source})"))),
        _ => invalid.push(Invalid::new(path.to_owned(), format!("unknown setting ({source})"))),
    }
}

/// Place of a syntax error.
fn syntax_error(path: &Path, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("invalid TOML in {}, line {line}, column {column}; text needs quotes", path.display())
}

/// Returns the key of the line with the error, with its section; `config` if it has none.
fn syntax_error_key(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |index| index + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let Some(name) = line.split_once('=').map(|(name, _)| name.trim()).filter(|name| is_name(name)) else { return "config".to_owned() };
    let section = before.lines().rev().find_map(|line| line.trim().strip_prefix('[')?.split_once(']').map(|(section, _)| section.trim()));
    section.filter(|section| is_name(section)).map_or_else(|| name.to_owned(), |section| format!("{section}.{name}"))
}
