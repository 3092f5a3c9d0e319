//! Data directory of the embedded stores and the development key.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use palisade_middleware::{auth::keys::SigningKey, setting::Invalid};
use secrecy::{ExposeSecret, SecretString};

/// `iss` of tokens signed by the development key.
pub(crate) const DEV_ISSUER: &str = "palisade-dev";
const KEY_FILE: &str = "dev-signing-key.pem";
/// File mode of a private key: readable by the owner only.
const PRIVATE: u32 = 0o600;
/// Mode of the data directory: accessible to the owner only.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Returns the default directory. Subcommands use the same default as the server.
pub(crate) fn default() -> PathBuf {
    std::env::var_os("PALISADE_DATA_DIR").map_or_else(|| PathBuf::from("palisade-data"), PathBuf::from)
}

/// Checks an existing data directory and its development key. Creates nothing.
pub(crate) fn check(data_dir: &Path) -> Result<(), Invalid> {
    if data_dir.exists() && !data_dir.is_dir() {
        return Err(Invalid::new("data_dir", format!("{} is not a directory", data_dir.display())));
    }
    let key = data_dir.join(KEY_FILE);
    if key.exists() {
        read_key(&key).map_err(|error| Invalid::new("data_dir", format!("{error:#}")))?;
    }
    Ok(())
}

/// Returns the development key in `data_dir` and generates it on first use.
pub(crate) fn development_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(data_dir)
        .and_then(|()| make_private(data_dir))
        .with_context(|| format!("data_dir: cannot create {}", data_dir.display()))?;
    let path = data_dir.join(KEY_FILE);
    match create_key_file(&path, &SigningKey::generate_pem()?) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(|| format!("cannot write {}", path.display())),
        _ => read_key(&path),
    }
}

/// Removes the permissions of group and others from an existing directory.
fn make_private(data_dir: &Path) -> std::io::Result<()> {
    let mode = fs::metadata(data_dir)?.permissions().mode();
    if mode & 0o777 == mode & 0o700 { Ok(()) } else { fs::set_permissions(data_dir, Permissions::from_mode(PRIVATE_DIRECTORY)) }
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
