//! Configuration keys derived from the JSON schema: name, kind, default and the first paragraph of
//! the documentation.

use std::fmt::Write;

use palisade_resilience::naming;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

/// Configuration key.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted path, e.g. `store.url`. `<name>` stands for a user-defined name.
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Whether the value must not be shown.
    pub(super) is_secret: bool,
    default: Option<Value>,
    doc: String,
}

/// Kind of value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// One of these words.
    Words(Vec<String>),
    Integer,
    Number,
    Bool,
    /// A list or an object.
    Structured,
}

impl Kind {
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer | Self::Number)
    }

    /// Returns the name for help texts.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Text => "TEXT".to_owned(),
            Self::Words(words) => words.join("|"),
            Self::Integer => "INTEGER".to_owned(),
            Self::Number => "NUMBER".to_owned(),
            Self::Bool => "BOOL".to_owned(),
            Self::Structured => "JSON".to_owned(),
        }
    }
}

/// All keys of a configuration.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Returns all keys of `T`.
    pub(super) fn of<T: JsonSchema>() -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
        let mut keys = Vec::new();
        if let Some(schema) = schema.as_object() {
            collect_keys("", schema, None, &mut keys);
        }
        Self(keys)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// Returns the keys that have a flag.
    pub(super) fn plain(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(|key| !key.is_pattern())
    }

    /// Returns the key at `path`, in which user-defined names stand for `<name>`.
    pub(super) fn find(&self, path: &str) -> Option<&Key> {
        self.0.iter().find(|key| matches_path(&key.path, path, true))
    }

    /// Whether keys exist below `path`.
    pub(super) fn has_section(&self, path: &str) -> bool {
        self.0.iter().any(|key| matches_path(&key.path, path, false))
    }
}

/// Whether `path` is the key `pattern`, or with `whole = false` a section that contains it.
fn matches_path(pattern: &str, path: &str, whole: bool) -> bool {
    let mut pattern = pattern.split('.');
    let mut path = path.split('.');
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return whole,
            (Some(_), None) => return !whole,
            (None, Some(_)) => return false,
            (Some(pattern), Some(name)) => {
                let matches = pattern == name || (pattern == "<name>" && !name.is_empty());
                if !matches {
                    return false;
                }
            }
        }
    }
}

impl Key {
    /// Returns whether the path has a user-defined part. Such keys have no flag.
    pub(super) fn is_pattern(&self) -> bool {
        self.path.contains('<')
    }

    pub(super) fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    fn env(&self) -> String {
        format!("{}{}", naming::current().environment_prefix, self.path.replace('.', "__").to_uppercase())
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
pub(super) fn markdown(keys: &Keys, level: usize) -> String {
    let mut text = String::new();
    let mut keys: Vec<_> = keys.0.iter().collect();
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
        let _ =
            writeln!(text, "| `{name}` | {} | {default} | `{}` | {doc} |", key.kind.name().replace('|', "\\|").to_lowercase(), key.env());
    }
    text
}

/// Help for the keys without a flag.
pub(super) fn after_help(keys: &Keys) -> String {
    let mut text = "Every flag is also a TOML key (--store-url is url in [store]) and an environment variable.\n".to_owned();
    let patterns: Vec<_> = keys.0.iter().filter(|key| key.is_pattern()).collect();
    if !patterns.is_empty() {
        text.push_str("\nKeys without a flag (TOML file and environment only):\n");
        for key in patterns {
            let _ = writeln!(text, "  {}\n      {}", key.path, key.help());
        }
    }
    text
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
    let is_secret = schema.get("writeOnly").and_then(Value::as_bool).unwrap_or(false)
        || schema.get("anyOf").and_then(Value::as_array).is_some_and(|any| any.iter().any(|one| one.get("writeOnly").is_some()));
    keys.push(Key { path: prefix.to_owned(), kind: kind(schema), is_secret, default: default.cloned(), doc });
}

fn kind(schema: &Map<String, Value>) -> Kind {
    let has_type = |wanted: &str| match schema.get("type") {
        Some(Value::String(kind)) => kind == wanted,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == wanted),
        _ => false,
    };
    let words = words(schema);
    if !words.is_empty() {
        Kind::Words(words)
    } else if has_type("integer") {
        Kind::Integer
    } else if has_type("number") {
        Kind::Number
    } else if has_type("boolean") {
        Kind::Bool
    } else if has_type("array") || has_type("object") {
        Kind::Structured
    } else {
        Kind::Text
    }
}

/// Returns the permitted words, of the alternatives of an optional key too.
fn words(schema: &Map<String, Value>) -> Vec<String> {
    let members = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
    let own = members("enum").chain(schema.get("const")).filter_map(Value::as_str).map(str::to_owned);
    let alternatives = members("anyOf").chain(members("oneOf")).filter_map(Value::as_object).flat_map(words);
    own.chain(alternatives).collect()
}
