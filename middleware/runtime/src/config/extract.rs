//! From merged values to the typed configuration, with all errors at once.

use palisade_resilience::setting::Invalid;
use serde::de::DeserializeOwned;

use super::{Validate, schema::Keys, tree::Tree};

/// Builds the configuration, checks it, and adds all errors to `invalid`. With `full` also loads
/// what the start loads.
///
/// A rule may hide others: a key that breaks one is reset to its default, and the rest is checked
/// again.
pub(super) fn extract<T: DeserializeOwned + Validate>(tree: &mut Tree, keys: &Keys, invalid: &mut Vec<Invalid>, full: bool) -> Option<T> {
    let mut first = None;
    loop {
        let config: T = deserialize(tree, keys, invalid)?;
        let mut found = config.validate();
        if full {
            found.extend(config.check());
        }
        found.retain(|violation| invalid.iter().all(|known| known.key != violation.key));
        if first.is_none() && found.is_empty() {
            first = Some(config);
        }
        let mut progress = false;
        for violation in found {
            let source = tree.source(&violation.key).map_or_else(String::new, |source| format!(" ({source})"));
            progress |= tree.remove(&violation.key);
            if invalid.iter().all(|known| known.key != violation.key) {
                invalid.push(Invalid::new(violation.key, format!("{}{source}", violation.rule)));
            }
        }
        if !progress {
            return first;
        }
    }
}

/// Deserializes the values. A value of the wrong form is reported and reset to its default.
fn deserialize<T: DeserializeOwned>(tree: &mut Tree, keys: &Keys, invalid: &mut Vec<Invalid>) -> Option<T> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, T>(tree.value()) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path = error.path().to_string();
        let culprits = culprits::<T>(tree, &path);
        if !culprits.is_empty() {
            for key in culprits {
                let source = tree.source(&key).unwrap_or("configuration").to_owned();
                tree.remove(&key);
                invalid.push(Invalid::new(key, format!("is out of range ({source})")));
            }
            continue;
        }
        let key = tree.set_key(&path).unwrap_or(&path).to_owned();
        let source = tree.source(&key).unwrap_or("configuration").to_owned();
        // The error of serde may quote the value.
        let is_secret = keys.find(&key).is_some_and(|key| key.is_secret);
        let rule = if is_secret { "is invalid".to_owned() } else { error.inner().to_string() };
        invalid.push(Invalid::new(key.clone(), format!("{rule} ({source})")));
        if !tree.remove(&key) {
            return None;
        }
    }
}

/// Returns the keys within the section `path` that are invalid on their own. A section with
/// defaults of its own reports its errors as a whole.
fn culprits<T: DeserializeOwned>(tree: &Tree, path: &str) -> Vec<String> {
    let keys = tree.set_keys_within(path);
    let is_invalid = |key: &&String| {
        let mut alone = tree.clone();
        keys.iter().filter(|other| other != key).for_each(|other| {
            alone.remove(other);
        });
        serde_path_to_error::deserialize::<_, T>(alone.value()).is_err_and(|error| error.path().to_string() == path)
    };
    keys.iter().filter(is_invalid).cloned().collect()
}
