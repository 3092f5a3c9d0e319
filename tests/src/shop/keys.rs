//! Who believes whom in a shop of processes.

use std::{fs, path::Path};

use crate::{jwt, process::output_of};

/// One key pair for each program that calls another, and the public halves for those it calls.
pub(super) fn make_keys(directory: &Path) {
    for service in ["gateway", "orders"] {
        let key = directory.join(format!("{service}.pem"));
        let key = key.to_str().expect("a temporary path is UTF-8");
        output_of("palisade", &["keygen", "--out", key]);
        let public = output_of("palisade", &["jwks", key]);
        fs::write(directory.join(format!("{service}.jwks")), public).expect("a temporary directory takes files");
    }
}

/// Whom a program trusts: the gateway the tests' own issuer, the services each other's internal tokens.
pub(super) fn configure_trust(service: &str, directory: &Path) -> Vec<(String, String)> {
    let setting =
        |issuer: &str, key: &str, value: &str| (format!("PALISADE_AUTH__ISSUERS__{issuer}__{key}").to_uppercase(), value.to_owned());
    let caller = |name: &str| {
        let keys = directory.join(format!("{name}.jwks"));
        [setting(name, "jwks_file", keys.to_str().expect("a temporary path is UTF-8")), setting(name, "internal", "true")]
    };
    match service {
        "gateway" => vec![setting("tests", "issuer", jwt::ISSUER), setting("tests", "secret", jwt::SECRET)],
        "orders" => caller("gateway").into(),
        _ => [caller("gateway"), caller("orders")].concat(),
    }
}
