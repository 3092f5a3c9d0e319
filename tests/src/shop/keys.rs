//! Keys and issuer settings of a shop with separate processes.

use std::{fs, path::Path};

use crate::{jwt, process::output_of};

/// Creates one key pair for each program that calls another, and the JWKS for the called programs.
pub(super) fn generate_keys(directory: &Path) {
    for service in ["gateway", "orders"] {
        let key = directory.join(format!("{service}.pem"));
        let key = key.to_str().expect("a temporary path is UTF-8");
        output_of("palisade", &["keygen", "--out", key]);
        let public = output_of("palisade", &["jwks", key]);
        fs::write(directory.join(format!("{service}.jwks")), public).expect("a temporary directory takes files");
    }
}

/// Returns the issuer settings of a program: the gateway trusts the tests' issuer, the services
/// trust their callers' internal tokens.
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
