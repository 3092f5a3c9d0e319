//! Configuration keys derived from the JSON schema: name, kind, default and the first paragraph of
//! the documentation.

use std::fmt::Write;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::ENV_PREFIX;

/// Configuration key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted path, e.g. `store.url`. `<name>` stands for a user-defined name.
    pub(super) path: String,
    /// Kind of value: `INTEGER`, `NUMBER`, `BOOL`, `TEXT` or the permitted words.
    pub(super) kind: String,
    default: Option<Value>,
    doc: String,
}

impl Key {
    /// Returns whether the path has a user-defined part. Such keys have no flag.
    pub(super) fn is_pattern(&self) -> bool {
        self.path.contains('<')
    }

    /// Whether the value is a number.
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self.kind.as_str(), "INTEGER" | "NUMBER")
    }

    /// Whether `path` is this key. A user-defined part matches any name.
    pub(super) fn matches(&self, path: &str) -> bool {
        let same = |(own, other): (&str, &str)| own == other || (own.starts_with('<') && own.ends_with('>'));
        self.path.split('.').count() == path.split('.').count() && self.path.split('.').zip(path.split('.')).all(same)
    }

    pub(super) fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.path.replace('.', "__").to_uppercase())
    }

    /// Section of the configuration, e.g. `server.http2` for `server.http2.max_streams`.
    fn section(&self) -> &str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    fn default_text(&self) -> Option<String> {
        match &self.default {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(default) => Some(default.to_string()),
        }
    }

    pub(super) fn help(&self) -> String {
        let default = self.default_text().map_or_else(String::new, |default| format!(" [default: {default}]"));
        format!("{}{default} [env: {}]", self.doc, self.env())
    }
}

/// Writes all keys as Markdown tables, one per section.
pub(super) fn markdown(keys: &[Key], level: usize) -> String {
    let mut text = String::new();
    let mut keys: Vec<_> = keys.iter().collect();
    keys.sort_by_key(|key| key.section());
    let mut section = None;
    for key in keys {
        if section != Some(key.section()) {
            section = Some(key.section());
            let title = if key.section().is_empty() { "Top level".to_owned() } else { format!("`{}`", key.section()) };
            let _ = writeln!(
                text,
                "\n{} {title}\n\n| key | type | default | environment | description |\n|---|---|---|---|---|",
                "#".repeat(level)
            );
        }
        let name = key.path.rsplit('.').next().unwrap_or_default();
        let default = key.default_text().map_or_else(String::new, |default| format!("`{default}`"));
        let doc = key.doc.replace('|', "\\|");
        let _ = writeln!(text, "| `{name}` | {} | {default} | `{}` | {doc} |", key.kind.replace('|', "\\|").to_lowercase(), key.env());
    }
    text
}

/// Help for the keys without a flag.
pub(super) fn after_help(keys: &[Key]) -> String {
    let mut text = "Every flag is also a TOML key (--store-url is url in [store]) and an environment variable.\n".to_owned();
    let patterns: Vec<_> = keys.iter().filter(|key| key.is_pattern()).collect();
    if !patterns.is_empty() {
        text.push_str("\nKeys without a flag (TOML file and environment only):\n");
        for key in patterns {
            let _ = writeln!(text, "  {}\n      {}", key.path, key.help());
        }
    }
    text
}

/// Returns all keys of `T`.
pub(super) fn keys<T: JsonSchema>() -> Vec<Key> {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    let mut keys = Vec::new();
    if let Some(schema) = schema.as_object() {
        collect_keys("", schema, None, &mut keys);
    }
    keys
}

fn collect_keys(prefix: &str, schema: &Map<String, Value>, default: Option<&Value>, keys: &mut Vec<Key>) {
    // A section default of the parent takes precedence over the default of its type.
    let default = default.or(schema.get("default"));
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(property) = property.as_object() {
                collect_keys(&path, property, default.and_then(|default| default.get(name)), keys);
            }
        }
        return;
    }
    if let Some(values) = schema.get("additionalProperties").and_then(Value::as_object) {
        return collect_keys(&format!("{prefix}.<name>"), values, None, keys);
    }
    let doc = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let doc = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    keys.push(Key { path: prefix.to_owned(), kind: kind(schema), default: default.cloned(), doc });
}

fn kind(schema: &Map<String, Value>) -> String {
    let has_type = |wanted: &str| match schema.get("type") {
        Some(Value::String(kind)) => kind == wanted,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        _ => false,
    };
    let words: Vec<&str> = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let kind = if !words.is_empty() {
        return words.join("|");
    } else if has_type("integer") {
        "INTEGER"
    } else if has_type("number") {
        "NUMBER"
    } else if has_type("boolean") {
        "BOOL"
    } else {
        "TEXT"
    };
    kind.to_owned()
}
