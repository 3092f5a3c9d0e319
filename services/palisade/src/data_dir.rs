//! Data directory of the embedded stores and the development key.

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
/// File mode of a private key: readable by the owner only.
const PRIVATE: u32 = 0o600;

/// Returns the default directory. Subcommands use the same default as the server.
pub(crate) fn default() -> PathBuf {
    std::env::var_os("PALISADE_DATA_DIR").map_or_else(|| PathBuf::from("palisade-data"), PathBuf::from)
}

/// Returns the development key in `data_dir` and generates it on first use.
pub(crate) fn development_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    fs::create_dir_all(data_dir).with_context(|| format!("data_dir: cannot create {}", data_dir.display()))?;
    let path = data_dir.join(KEY_FILE);
    match create_key_file(&path, &SigningKey::generate_pem()?) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(|| format!("cannot write {}", path.display())),
        _ => read_key(&path),
    }
}

/// Reads a private key.
pub(crate) fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let pem = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    SigningKey::from_pem(&pem.into()).with_context(|| format!("{} is not an Ed25519 key in PEM", path.display()))
}

/// Writes a private key to a new file. If two processes start at once, both use the same key.
pub(crate) fn create_key_file(path: &Path, pem: &SecretString) -> std::io::Result<()> {
    if path.exists() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    // Atomic: writes a temporary file and links it to its name, which fails if another process was
    // faster.
    let temporary: PathBuf = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&temporary)?;
    file.write_all(pem.expose_secret().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked
}
