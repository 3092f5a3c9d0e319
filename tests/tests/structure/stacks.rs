//! Each stack is listed once: a second list in code or documents would go stale.

use super::{files, text};

/// Layers whose names together identify a listing of a stack, with the file that may have it.
const STACKS: [(&str, [&str; 4]); 2] = [
    ("middleware/src/server.rs", ["RequestContextLayer", "AuthenticateLayer", "RateLimitLayer", "CatchPanicLayer"]),
    ("middleware/src/client.rs", ["ClientRespondLayer", "TotalDeadlineLayer", "CircuitBreakerLayer", "AttemptTimeoutLayer"]),
];

#[test]
fn stacks_are_listed_once() {
    for (owner, layers) in STACKS {
        let lists_stack = |file: &String| {
            let text = text(file);
            layers.iter().all(|layer| text.contains(layer))
        };
        // Benchmarks measure the layers one by one, and their table is written to the README.
        let is_bench = |file: &String| file.contains("/benches/") || file == "middleware/README.md";
        let sources = files("middleware", "rs").into_iter().chain(files("", "md"));
        let found: Vec<_> = sources.filter(|file| !is_bench(file)).filter(lists_stack).collect();
        assert_eq!(found, [owner], "{layers:?}");
    }
}
