//! Resource limits, published ports and security settings of the containers.

use std::collections::BTreeSet;

use palisade_tests::files::{read, repository, texts};
use serde_json::Value;

use crate::{
    files::stage,
    stack::{Service, file, service, services},
};

#[test]
fn memory_limits_sum_to_at_most_2_gib() {
    let limits: Vec<_> =
        services().iter().filter(|service| service.keeps_running()).map(|service| (service.name.clone(), service.memory())).collect();
    let sum: u64 = limits.iter().map(|(_, memory)| memory).sum();
    assert!(limits.len() >= 16, "{limits:?}");
    assert!(sum <= 2_048, "{sum} MiB: {limits:?}");
}

#[test]
fn ports_are_published_once_on_loopback() {
    let ports: Vec<_> = services().iter().flat_map(Service::ports).collect();
    assert!(ports.iter().all(|port| port.address == "127.0.0.1"), "{ports:?}");
    let distinct: BTreeSet<_> = ports.iter().map(|port| port.published).collect();
    assert_eq!(distinct.len(), ports.len(), "{ports:?}");
}

#[test]
fn third_party_images_are_pinned() {
    let images: Vec<_> = services().iter().filter_map(|service| Some(service.settings.get("image")?.as_str()?.to_owned())).collect();
    assert_eq!(images.len(), 14, "{images:?}");
    for image in images {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag.trim_start_matches('v'));
        let numbers = tag.map(|tag| tag.split('.').filter(|part| part.parse::<u32>().is_ok()).count());
        assert!(numbers.is_some_and(|numbers| numbers >= 2), "{image} is not pinned to an exact release");
    }
}

#[test]
fn containers_are_read_only_and_unprivileged() {
    for service in services() {
        let settings = &service.settings;
        assert_eq!(settings["read_only"], true, "{}", service.name);
        assert_eq!(texts(&settings["cap_drop"]), ["ALL"], "{}", service.name);
        assert_eq!(texts(&settings["security_opt"]), ["no-new-privileges:true"], "{}", service.name);
        assert!(settings.get("cap_add").is_none() && settings.get("privileged").is_none(), "{}", service.name);
    }
}

#[test]
fn dependencies_have_matching_conditions() {
    for waiting in services() {
        for (name, how) in waiting.settings["depends_on"].as_object().into_iter().flatten() {
            let other = service(name);
            match how["condition"].as_str() {
                Some("service_healthy") => assert!(has_health_check(&other.settings), "{} waits for {name}", waiting.name),
                Some("service_completed_successfully") => assert!(!other.keeps_running(), "{} waits for {name} to end", waiting.name),
                condition => panic!("{} waits for {name}: {condition:?}", waiting.name),
            }
        }
    }
    // `make up` waits for all health checks.
    let without = services().into_iter().filter(|service| service.keeps_running() && !has_health_check(&service.settings));
    assert_eq!(without.map(|service| service.name).collect::<Vec<_>>(), WITHOUT_HEALTH_CHECK);
}

/// Images without a shell and without an HTTP client. Prometheus scrapes these containers.
const WITHOUT_HEALTH_CHECK: [&str; 2] = ["collector", "mongodb-exporter"];

#[test]
fn volumes_are_declared_and_used() {
    let file = file();
    let declared: BTreeSet<_> = file["volumes"].as_object().unwrap().keys().cloned().collect();
    let mounts = services().iter().flat_map(Service::mounts).collect::<Vec<_>>();
    let used: BTreeSet<_> = mounts.iter().filter(|mount| !mount.is_in_repository()).map(|mount| mount.source.clone()).collect();
    assert_eq!(declared, used);
}

/// Returns whether the compose file or our image defines a health check.
fn has_health_check(settings: &Value) -> bool {
    let build = &settings["build"];
    let ours = build["dockerfile"].as_str().zip(build["target"].as_str());
    let in_image = ours.is_some_and(|(file, target)| stage(&read(&repository().join(file)), target).contains("\nHEALTHCHECK "));
    settings["healthcheck"]["test"].is_array() || in_image
}
