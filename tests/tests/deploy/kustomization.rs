//! Kustomizations: every listed path exists, and every manifest is listed.

use std::collections::BTreeSet;

use palisade_tests::files::yaml;
use serde_json::Value;

use crate::manifests::{Generator, Patch, deploy, files, folders, kustomization, objects};

/// Directory of secrets that an operator creates with the script in it.
const SECRETS: &str = "overlays/example/secrets";

#[test]
fn listed_paths_exist_and_manifests_are_listed() {
    let mut listed = BTreeSet::new();
    for folder in folders() {
        let kustomization = kustomization(&folder);
        let patches = kustomization.patches.iter().map(|patch| &patch.path);
        for path in kustomization.resources.iter().chain(patches) {
            let path = folder.join(path).canonicalize().unwrap_or_else(|error| panic!("{} lists {path}: {error}", folder.display()));
            assert!(path.is_file() || path.join("kustomization.yaml").is_file(), "{}", path.display());
            listed.insert(path);
        }
    }
    for file in files() {
        let (name, kind) = (file.file_name().unwrap(), file.extension());
        if kind.is_none_or(|kind| kind != "yaml") || name == "kustomization.yaml" || name == "prometheus-adapter.yaml" {
            continue;
        }
        assert!(listed.contains(&file), "{} is in no kustomization", file.display());
    }
}

#[test]
fn objects_are_unique_and_patches_match() {
    for folder in folders() {
        let relative = folder.strip_prefix(deploy()).unwrap().to_str().unwrap();
        let objects: Vec<_> = objects(relative).iter().map(|object| (object.kind().to_owned(), object.name().to_owned())).collect();
        let distinct: BTreeSet<_> = objects.iter().collect();
        assert_eq!(distinct.len(), objects.len(), "{relative}: {objects:?}");
        for Patch { path, target } in kustomization(&folder).patches {
            let patch = yaml(&folder.join(&path));
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let patched = match target {
                Some(target) => (target.kind, target.name),
                None => (text(&patch["kind"]), text(&patch["metadata"]["name"])),
            };
            assert!(distinct.contains(&patched), "{relative}/{path} patches {patched:?}, which does not exist");
        }
    }
}

#[test]
fn referenced_secrets_and_config_maps_are_generated() {
    let folders = ["base", "overlays/example", SECRETS].map(|folder| kustomization(&deploy().join(folder)));
    let made = |generators: Vec<&Generator>| generators.iter().map(|generator| generator.name.clone()).collect::<BTreeSet<_>>();
    let secrets = made(folders.iter().flat_map(|folder| &folder.secret_generator).collect());
    let settings = made(folders.iter().flat_map(|folder| &folder.config_map_generator).collect());
    let (mut wanted_secrets, mut wanted_settings) = (BTreeSet::new(), BTreeSet::new());
    let name = |value: &Value| value.as_str().map(str::to_owned);
    for object in ["overlays/example", "overlays/example/migrate"].iter().flat_map(|folder| objects(folder)) {
        let Some(pod) = object.pod() else { continue };
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            wanted_secrets.extend(name(&volume["secret"]["secretName"]));
            wanted_settings.extend(name(&volume["configMap"]["name"]));
        }
        for source in pod["containers"][0]["envFrom"].as_array().into_iter().flatten() {
            wanted_settings.extend(name(&source["configMapRef"]["name"]));
        }
    }
    assert_eq!((wanted_secrets, wanted_settings), (secrets, settings));
}

#[test]
fn example_pins_every_palisade_image() {
    for folder in ["overlays/example", "overlays/example/migrate"] {
        let given = kustomization(&deploy().join(folder)).images;
        for image in &given {
            assert!(image.new_name.contains('/') && image.new_tag.split('.').count() == 3, "{image:?} is not pinned to a release");
        }
        let given: BTreeSet<_> = given.into_iter().map(|image| image.name).collect();
        let used: BTreeSet<_> = objects(folder)
            .iter()
            .filter_map(|object| Some(object.pod()?["containers"][0]["image"].as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(given, used, "{folder}");
    }
}
