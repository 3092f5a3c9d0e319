//! Every object has the fields that the API has, and no others: read into the API's own types and written again, it must be the same.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::Job,
    core::v1::{Namespace, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use palisade_tests::files::yaml;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    operator::{PrometheusRule, ServiceMonitor},
    tree::{Object, all, folders, kustomization},
};

/// What has keys of the user's choice.
const MAPS: [&str; 5] = ["labels", "annotations", "matchLabels", "requests", "limits"];

/// Why the API would refuse an object, or a patch, which is a part of one.
fn refusal(object: &Value, part: bool) -> Option<String> {
    match (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default()) {
        ("apps/v1", "Deployment") => lost::<Deployment>(object, part),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => lost::<HorizontalPodAutoscaler>(object, part),
        ("batch/v1", "Job") => lost::<Job>(object, part),
        ("networking.k8s.io/v1", "Ingress") => lost::<Ingress>(object, part),
        ("networking.k8s.io/v1", "NetworkPolicy") => lost::<NetworkPolicy>(object, part),
        ("policy/v1", "PodDisruptionBudget") => lost::<PodDisruptionBudget>(object, part),
        ("v1", "Namespace") => lost::<Namespace>(object, part),
        ("v1", "Service") => lost::<Service>(object, part),
        ("v1", "ServiceAccount") => lost::<ServiceAccount>(object, part),
        ("monitoring.coreos.com/v1", "PrometheusRule") => lost::<PrometheusRule>(object, part),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => lost::<ServiceMonitor>(object, part),
        (version, kind) => Some(format!("no such kind: {version} {kind}")),
    }
}

/// What the type makes of an object that the object does not say. What it does not know it drops, what it needs it adds.
fn lost<T: DeserializeOwned + Serialize>(object: &Value, part: bool) -> Option<String> {
    match serde_json::from_value::<T>(object.clone()) {
        Ok(typed) => difference(object, &serde_json::to_value(typed).unwrap(), part, ""),
        Err(error) => Some(error.to_string()),
    }
}

fn difference(written: &Value, understood: &Value, part: bool, path: &str) -> Option<String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            let unknown = written.keys().find(|key| !understood.contains_key(*key)).map(|key| format!("{path}.{key} is unknown"));
            let missing = understood.keys().find(|key| !part && !written.contains_key(*key)).map(|key| format!("{path}.{key} is missing"));
            let inside = || written.iter().find_map(|(key, value)| difference(value, &understood[key], part, &format!("{path}.{key}")));
            unknown.or(missing).or_else(inside)
        }
        (Value::Array(written), Value::Array(understood)) if written.len() == understood.len() => {
            let mut pairs = written.iter().zip(understood).enumerate();
            pairs.find_map(|(at, (written, understood))| difference(written, understood, part, &format!("{path}[{at}]")))
        }
        _ => (written != understood).then(|| format!("{path}: {written} is understood as {understood}")),
    }
}

#[test]
fn every_object_is_one_of_the_api() {
    let all = all();
    assert!(all.len() >= 25, "{all:?}");
    for object in all {
        assert_eq!(refusal(&object.value, false), None, "{object:?} in {}", object.file.display());
    }
}

#[test]
fn every_patch_is_a_part_of_an_object() {
    let mut patches = 0;
    for folder in folders() {
        for patch in kustomization(&folder).patches.into_iter().filter(|patch| patch.target.is_none()) {
            assert_eq!(refusal(&yaml(&folder.join(&patch.path)), true), None, "{} in {}", patch.path, folder.display());
            patches += 1;
        }
    }
    assert_eq!(patches, 2);
}

#[test]
fn a_field_that_is_misspelt_anywhere_is_refused() {
    let mut tried = 0;
    for Object { value, .. } in all() {
        for path in fields(&value) {
            let mut wrong = value.clone();
            let (key, holder) = path.split_last().unwrap();
            let holder = holder.iter().fold(&mut wrong, |inside, key| match inside {
                Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
                inside => &mut inside[key.as_str()],
            });
            let fields = holder.as_object_mut().unwrap();
            let content = fields.remove(key).unwrap();
            fields.insert(format!("{key}s"), content);
            assert!(refusal(&wrong, false).is_some(), "{path:?} may be called {key}s");
            tried += 1;
        }
    }
    assert!(tried > 1_000, "{tried}");
}

/// The path of every field, but for keys of the user's choice.
fn fields(value: &Value) -> Vec<Vec<String>> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => return vec![],
    };
    let mut found = Vec::new();
    for (key, child) in children {
        // A Service selects by labels alone, everything else by an object that has `matchLabels`.
        let map = MAPS.contains(&key.as_str()) || (key == "selector" && child.get("matchLabels").is_none());
        let inside = if map { vec![] } else { fields(child) };
        found.extend(inside.into_iter().map(|path| [vec![key.clone()], path].concat()));
        if value.is_object() {
            found.push(vec![key]);
        }
    }
    found
}
