//! Kubernetes schema check: every object is parsed into the API's types and serialized again, and
//! must be unchanged.

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
    manifests::{Object, all, folders, kustomization},
    prometheus_operator::{PrometheusRule, ServiceMonitor},
};

/// Fields with user-defined keys.
const MAPS: [&str; 5] = ["labels", "annotations", "matchLabels", "requests", "limits"];

/// Returns why the API would reject an object, or a patch (`part`).
fn schema_error(object: &Value, part: bool) -> Option<String> {
    match (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default()) {
        ("apps/v1", "Deployment") => round_trip_difference::<Deployment>(object, part),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => round_trip_difference::<HorizontalPodAutoscaler>(object, part),
        ("batch/v1", "Job") => round_trip_difference::<Job>(object, part),
        ("networking.k8s.io/v1", "Ingress") => round_trip_difference::<Ingress>(object, part),
        ("networking.k8s.io/v1", "NetworkPolicy") => round_trip_difference::<NetworkPolicy>(object, part),
        ("policy/v1", "PodDisruptionBudget") => round_trip_difference::<PodDisruptionBudget>(object, part),
        ("v1", "Namespace") => round_trip_difference::<Namespace>(object, part),
        ("v1", "Service") => round_trip_difference::<Service>(object, part),
        ("v1", "ServiceAccount") => round_trip_difference::<ServiceAccount>(object, part),
        ("monitoring.coreos.com/v1", "PrometheusRule") => round_trip_difference::<PrometheusRule>(object, part),
        ("monitoring.coreos.com/v1", "ServiceMonitor") => round_trip_difference::<ServiceMonitor>(object, part),
        (version, kind) => Some(format!("unknown kind: {version} {kind}")),
    }
}

/// Returns the difference after a round trip through the type, which drops unknown fields and adds
/// required ones.
fn round_trip_difference<T: DeserializeOwned + Serialize>(object: &Value, part: bool) -> Option<String> {
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
        _ => (written != understood).then(|| format!("{path}: {written} is parsed as {understood}")),
    }
}

#[test]
fn objects_match_api_schema() {
    let all = all();
    assert!(all.len() >= 25, "{all:?}");
    for object in all {
        assert_eq!(schema_error(&object.value, false), None, "{object:?} in {}", object.file.display());
    }
}

#[test]
fn patches_match_api_schema() {
    let mut patches = 0;
    for folder in folders() {
        for patch in kustomization(&folder).patches.into_iter().filter(|patch| patch.target.is_none()) {
            assert_eq!(schema_error(&yaml(&folder.join(&patch.path)), true), None, "{} in {}", patch.path, folder.display());
            patches += 1;
        }
    }
    assert_eq!(patches, 2);
}

#[test]
fn misspelt_fields_are_detected() {
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
            assert!(schema_error(&wrong, false).is_some(), "{path:?} is accepted as {key}s");
            tried += 1;
        }
    }
    assert!(tried > 1_000, "{tried}");
}

/// Returns the path of every field, except user-defined keys.
fn fields(value: &Value) -> Vec<Vec<String>> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => return vec![],
    };
    let mut found = Vec::new();
    for (key, child) in children {
        // A Service's selector is a map of labels. All other selectors have `matchLabels`.
        let map = MAPS.contains(&key.as_str()) || (key == "selector" && child.get("matchLabels").is_none());
        let inside = if map { vec![] } else { fields(child) };
        found.extend(inside.into_iter().map(|path| [vec![key.clone()], path].concat()));
        if value.is_object() {
            found.push(vec![key]);
        }
    }
    found
}
