//! Machine-readable metadata of a rejection.

use std::fmt;

/// Machine-readable value in the metadata of a rejection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataValue {
    /// Single value.
    Text(String),
    /// List: a JSON array over HTTP, comma-separated in `ErrorInfo.metadata`.
    List(Vec<String>),
    /// Structured value: JSON over both protocols.
    Json(serde_json::Value),
}

impl From<String> for MetadataValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for MetadataValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<String>> for MetadataValue {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

impl From<serde_json::Value> for MetadataValue {
    fn from(value: serde_json::Value) -> Self {
        Self::Json(value)
    }
}

impl fmt::Display for MetadataValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::List(list) => f.write_str(&list.join(",")),
            Self::Json(value) => value.fmt(f),
        }
    }
}
