//! A folder to measure in: on a real file system that takes direct I/O, removed afterwards.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::os;

/// A temporary folder under `wanted`, or else under `target/`, or else under the temporary
/// folder of the system: the first that lies on a real file system.
pub fn temporary_folder(wanted: Option<&Path>) -> io::Result<TempDir> {
    if let Some(wanted) = wanted {
        fs::create_dir_all(wanted)?;
        let folder = folder_in(wanted)?;
        check(folder.path())?;
        return Ok(folder);
    }
    let mut refusals = String::new();
    for candidate in [PathBuf::from("target"), PathBuf::from("."), std::env::temp_dir()] {
        let attempt =
            folder_in(&candidate).and_then(|folder| check(folder.path()).map(|()| folder));
        match attempt {
            Ok(folder) => return Ok(folder),
            Err(error) => refusals.push_str(&format!(" {}: {error}.", candidate.display())),
        }
    }
    Err(io::Error::other(format!(
        "found no folder on a disk that takes direct I/O; give one with --dir.{refusals}"
    )))
}

fn folder_in(parent: &Path) -> io::Result<TempDir> {
    // Absolute: a broker may be told of it from another working directory.
    tempfile::Builder::new().prefix("corelog-bench-").tempdir_in(parent.canonicalize()?)
}

fn check(folder: &Path) -> io::Result<()> {
    if os::is_in_memory(folder)? {
        return Err(io::Error::other("lies in memory (tmpfs), where a flush means nothing"));
    }
    probe_file(folder).map(drop)
}

/// Writes a file of one block. The first file that an executor opens on a device decides whether
/// it polls for completions, and an empty one gets that wrong: open this one first.
pub fn probe_file(folder: &Path) -> io::Result<PathBuf> {
    let path = folder.join("probe");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .map_err(|error| io::Error::new(error.kind(), format!("takes no direct I/O ({error})")))?;
    Ok(path)
}
