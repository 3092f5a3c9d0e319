//! One function for each parser of foreign input and each state machine. It states properties: what
//! is accepted, what it becomes, what never happens.

mod configuration;
mod cursors;
mod deadlines;
mod discovery;
mod gateway;
mod headers;
mod input;
mod machines;
mod tokens;

/// Checks the properties of a target with one input. Panics if one does not hold.
pub(crate) type Target = fn(&[u8]);

/// Declares the targets, and passes them to another macro: name, mutations in a test run, function.
macro_rules! targets {
    ($($name:ident: $mutations:literal, $target:path;)*) => {
        /// All targets, sorted by name: their number of mutations in a test run, and their
        /// function.
        pub(crate) static TARGETS: &[(&str, usize, Target)] = &[$((stringify!($name), $mutations, $target)),*];

        /// Declares a test for each target, which calls the function with its name.
        #[cfg(not(feature = "libfuzzer"))]
        macro_rules! test_each {
            ($run:path) => {
                $(
                    #[test]
                    fn $name() {
                        $run(stringify!($name));
                    }
                )*
            };
        }
    };
}

targets! {
    adaptive_limit: 500, machines::overload::adaptive_limit;
    addresses: 20_000, discovery::addresses;
    breaker: 10_000, machines::breaker::breaker;
    conditions: 2_000, gateway::headers::conditions;
    config_environment: 50, configuration::environment;
    config_file: 50, configuration::file;
    cursor: 5_000, cursors::cursor;
    entity_versions: 20_000, cursors::preconditions;
    forwarded_for: 10_000, headers::forwarded_for;
    grpc_timeout: 10_000, deadlines::grpc_timeout;
    idempotency_key: 2_000, gateway::headers::idempotency_key;
    json_bodies: 3_000, gateway::bodies::json_bodies;
    jwks: 2_000, tokens::jwks;
    jwt: 2_000, tokens::jwt;
    last_event_id: 1_000, gateway::headers::last_event_id;
    money: 2_000, gateway::bodies::money;
    parameters: 20_000, cursors::parameters;
    pushback: 20_000, headers::pushback;
    query: 2_000, gateway::query;
    request_id: 10_000, headers::request_id;
    request_timeout: 10_000, deadlines::request_timeout;
    reservation: 10_000, machines::reservation::reservation;
    retry_after: 2_000, headers::retry_after;
    retry_budget: 500, machines::overload::retry_budget;
    revocations: 2_000, tokens::revocations;
    saga: 5_000, machines::saga::saga;
    signed_claims: 3_000, tokens::signed_claims;
    status_details: 2_000, gateway::status_details;
    traceparent: 5_000, headers::traceparent;
    upstream_url: 10_000, discovery::upstream_url;
}
