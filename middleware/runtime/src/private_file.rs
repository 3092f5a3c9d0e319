//! Files of the process that only its user may access.

use std::{
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Mode of a private file: readable and writable by its owner only.
const PRIVATE: u32 = 0o600;
/// Suffixes of the files that SQLite keeps beside a database. It creates them with the permissions
/// of the database.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates the file of a SQLite database if it is missing, and makes it and the files beside it
/// private. A failure is only logged: opening the database reports what matters.
pub fn prepare_database(path: &Path) {
    // SQLite has other names for databases in memory.
    if path.as_os_str().is_empty() || path.to_string_lossy().starts_with([':', '?']) || path.starts_with("file:") {
        return;
    }
    let created = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path).map(drop);
    let side_files = SIDE_FILES.iter().map(|suffix| with_suffix(path, suffix));
    let files: Vec<_> = std::iter::once(path.to_owned()).chain(side_files).collect();
    let private = created.and_then(|()| files.iter().filter(|path| path.exists()).try_for_each(|path| make_private(path)));
    if let Err(error) = private {
        tracing::warn!(path = %path.display(), error = &error as &dyn std::error::Error, "cannot make the database file private");
    }
}

/// Removes the permissions of group and others.
fn make_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o777 == mode & 0o700 { Ok(()) } else { fs::set_permissions(path, Permissions::from_mode(mode & 0o700)) }
}

/// Returns `path` with `suffix` at its end.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_and_its_side_files_become_private() {
        let directory = std::env::temp_dir().join(format!("palisade-private-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&directory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (new, old) = (directory.join("new.db"), directory.join("old.db"));
        fs::write(&old, "rows").unwrap();
        let wal = with_suffix(&old, "-wal");
        fs::write(&wal, "log").unwrap();
        for path in [&old, &wal] {
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        for path in [&new, &old] {
            prepare_database(path);
        }
        assert_eq!([&new, &old, &wal].map(|path| mode(path)), [PRIVATE; 3]);
        assert_eq!(fs::read(&old).unwrap(), b"rows");
        prepare_database(&directory.join("missing/new.db"));
        prepare_database(Path::new(":memory:"));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
        fs::remove_dir_all(directory).unwrap();
    }
}
