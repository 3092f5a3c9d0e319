//! Background jobs: every long-lived task runs under the supervisor.

use crate::{files, text};

/// Files that may spawn tasks, with the reason.
const SPAWNING: [(&str, &str); 10] = [
    ("middleware/resilience/src/task.rs", "defines how tasks are spawned"),
    ("middleware/runtime/src/process.rs", "tracks tasks until shutdown; the accept loops own their sockets"),
    ("middleware/runtime/src/health.rs", "readiness probes, which catch the panics of each probe"),
    ("middleware/runtime/src/grpc.rs", "spawns a supervised job"),
    ("middleware/runtime/src/telemetry.rs", "spawns a supervised job"),
    ("middleware/discovery/src/lib.rs", "spawns a supervised job"),
    ("middleware/transport/src/tls/reload.rs", "spawns a supervised job"),
    ("middleware/transport/src/client/trace_verdicts.rs", "one task while verdicts wait, which ends with the last"),
    ("middleware/transport/src/server/accept/connections.rs", "one task per connection"),
    ("middleware/auth/src/jwks.rs", "one refresh of a key set"),
];

/// Short-lived tasks of services: one load of a cache entry, one saga, one order, one lookup of a
/// database server.
const SHORT: [&str; 5] = [
    "services/gateway/src/cache.rs",
    "services/orders/src/worker.rs",
    "services/orders/src/grpc.rs",
    "services/orders/src/grpc/revision.rs",
    "services/products/src/start.rs",
];

/// Source text without its tests.
fn production_code(path: &str) -> String {
    let text = text(path);
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned()
}

fn sources() -> Vec<String> {
    let folders = ["middleware", "events", "services"];
    let is_source = |path: &String| path.contains("/src/") && !path.contains("/tests") && !path.contains("/bin/");
    folders.into_iter().flat_map(|folder| files(folder, "rs")).filter(is_source).collect()
}

#[test]
fn long_lived_tasks_are_supervised() {
    let mut spawning = Vec::new();
    for path in sources() {
        let code = production_code(&path);
        let spawns = ["task::spawn(", "process.run(", "running.spawn("].iter().any(|call| code.contains(call));
        if spawns && !code.contains("struct RunToCompletion") {
            spawning.push(path);
        }
    }
    let allowed: Vec<&str> = SPAWNING.iter().map(|(path, _)| *path).chain(SHORT).collect();
    let unknown: Vec<&String> =
        spawning.iter().filter(|path| !allowed.contains(&path.as_str()) && !path.ends_with("runtime/src/jobs.rs")).collect();
    assert!(unknown.is_empty(), "run it as a supervised job, or list it with its reason: {unknown:?}");
}

#[test]
fn wall_clock_arithmetic_is_checked() {
    let mut found = Vec::new();
    for path in sources()
        .into_iter()
        .filter(|path| ["services/orders", "services/products", "events/"].iter().any(|folder| path.starts_with(folder)))
    {
        for (number, line) in production_code(&path).lines().enumerate() {
            let wall_clock = ["(now + ", "(now - ", " now + ", "clock.now() - ", "clock.now() + ", "= now - "];
            if wall_clock.iter().any(|pattern| line.contains(pattern)) && !line.trim_start().starts_with("//") {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "use clock::after and clock::before, the operators panic on overflow:\n{}", found.join("\n"));
}
