//! What `make up` starts, as far as it can be told without an engine: bounds, files, settings, and that the parts name each other rightly.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bounds;
mod files;
mod grafana;
mod jaeger;
mod settings;
mod stack;
mod words;
