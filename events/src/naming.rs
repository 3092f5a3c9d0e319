//! Names of Palisade in everything that leaves its services, the same in all of them: a service
//! trusts the error details of the others by their domain.

use palisade_middleware::naming::Naming;

/// Names that each service installs first.
pub const NAMING: Naming = Naming {
    metric_prefix: "palisade",
    error_domain: "palisade",
    problem_base_uri: "/problems/",
    realm: "palisade",
    environment_prefix: "PALISADE_",
};
