//! The state file: what was set over the API, kept so that a crash at any point leaves the old or the new whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::model::Document;

/// How many earlier versions are kept: `state.json.1` (the last before the present one) to `state.json.5`.
pub const EARLIER_VERSIONS: u32 = 5;

/// Why the state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{call} {}: {cause}", path.display())]
    Io {
        /// What was tried: `write`, `sync`, `rename` ...
        call: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is there and is not a whole document.
    #[error("{} is not a whole state document: {cause}; earlier versions are {}.1 to .5", path.display(), path.display())]
    Corrupt {
        /// The state file.
        path: PathBuf,
        /// What the parser said, with line and column.
        cause: serde_json::Error,
    },
}

/// The points between which a crash may fall, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Before anything is touched.
    Start,
    /// Half of the new document is in the temporary file.
    HalfWritten,
    /// All of it is, perhaps only in memory.
    Written,
    /// All of it is on the disk.
    Synced,
    /// Earlier versions have moved up by one.
    Shifted,
    /// The present version also stands as `.1`.
    Kept,
    /// The new version has taken the file's name.
    Renamed,
}

/// The state file and its earlier versions.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The store at `path`; makes the folder it lies in when that is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let store = Self { path: path.into() };
        fs::create_dir_all(store.folder()).map_err(|cause| StoreError::Io {
            call: "make folder",
            path: store.folder().to_owned(),
            cause,
        })?;
        Ok(store)
    }

    /// The state file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the document; `None` when there is no state file yet.
    pub fn load(&self) -> Result<Option<Document>, StoreError> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|cause| StoreError::Corrupt { path: self.path.clone(), cause }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(StoreError::Io { call: "read", path: self.path.clone(), cause }),
        }
    }

    /// Replaces the document: when this returns without an error, it is on the disk.
    ///
    /// Blocks for two fsyncs: not for a thread that must not wait.
    pub fn write(&self, document: &Document) -> Result<(), StoreError> {
        self.write_in_steps(document, &mut |_| Ok(()))
    }

    fn write_in_steps(&self, document: &Document, reached: &mut dyn FnMut(Step) -> io::Result<()>) -> Result<(), StoreError> {
        let fail = |call: &'static str, path: &Path| {
            let path = path.to_owned();
            move |cause: io::Error| StoreError::Io { call, path, cause }
        };
        let fresh = self.numbered("new");
        let mut bytes = serde_json::to_vec_pretty(document).map_err(io::Error::from).map_err(fail("write", &fresh))?;
        bytes.push(b'\n');
        let mut at = |step| reached(step).map_err(fail("write", &self.path));

        at(Step::Start)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&fresh).map_err(fail("create", &fresh))?;
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(half).map_err(fail("write", &fresh))?;
        at(Step::HalfWritten)?;
        file.write_all(rest).map_err(fail("write", &fresh))?;
        at(Step::Written)?;
        file.sync_all().map_err(fail("sync", &fresh))?;
        at(Step::Synced)?;
        self.shift().map_err(fail("rename", &self.path))?;
        at(Step::Shifted)?;
        self.keep_present().map_err(fail("link", &self.path))?;
        at(Step::Kept)?;
        fs::rename(&fresh, &self.path).map_err(fail("rename", &fresh))?;
        at(Step::Renamed)?;
        File::open(self.folder()).and_then(|folder| folder.sync_all()).map_err(fail("sync", self.folder()))
    }

    /// Moves `.4` to `.5`, then `.3` to `.4`, and so on, so that `.1` is free for the present version.
    ///
    /// If a crash has left it free, or already with the present version, nothing moves: no version is lost to crashes.
    fn shift(&self) -> io::Result<()> {
        match fs::metadata(self.numbered(1)) {
            Ok(kept) if !self.is_present(&kept) => {}
            _ => return Ok(()),
        }
        for number in (1..EARLIER_VERSIONS).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the present file a second name, so that its own name is never without a file; copies where links do not exist.
    fn keep_present(&self) -> io::Result<()> {
        let kept = self.numbered(1);
        match fs::hard_link(&self.path, &kept) {
            Ok(()) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) => Ok(()),
            Err(_) => fs::copy(&self.path, &kept).map(|_| ()),
        }
    }

    fn is_present(&self, other: &fs::Metadata) -> bool {
        fs::metadata(&self.path).is_ok_and(|present| (present.dev(), present.ino()) == (other.dev(), other.ino()))
    }

    fn numbered(&self, suffix: impl std::fmt::Display) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{suffix}"));
        name.into()
    }

    fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }
}

#[cfg(test)]
mod tests;
