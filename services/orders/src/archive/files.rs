//! Files of the archive: lock, append, and replacement by renaming.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use time::Date;

use super::Error;

/// Mode of all files: readable and writable by their owner only.
const PRIVATE: u32 = 0o600;
const LOCK: &str = "lock";
const PREFIX: &str = "orders-";
const EXTENSION: &str = "ndjson";
/// Extension of a file that replaces another one. One that is left over from a crash is
/// overwritten.
const REPLACEMENT: &str = "new";

/// Adds the path to an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// Locks the directory. Returns `None` if another process has locked it.
pub(super) fn try_lock(directory: &Path) -> Result<Option<File>, Error> {
    let (path, file) = open_lock(directory)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// Locks the directory, after waiting for other processes.
pub(super) fn lock(directory: &Path) -> Result<File, Error> {
    let (path, file) = open_lock(directory)?;
    file.lock().map_err(at(&path))?;
    Ok(file)
}

fn open_lock(directory: &Path) -> Result<(PathBuf, File), Error> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE).open(&path).map_err(at(&path))?;
    Ok((path, file))
}

/// Appends `lines` to the file of `day` and syncs it, or leaves it as it was.
pub(super) fn append(directory: &Path, day: Date, lines: &[u8]) -> Result<(), Error> {
    let path = directory.join(format!("{PREFIX}{day}.{EXTENSION}"));
    let is_new = !path.exists();
    let appended = append_to(&path, lines);
    appended.and_then(|()| if is_new { sync_directory(directory) } else { Ok(()) }).map_err(at(&path))
}

fn append_to(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(PRIVATE).open(path)?;
    let end = end_of_lines(&mut file)?;
    // A crash left a part of a line, whose order still exists.
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    let written = file.write_all(lines).and_then(|()| file.sync_all());
    if written.is_err() {
        // Best effort: the next append repeats it.
        let _ = file.set_len(end);
    }
    written
}

/// Returns the position after the last complete line.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(newline) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Replaces each line for which `replace` returns another one, and returns their number. A file is
/// replaced by renaming, so that a crash leaves the old or the new one.
pub(super) fn rewrite(directory: &Path, replace: impl Fn(&[u8]) -> serde_json::Result<Option<String>>) -> Result<u64, Error> {
    let mut changed = 0;
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && path.extension().is_some_and(|extension| extension == EXTENSION) {
            changed += rewrite_file(&path, &replace)?;
        }
    }
    if changed > 0 {
        sync_directory(directory).map_err(at(directory))?;
    }
    Ok(changed)
}

fn rewrite_file(path: &Path, replace: impl Fn(&[u8]) -> serde_json::Result<Option<String>>) -> Result<u64, Error> {
    let replacement = path.with_extension(REPLACEMENT);
    let mut reader = BufReader::new(File::open(path).map_err(at(path))?);
    let new = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&replacement).map_err(at(&replacement))?;
    let mut writer = BufWriter::new(new);
    let (mut changed, mut number, mut line) = (0, 0, Vec::new());
    loop {
        line.clear();
        reader.read_until(b'\n', &mut line).map_err(at(path))?;
        // The part of a line at the end is left over from a crash, and its order still exists.
        if line.pop() != Some(b'\n') {
            break;
        }
        number += 1;
        let replaced = replace(&line).map_err(|source| Error::Corrupt { path: path.to_owned(), line: number, source })?;
        changed += u64::from(replaced.is_some());
        let text = replaced.as_ref().map_or(&line[..], |replaced| replaced.as_bytes());
        writer.write_all(text).and_then(|()| writer.write_all(b"\n")).map_err(at(&replacement))?;
    }
    let replaced = writer.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    let replaced = replaced.and_then(|()| if changed > 0 { fs::rename(&replacement, path) } else { fs::remove_file(&replacement) });
    replaced.map_err(at(&replacement))?;
    Ok(changed)
}

/// Makes created and renamed files survive a power failure.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
