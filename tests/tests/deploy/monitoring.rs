//! Prometheus in the cluster has the same rules and scrape settings as in `make up`.

use palisade_tests::{
    files::{repository, yaml},
    rules,
    shop::SERVICES,
};

use crate::manifests::{all, deploy, object};

#[test]
fn operator_rules_equal_compose_rules() {
    let files = rules::files();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let copied = object("PrometheusRule", &format!("palisade-{name}"));
        // Only the address of Grafana differs.
        let groups = copied.spec()["groups"].to_string().replace("https://grafana.example.com/", "http://localhost:3001/");
        let source = yaml(file)["groups"].to_string();
        assert!(groups == source, "{name} differs: run `make deploy-rules` to copy {}", file.display());
    }
    let copies = all().iter().filter(|object| object.kind() == "PrometheusRule").count();
    assert_eq!(copies, files.len());
}

/// Applies the JSON patch as kustomize does.
#[test]
fn memory_patch_matches_its_rule() {
    let causes = object("PrometheusRule", "palisade-causes").value;
    let patch = yaml(&deploy().join("monitoring/memory-near-limit.yaml"));
    let mut replaced = Vec::new();
    for operation in patch.as_array().unwrap() {
        let place = operation["path"].as_str().unwrap();
        let there = causes.pointer(place).unwrap_or_else(|| panic!("{place} does not exist"));
        match operation["op"].as_str().unwrap() {
            "test" => assert_eq!(there, &operation["value"], "{place}"),
            "replace" => replaced.push(place.rsplit('/').next().unwrap()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(patch[0]["op"], "test");
    assert_eq!(replaced, ["expr", "description"]);
}

#[test]
fn service_monitor_scrapes_all_admin_ports() {
    let monitor = object("ServiceMonitor", "palisade");
    let spec = monitor.spec();
    let selected: Vec<_> = all()
        .into_iter()
        .filter(|object| object.kind() == "Service" && object.value["metadata"]["labels"]["app.kubernetes.io/component"] == "admin")
        .collect();
    assert_eq!(spec["selector"]["matchLabels"], serde_json::json!({ "app.kubernetes.io/component": "admin" }));
    assert_eq!(selected.len(), SERVICES.len());
    let prometheus = yaml(&repository().join("compose/prometheus/prometheus.yml"));
    for service in selected {
        let job = &service.value["metadata"]["labels"][spec["jobLabel"].as_str().unwrap()];
        let scrape = prometheus["scrape_configs"].as_array().unwrap().iter().find(|scrape| scrape["job_name"] == *job);
        let scrape = scrape.unwrap_or_else(|| panic!("{service:?}: no job {job}"));
        for (limit, theirs) in
            [("sampleLimit", "sample_limit"), ("labelLimit", "label_limit"), ("labelValueLengthLimit", "label_value_length_limit")]
        {
            assert_eq!(spec[limit], scrape[theirs], "{limit}");
        }
        assert_eq!(service.spec()["ports"][0]["name"], spec["endpoints"][0]["port"]);
        assert_eq!(spec["endpoints"][0]["interval"], prometheus["global"]["scrape_interval"]);
    }
}
