//! A pod has the time to leave that its program takes.

use palisade_tests::{
    files::{read, repository},
    shop::SERVICES,
};

use crate::{settings::environment, tree::object};

#[test]
fn the_grace_period_is_longer_than_all_that_happens_after_the_word_to_stop() {
    for service in SERVICES {
        let deployment = object("Deployment", service);
        let pod = deployment.pod().unwrap();
        let container = &pod["containers"][0];
        let environment = environment(service);
        let milliseconds = |name: &str| environment[name].parse::<u64>().unwrap();
        let pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap() * 1_000;
        // `ADMIN_DRAIN_MS` of the process and `FLUSH_TIMEOUT` of its telemetry.
        let process = read(&repository().join("middleware/src/process.rs"));
        assert!(process.contains("const ADMIN_DRAIN_MS: u64 = 100;"));
        assert!(
            read(&repository().join("middleware/src/telemetry.rs")).contains("const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);")
        );
        let stopping = milliseconds("PALISADE_SERVER__LAME_DUCK_MS") + milliseconds("PALISADE_SERVER__DRAIN_MS") + 100 + 2_000;
        assert_eq!(pre_stop + stopping, 32_100, "{service}: the comment at terminationGracePeriodSeconds does the same sum");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap() * 1_000;
        assert!(grace > pre_stop + stopping, "{service}: {grace} ms for {pre_stop} + {stopping} ms");
        assert!(read(&deployment.file).contains("= 32.1 s"), "{service}");
    }
}

#[test]
fn a_pod_that_is_told_to_stop_is_forgotten_before_it_stops_taking_calls() {
    for service in SERVICES {
        let deployment = object("Deployment", service);
        let container = &deployment.pod().unwrap()["containers"][0];
        let probe = &container["readinessProbe"];
        let noticed = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap() * 1_000;
        let lame_duck = environment(service)["PALISADE_SERVER__LAME_DUCK_MS"].parse::<u64>().unwrap();
        assert!(lame_duck > noticed, "{service}: {lame_duck} ms, and the kubelet sees it after {noticed} ms");
        // None goes before its successor has come.
        let strategy = &deployment.spec()["strategy"]["rollingUpdate"];
        assert_eq!((&strategy["maxUnavailable"], &strategy["maxSurge"]), (&0.into(), &1.into()), "{service}");
    }
}
