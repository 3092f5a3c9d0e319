//! Parsed `compose/compose.yaml`: merge keys resolved, variables at their defaults.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use palisade_tests::files::{repository, text, texts, yaml};
use serde_json::Value;

/// Container of the compose file.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) settings: Value,
}

/// Published host port and its container port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) address: String,
    pub(crate) published: u16,
    pub(crate) inside: u16,
}

/// Mounted directory or volume.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

impl Mount {
    /// Returns whether the source is in the repository, not a volume.
    pub(crate) fn is_in_repository(&self) -> bool {
        self.source.starts_with('.')
    }

    /// Returns the path of the source in the repository.
    pub(crate) fn path(&self) -> PathBuf {
        repository().join("compose").join(&self.source)
    }
}

impl Service {
    /// Returns whether the container keeps running, unlike an init container.
    pub(crate) fn keeps_running(&self) -> bool {
        self.settings.get("restart").is_some()
    }

    pub(crate) fn ports(&self) -> Vec<Port> {
        let ports = texts(&self.settings["ports"]);
        ports
            .iter()
            .map(|port| port.split(':').collect::<Vec<_>>())
            .map(|parts| match parts[..] {
                [address, published, inside] => {
                    Port { address: address.to_owned(), published: published.parse().unwrap(), inside: inside.parse().unwrap() }
                }
                _ => panic!("{}: a port without an address is published on all interfaces: {parts:?}", self.name),
            })
            .collect()
    }

    /// Returns whether other containers reach this port: it is published or exposed.
    pub(crate) fn listens(&self, port: &str) -> bool {
        let exposed = texts(&self.settings["expose"]).iter().any(|exposed| exposed == port);
        exposed || self.ports().iter().any(|open| open.inside.to_string() == port)
    }

    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let mounts = texts(&self.settings["volumes"]);
        mounts
            .iter()
            .map(|mount| mount.split(':').collect::<Vec<_>>())
            .map(|parts| Mount { source: parts[0].to_owned(), target: parts[1].to_owned(), read_only: parts.get(2) == Some(&"ro") })
            .collect()
    }

    /// Maps a path in the container to the repository.
    pub(crate) fn repository_path(&self, inside: &str) -> PathBuf {
        let mounts = self.mounts();
        let place = mounts.iter().filter(|mount| mount.is_in_repository()).find_map(|mount| {
            let rest = inside.strip_prefix(&mount.target)?;
            Some(mount.path().join(rest.trim_start_matches('/')))
        });
        place.unwrap_or_else(|| panic!("{} mounts no repository file at {inside}", self.name))
    }

    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let variables = self.settings["environment"].as_object().into_iter().flatten();
        variables.map(|(name, value)| (name.clone(), expand_variables(&text(value)))).collect()
    }

    pub(crate) fn memory(&self) -> u64 {
        mebibytes(self.settings["mem_limit"].as_str().unwrap_or_else(|| panic!("{} has no memory limit", self.name)))
    }
}

/// Returns all containers.
pub(crate) fn services() -> Vec<Service> {
    let file = file();
    let services = file["services"].as_object().unwrap();
    services.iter().map(|(name, settings)| Service { name: name.clone(), settings: settings.clone() }).collect()
}

/// Returns the container of this name.
pub(crate) fn service(name: &str) -> Service {
    services().into_iter().find(|service| service.name == name).unwrap_or_else(|| panic!("no service {name}"))
}

/// Returns all published host ports.
pub(crate) fn published() -> BTreeSet<u16> {
    services().iter().flat_map(Service::ports).map(|port| port.published).collect()
}

/// Reads `compose/compose.yaml`.
pub(crate) fn file() -> Value {
    yaml(&repository().join("compose/compose.yaml"))
}

/// Converts `200m`, `200MiB` or `1g` to MiB.
pub(crate) fn mebibytes(size: &str) -> u64 {
    let digits = size.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor = match &size[digits.len()..] {
        "m" | "MiB" => 1,
        "g" | "GiB" => 1_024,
        unit => panic!("{size}: unknown unit {unit}"),
    };
    digits.parse::<u64>().unwrap() * factor
}

/// Replaces `${NAME:-default}` by its default and `$$` by `$`.
fn expand_variables(text: &str) -> String {
    let mut parts = text.split("${");
    let mut expanded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap();
        expanded += variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default")).1;
        expanded += rest;
    }
    expanded.replace("$$", "$")
}
