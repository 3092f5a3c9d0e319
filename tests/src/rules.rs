//! The rules of Prometheus in `compose/prometheus/rules`, as its tests read them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// One rule, which records or alerts.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    /// What it records.
    pub record: Option<String>,
    /// What it raises.
    pub alert: Option<String>,
    /// Its query.
    pub expr: String,
    /// Labels that it adds.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What an alert says.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What Prometheus reads, or the tests of it that `promtool` runs.
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

/// The files, in the order in which Prometheus reads them.
pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/prometheus/rules");
    let folder = folder.canonicalize().expect("the rules are in the repository");
    let entries = fs::read_dir(folder).expect("it is a folder").map(|entry| entry.expect("it can be read").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "yml")).collect();
    files.sort();
    assert!(!files.is_empty(), "there are no rules");
    files
}

/// All rules, in that order.
pub fn all() -> Vec<Rule> {
    files().into_iter().flat_map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Vec<Rule> {
    let text = fs::read_to_string(path).expect("a rule file is text");
    let file: RuleFile = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(file.groups.is_empty() == file.tests.is_some(), "{} has neither rules nor tests of them, or both", path.display());
    file.groups.into_iter().flat_map(|group| group.rules).collect()
}
