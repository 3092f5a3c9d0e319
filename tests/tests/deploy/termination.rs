//! Pod termination: grace period and readiness against the shutdown phases of the program.

use palisade_tests::{
    files::{read, repository},
    shop::SERVICES,
};

use crate::{manifests::object, settings::environment};

#[test]
fn grace_period_covers_graceful_shutdown() {
    for service in SERVICES {
        let deployment = object("Deployment", service);
        let pod = deployment.pod().unwrap();
        let container = &pod["containers"][0];
        let environment = environment(service);
        let milliseconds = |name: &str| environment[name].parse::<u64>().unwrap();
        let pre_stop = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap() * 1_000;
        // Adds `ADMIN_DRAIN_MS` of the process and `FLUSH_TIMEOUT` of its telemetry.
        let process = read(&repository().join("middleware/runtime/src/process.rs"));
        assert!(process.contains("const ADMIN_DRAIN_MS: u64 = 100;"));
        assert!(
            read(&repository().join("middleware/runtime/src/telemetry.rs"))
                .contains("const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);")
        );
        let stopping = milliseconds("PALISADE_SERVER__LAME_DUCK_MS") + milliseconds("PALISADE_SERVER__DRAIN_TIMEOUT_MS") + 100 + 2_000;
        assert_eq!(pre_stop + stopping, 32_100, "{service}: update the sum in the comment at terminationGracePeriodSeconds");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap() * 1_000;
        assert!(grace > pre_stop + stopping, "{service}: {grace} ms for {pre_stop} + {stopping} ms");
        assert!(read(&deployment.file).contains("= 32.1 s"), "{service}");
    }
}

#[test]
fn lame_duck_outlasts_readiness_detection() {
    for service in SERVICES {
        let deployment = object("Deployment", service);
        let container = &deployment.pod().unwrap()["containers"][0];
        let probe = &container["readinessProbe"];
        let noticed = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap() * 1_000;
        let lame_duck = environment(service)["PALISADE_SERVER__LAME_DUCK_MS"].parse::<u64>().unwrap();
        assert!(lame_duck > noticed, "{service}: lame duck of {lame_duck} ms, kubelet detects it after {noticed} ms");
        // Rolling update: a pod is stopped only after its replacement is ready.
        let strategy = &deployment.spec()["strategy"]["rollingUpdate"];
        assert_eq!((&strategy["maxUnavailable"], &strategy["maxSurge"]), (&0.into(), &1.into()), "{service}");
    }
}
