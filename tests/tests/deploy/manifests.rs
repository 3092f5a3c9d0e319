//! Parsed `deploy/`: kustomizations and the listed objects.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use palisade_tests::files::{repository, yaml, yamls};
use serde::Deserialize;
use serde_json::Value;

/// Supported kustomization fields. Others are rejected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "fields are only checked for being known")]
pub(crate) struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    labels: Vec<Labels>,
    #[serde(default)]
    pub(crate) resources: Vec<String>,
    #[serde(default)]
    pub(crate) images: Vec<Image>,
    #[serde(default)]
    pub(crate) config_map_generator: Vec<Generator>,
    #[serde(default)]
    pub(crate) secret_generator: Vec<Generator>,
    #[serde(default)]
    pub(crate) patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields are only checked for being known")]
struct Labels {
    pairs: BTreeMap<String, String>,
}

/// Image replacement: new name and tag.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) new_name: String,
    pub(crate) new_tag: String,
}

/// Generator of a `ConfigMap` or `Secret`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generator {
    pub(crate) name: String,
    pub(crate) behavior: Option<String>,
    #[serde(default)]
    pub(crate) literals: Vec<String>,
    #[serde(default)]
    pub(crate) files: Vec<String>,
}

/// Patch file. Without a target the patch names its object itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    pub(crate) path: String,
    pub(crate) target: Option<Target>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) kind: String,
    pub(crate) name: String,
}

/// Object and its file.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) file: PathBuf,
    pub(crate) value: Value,
}

impl Object {
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_else(|| panic!("{}: an object without a kind", self.file.display()))
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_else(|| panic!("{}: an object without a name", self.file.display()))
    }

    pub(crate) fn spec(&self) -> &Value {
        &self.value["spec"]
    }

    /// Returns the pod template's spec, if there is one.
    pub(crate) fn pod(&self) -> Option<&Value> {
        self.spec()["template"].get("spec")
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl Generator {
    /// Returns source files by key.
    pub(crate) fn files(&self) -> BTreeMap<&str, &str> {
        self.files.iter().map(|file| file.split_once('=').unwrap_or((file, file))).collect()
    }
}

pub(crate) fn deploy() -> PathBuf {
    repository().join("deploy").canonicalize().unwrap()
}

/// Returns every directory of `deploy/` with a kustomization.
pub(crate) fn folders() -> Vec<PathBuf> {
    files().iter().filter(|file| file.ends_with("kustomization.yaml")).map(|file| file.parent().unwrap().to_owned()).collect()
}

/// Returns every file under `deploy/`.
pub(crate) fn files() -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![deploy()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { &mut open } else { &mut found }.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn kustomization(folder: &Path) -> Kustomization {
    let path = folder.join("kustomization.yaml");
    serde_json::from_value(yaml(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the objects of a directory, including those of listed directories.
pub(crate) fn objects(folder: &str) -> Vec<Object> {
    collect(&deploy().join(folder))
}

/// Returns all objects, each file once.
pub(crate) fn all() -> Vec<Object> {
    let listed = |folder: &PathBuf| kustomization(folder).resources.iter().map(|resource| folder.join(resource)).collect::<Vec<_>>();
    let files = folders().iter().flat_map(listed).filter(|path| path.is_file()).collect::<Vec<_>>();
    files.iter().flat_map(|file| in_file(file)).collect()
}

/// Returns the only object of this kind and name.
pub(crate) fn object(kind: &str, name: &str) -> Object {
    let found: Vec<_> = all().into_iter().filter(|object| object.kind() == kind && object.name() == name).collect();
    let [object] = &found[..] else { panic!("{} of {kind} {name}", found.len()) };
    object.clone()
}

fn collect(folder: &Path) -> Vec<Object> {
    let resources = kustomization(folder).resources.into_iter().map(|resource| folder.join(resource));
    resources.flat_map(|path| if path.is_dir() { collect(&path) } else { in_file(&path) }).collect()
}

fn in_file(path: &Path) -> Vec<Object> {
    yamls(path).into_iter().map(|value| Object { file: path.to_owned(), value }).collect()
}
