//! Merged configuration: the value of each key, and the layer that set it.

use std::collections::BTreeMap;

use palisade_resilience::{redact, setting::Invalid};
use serde_json::{Map, Value};

use super::{
    bounds,
    schema::{Key, Kind},
};

/// Values of all layers so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Tree {
    root: Map<String, Value>,
    /// Layer and name of the source of each key.
    sources: BTreeMap<String, (u32, String)>,
    layer: u32,
}

impl Tree {
    /// Starts a layer that takes precedence over the earlier ones.
    pub(super) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Returns the merged values.
    pub(super) fn value(&self) -> Value {
        Value::Object(self.root.clone())
    }

    /// Sets `path`, a key of the form `key`, to a text of the environment or the command line. Text
    /// is taken to the letter; other kinds are parsed.
    pub(super) fn set_text(&mut self, key: &Key, path: &str, text: &str, source: &str, invalid: &mut Vec<Invalid>) {
        if key.is_secret {
            redact::register(text);
        }
        match key.kind.parse(text).and_then(|value| key.kind.in_bounds(path, value)) {
            Ok(value) => self.set(path, value, source),
            Err(rule) => {
                let found = if key.is_secret { String::new() } else { format!(", not {text:?}") };
                invalid.push(Invalid::new(path.to_owned(), format!("{rule}{found} ({source})")));
            }
        }
    }

    /// Sets `path` to a typed value of the file.
    pub(super) fn set_value(&mut self, key: &Key, path: &str, value: Value, source: &str, invalid: &mut Vec<Invalid>) {
        if let (true, Some(text)) = (key.is_secret, value.as_str()) {
            redact::register(text);
        }
        match key.kind.check(&value).and_then(|()| key.kind.in_bounds(path, value)) {
            Ok(value) => self.set(path, value, source),
            Err(rule) => invalid.push(Invalid::new(path.to_owned(), format!("{rule} ({source})"))),
        }
    }

    /// A secret is given as `x`, or as `x_file` in a file. A layer that sets one clears the other
    /// of lower layers.
    fn set(&mut self, path: &str, value: Value, source: &str) {
        let twin = path.strip_suffix("_file").map_or_else(|| format!("{path}_file"), str::to_owned);
        if self.sources.get(&twin).is_some_and(|(layer, _)| *layer < self.layer) {
            self.remove(&twin);
        }
        let (parents, name) = split(path);
        let mut section = &mut self.root;
        for parent in parents {
            let entry = section.entry(parent).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = entry else { return };
            section = next;
        }
        section.insert(name.to_owned(), value);
        self.sources.insert(path.to_owned(), (self.layer, source.to_owned()));
    }

    /// Removes a key or section, which then has its default. Returns whether it was set.
    pub(super) fn remove(&mut self, path: &str) -> bool {
        let (parents, name) = split(path);
        let mut section = &mut self.root;
        for parent in parents {
            let Some(Value::Object(next)) = section.get_mut(parent) else { return false };
            section = next;
        }
        let is_within = |key: &str| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.sources.retain(|key, _| !is_within(key));
        section.remove(name).is_some()
    }

    /// Returns the name of the source of a key.
    pub(super) fn source(&self, path: &str) -> Option<&str> {
        self.sources.get(path).map(|(_, source)| source.as_str())
    }

    /// Returns the longest key that is set and contains `path`.
    pub(super) fn set_key(&self, path: &str) -> Option<&str> {
        let contains = |key: &&String| path.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        self.sources.keys().filter(contains).max_by_key(|key| key.len()).map(String::as_str)
    }

    /// Returns the keys that are set within the section `path`.
    pub(super) fn set_keys_within(&self, path: &str) -> Vec<String> {
        let is_within = |key: &&String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.sources.keys().filter(is_within).cloned().collect()
    }

    /// Reports each key that is set and has no effect.
    pub(super) fn check_ineffective(&self, ineffective: &[(&str, &str)], invalid: &mut Vec<Invalid>) {
        for (key, (_, source)) in &self.sources {
            let is_within = |section: &str| key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            if let Some((_, reason)) = ineffective.iter().find(|(section, _)| is_within(section)) {
                invalid.push(Invalid::new(key.clone(), format!("has no effect here: {reason} ({source})")));
            }
        }
    }
}

fn split(path: &str) -> (impl Iterator<Item = &str>, &str) {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    (parents.split('.').filter(|parent| !parent.is_empty()), name)
}

impl Kind {
    /// Parses a text of the environment or the command line. The error is the broken rule.
    fn parse(&self, text: &str) -> Result<Value, String> {
        let number = |value: Option<serde_json::Number>| value.map(Value::Number);
        let value = match self {
            Self::Text | Self::Words(_) => Some(text.into()),
            Self::Integer => number(text.parse::<u64>().map(Into::into).or_else(|_| text.parse::<i64>().map(Into::into)).ok()),
            Self::Number => number(text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)),
            Self::Bool => text.parse::<bool>().ok().map(Value::Bool),
            Self::Structured => serde_json::from_str(text).ok(),
        };
        value.ok_or_else(|| self.rule()).and_then(|value| self.check(&value).map(|()| value))
    }

    /// Checks the type of a value. The error is the broken rule.
    fn check(&self, value: &Value) -> Result<(), String> {
        let is_valid = match self {
            Self::Text => value.is_string(),
            Self::Words(words) => value.as_str().is_some_and(|text| words.iter().any(|word| word == text)),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Bool => value.is_boolean(),
            Self::Structured => value.is_array() || value.is_object(),
        };
        if is_valid { Ok(()) } else { Err(self.rule()) }
    }

    /// Checks the upper bound of a number. The error is the broken rule.
    fn in_bounds(&self, path: &str, value: Value) -> Result<Value, String> {
        match bounds::violation(path, &value).filter(|_| self.is_numeric()) {
            Some(rule) => Err(rule),
            None => Ok(value),
        }
    }

    fn rule(&self) -> String {
        match self {
            Self::Text => "must be text, in quotes".to_owned(),
            Self::Words(words) => format!("must be one of {}", words.join(", ")),
            Self::Integer => "must be an integer".to_owned(),
            Self::Number => "must be a number".to_owned(),
            Self::Bool => "must be true or false".to_owned(),
            Self::Structured => "must be JSON, a list or an object".to_owned(),
        }
    }
}
