//! Network policies: exactly the required hops are allowed.

use std::collections::BTreeSet;

use palisade_tests::{files::text, shop::SERVICES};
use serde_json::Value;

use crate::{
    manifests::{Object, all, object},
    settings::environment,
};

fn policies() -> Vec<Object> {
    all().into_iter().filter(|object| object.kind() == "NetworkPolicy").collect()
}

/// Returns the hops allowed by policies of this direction, as `gateway > products:5000`.
fn hops(direction: &str) -> BTreeSet<String> {
    let mut hops = BTreeSet::new();
    for policy in policies() {
        for rule in policy.spec()[direction].as_array().into_iter().flatten() {
            let others = rule[if direction == "ingress" { "from" } else { "to" }].as_array();
            for other in others.unwrap_or_else(|| panic!("{policy:?} allows every peer")).iter().flat_map(others_of) {
                for ours in names(&policy.spec()["podSelector"]) {
                    for port in rule["ports"].as_array().unwrap_or_else(|| panic!("{policy:?} allows every port")) {
                        let (from, to) = if direction == "ingress" { (&other, &ours) } else { (&ours, &other) };
                        hops.insert(format!("{from} > {to}:{}", text(&port["port"])));
                    }
                }
            }
        }
    }
    hops
}

fn others_of(peer: &Value) -> Vec<String> {
    let namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].as_str();
    let place = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
    assert!(peer.get("podSelector").is_some(), "{peer} allows a whole namespace");
    names(&peer["podSelector"]).into_iter().map(|name| format!("{place}{name}")).collect()
}

/// Returns the pods matched by a selector, `*` for all.
fn names(selector: &Value) -> Vec<String> {
    if let Some(labels) = selector["matchLabels"].as_object() {
        let [(_, name)] = labels.iter().collect::<Vec<_>>()[..] else { panic!("{selector}") };
        return vec![text(name)];
    }
    match selector["matchExpressions"].as_array() {
        Some(expressions) => expressions[0]["values"].as_array().unwrap().iter().map(text).collect(),
        None => vec!["*".to_owned()],
    }
}

#[test]
fn policies_allow_exactly_the_required_hops() {
    let deny = object("NetworkPolicy", "deny-all");
    assert_eq!(deny.spec(), &serde_json::json!({ "podSelector": {}, "policyTypes": ["Ingress", "Egress"] }));
    assert_eq!(
        hops("ingress").into_iter().collect::<Vec<_>>(),
        [
            "gateway > orders:5001",
            "gateway > products:5000",
            "ingress-nginx/ingress-nginx > gateway:3000",
            "monitoring/prometheus > gateway:admin",
            "monitoring/prometheus > orders:admin",
            "monitoring/prometheus > products:admin",
            "orders > products:5000",
        ]
    );
    assert_eq!(
        hops("egress").into_iter().collect::<Vec<_>>(),
        [
            "* > kube-system/kube-dns:53",
            "gateway > observability/opentelemetry-collector:4317",
            "gateway > orders:5001",
            "gateway > products:5000",
            "orders > data/postgresql:5432",
            "orders > observability/opentelemetry-collector:4317",
            "orders > products:5000",
            "orders-migrate > data/postgresql:5432",
            "products > data/mongodb:27017",
            "products > observability/opentelemetry-collector:4317",
        ]
    );
}

#[test]
fn configured_upstreams_are_allowed_and_exist() {
    let egress = hops("egress");
    let mut called = 0;
    for service in SERVICES {
        for (variable, url) in environment(service).into_iter().filter(|(name, _)| name.starts_with("PALISADE_UPSTREAMS__")) {
            let (_, target) = url.split_once("://").unwrap_or_else(|| panic!("{service} {variable}: {url}"));
            assert!(egress.contains(&format!("{service} > {target}")), "{service} {variable}: {url}");
            let (host, port) = target.split_once(':').unwrap();
            let ports = object("Service", host).spec()["ports"].clone();
            assert!(ports.as_array().unwrap().iter().any(|open| text(&open["port"]) == port), "{service} {variable}: {url}");
            called += 1;
        }
        let collector = &environment(service)["PALISADE_TELEMETRY__OTLP_ENDPOINT"];
        assert!(collector.contains(".observability.svc:4317"), "{service}: {collector}");
    }
    assert_eq!(called, 3);
}

#[test]
fn egress_and_ingress_policies_agree() {
    let ours = |direction| hops(direction).into_iter().filter(|hop| !hop.contains('/')).collect::<BTreeSet<_>>();
    assert_eq!(ours("egress"), ours("ingress"));
}
