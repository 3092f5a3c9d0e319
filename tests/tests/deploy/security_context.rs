//! Pod security, secrets, services and placement.

use palisade_tests::{files::texts, shop::SERVICES};
use serde_json::{Value, json};

use crate::manifests::{Object, all, object};

/// Returns the objects with a pod template.
fn objects_with_pods() -> Vec<Object> {
    let makers: Vec<_> = all().into_iter().filter(|object| object.pod().is_some()).collect();
    assert_eq!(makers.len(), 4, "{makers:?}");
    makers
}

#[test]
fn pods_are_unprivileged_and_read_only() {
    for maker in objects_with_pods() {
        let pod = maker.pod().unwrap();
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{maker:?}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{maker:?}");
        assert!(security["fsGroup"].as_u64().is_some_and(|group| group > 0), "{maker:?} cannot read its secrets");
        assert_eq!(pod["automountServiceAccountToken"], false, "{maker:?}");
        assert_eq!(pod["enableServiceLinks"], false, "{maker:?}");
        for container in pod["containers"].as_array().unwrap() {
            let allowed = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
            assert_eq!(container["securityContext"], allowed, "{maker:?}");
            let resources = &container["resources"];
            assert!(resources["requests"]["cpu"].is_string() && resources["limits"]["memory"].is_string(), "{maker:?}");
            assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"], "{maker:?}");
        }
        for field in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
            assert!(pod.get(field).is_none(), "{maker:?}: {field}");
        }
    }
    let labels = &object("Namespace", "palisade").value["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn secrets_are_private_files_not_environment() {
    for maker in objects_with_pods() {
        let pod = maker.pod().unwrap();
        for secret in pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume.get("secret")) {
            assert_eq!(secret["defaultMode"], 0o400, "{maker:?}");
        }
        let container = &pod["containers"][0];
        let environment = container["env"].as_array().unwrap();
        assert!(environment.iter().all(|variable| variable["value"].is_string()), "{maker:?}: {environment:?}");
        let sources = container["envFrom"].as_array();
        assert!(sources.into_iter().flatten().all(|source| source.get("secretRef").is_none()), "{maker:?}");
        assert!(container["volumeMounts"].as_array().unwrap().iter().all(|mount| mount["readOnly"] == true), "{maker:?}");
    }
}

/// Settings common to all three services must be identical: only names, ports, environment, volumes
/// and resources differ.
#[test]
fn deployments_share_common_settings() {
    let common = SERVICES.map(|service| {
        let mut spec = object("Deployment", service).spec().clone();
        let container = &mut spec["template"]["spec"]["containers"][0];
        for field in ["image", "ports", "env", "volumeMounts", "resources"] {
            container[field].take();
        }
        spec["template"]["spec"]["volumes"].take();
        serde_json::from_str::<Value>(&spec.to_string().replace(&format!("\"{service}\""), "\"it\"")).unwrap()
    });
    let unlike: Vec<_> = SERVICES.iter().zip(&common).filter(|(_, spec)| **spec != common[0]).collect();
    assert!(unlike.is_empty(), "{unlike:#?}\nand {}: {:#?}", SERVICES[0], common[0]);
}

#[test]
fn services_select_pods_with_matching_ports() {
    let mut headless = Vec::new();
    for service in all().into_iter().filter(|object| object.kind() == "Service") {
        let selected = service.spec()["selector"]["app.kubernetes.io/name"].as_str().unwrap();
        let template = object("Deployment", selected).spec()["template"].clone();
        assert_eq!(service.spec()["selector"], template["metadata"]["labels"], "{service:?}");
        for port in service.spec()["ports"].as_array().unwrap() {
            let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
            let behind = ports.iter().find(|open| open["name"] == port["targetPort"]);
            assert_eq!(behind.map(|open| &open["containerPort"]), Some(&port["port"]), "{service:?}");
        }
        if service.spec()["clusterIP"] == "None" {
            headless.push(service.name().to_owned());
        }
    }
    headless.sort();
    // The public entry point has a virtual IP. gRPC clients discover all pods through headless
    // services.
    assert_eq!(headless, ["gateway-admin", "orders", "orders-admin", "products", "products-admin"]);
}

#[test]
fn replicas_are_spread_over_nodes_and_zones() {
    for service in SERVICES {
        let deployment = object("Deployment", service);
        let pod = deployment.pod().unwrap();
        let spread = pod["topologySpreadConstraints"].as_array().unwrap();
        let keys: Vec<_> = spread.iter().map(|constraint| constraint["topologyKey"].as_str().unwrap()).collect();
        assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"], "{service}");
        for constraint in spread {
            assert_eq!(constraint["labelSelector"], deployment.spec()["selector"], "{service}");
            // Old pods do not affect the spread of new ones during a rollout.
            assert_eq!(texts(&constraint["matchLabelKeys"]), ["pod-template-hash"], "{service}");
        }
    }
}
