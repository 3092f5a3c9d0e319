//! Environment variables.

use std::ffi::OsString;

use palisade_resilience::setting::Invalid;

use super::{schema::Keys, tree::Tree};

/// Merges the variables with `prefix`. Returns the warnings about ignored ones.
pub(super) fn merge(
    environment: impl IntoIterator<Item = (String, OsString)>,
    prefix: &str,
    keys: &Keys,
    tree: &mut Tree,
    invalid: &mut Vec<Invalid>,
) -> Vec<String> {
    tree.next_layer();
    let mut of_kubernetes = Vec::new();
    let mut variables: Vec<_> = environment.into_iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    variables.sort();
    for (name, value) in variables {
        let path = name[prefix.len()..].split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>().join(".");
        let Ok(text) = value.into_string() else {
            invalid.push(Invalid::new(path, format!("must be UTF-8 ({name})")));
            continue;
        };
        match keys.find(&path) {
            // `PALISADE_LISTEN_PORT` and the like never clash with a key, but a short key could.
            Some(key) if !is_service_address(&name, &text) => tree.set_text(key, &path, &text, &name, invalid),
            _ if is_of_kubernetes(&name, &text) => of_kubernetes.push(name),
            _ => invalid.push(Invalid::new(path, format!("unknown setting ({name})"))),
        }
    }
    if of_kubernetes.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "ignoring {}: a Kubernetes service whose name begins with the prefix {prefix} sets them (enableServiceLinks: false in the pod)",
        of_kubernetes.join(", ")
    )]
}

/// Whether Kubernetes sets the variable for a service
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_protocol = |text: &str| ["TCP", "UDP", "SCTP"].contains(&text);
    let words: Vec<&str> = name.split('_').collect();
    match words[..] {
        [.., "SERVICE", "HOST"] => value.parse::<std::net::IpAddr>().is_ok(),
        [.., "SERVICE", "PORT"] => is_port(value),
        [.., "PORT", number, protocol] if is_port(number) && is_protocol(protocol) => is_service_address(name, value),
        [.., "PORT", number, protocol, "PROTO" | "PORT" | "ADDR"] if is_port(number) && is_protocol(protocol) => true,
        [.., "PORT"] => is_service_address(name, value),
        // The named port of a service.
        _ => name.contains("_SERVICE_PORT_") && is_port(value),
    }
}

/// Whether the value is the address of a Kubernetes service, `tcp://10.0.0.1:80`.
fn is_service_address(name: &str, value: &str) -> bool {
    name.contains("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}
