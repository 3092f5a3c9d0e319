//! Prometheus rules in `compose/prometheus/rules`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Recording or alerting rule.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// Name of the recorded series.
    pub record: Option<String>,
    /// Name of the alert.
    pub alert: Option<String>,
    /// PromQL expression.
    pub expr: String,
    /// Additional labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations of an alert.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Rule file, or a `promtool` test of rules.
#[derive(Deserialize)]
struct RuleFile {
    #[serde(default)]
    groups: Vec<Group>,
    tests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// Returns the rule files in the order in which Prometheus reads them.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/prometheus/rules");
    let folder = folder.canonicalize().expect("the rules are in the repository");
    let entries =
        fs::read_dir(folder).expect("rules directory is readable").map(|entry| entry.expect("directory entry is readable").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "yml")).collect();
    files.sort();
    assert!(!files.is_empty(), "no rule files");
    files
}

/// Returns all rules in file order.
pub fn all() -> Vec<Rule> {
    files().into_iter().flat_map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Vec<Rule> {
    let text = fs::read_to_string(path).expect("a rule file is text");
    let file: RuleFile = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file.groups.is_empty() == file.tests.is_some(), "{} must contain either rules or tests", path.display());
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}
