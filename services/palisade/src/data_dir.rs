//! The directory of the embedded stores and the development key.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use palisade_middleware::auth::keys::SigningKey;
use secrecy::{ExposeSecret, SecretString};

const KEY_FILE: &str = "dev-signing-key.pem";
/// Nobody but the owner reads a private key.
const PRIVATE: u32 = 0o600;

/// Where it is unless a flag or a file says otherwise: the tools look where the server does.
pub(crate) fn default() -> PathBuf {
    std::env::var_os("PALISADE_DATA_DIR").map_or_else(|| PathBuf::from("palisade-data"), PathBuf::from)
}

/// The development key in `data_dir`, made when it is first needed.
pub(crate) fn development_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    fs::create_dir_all(data_dir).with_context(|| format!("data_dir: {} cannot be made", data_dir.display()))?;
    let path = data_dir.join(KEY_FILE);
    match create_key_file(&path, &SigningKey::generate_pem()?) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("{} cannot be written", path.display()))
        }
        _ => read_key(&path),
    }
}

/// Reads a private key.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let pem = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    SigningKey::from_pem(&pem.into()).with_context(|| format!("{} is not an Ed25519 key in PEM", path.display()))
}

/// Writes a private key to a file that is not there yet. Two processes that start at once agree on one key.
pub(crate) fn create_key_file(path: &Path, pem: &SecretString) -> std::io::Result<()> {
    if path.exists() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    // Whole or not at all: written beside, then linked to its name, which fails if another was faster.
    let temporary: PathBuf = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&temporary)?;
    file.write_all(pem.expose_secret().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked
}
