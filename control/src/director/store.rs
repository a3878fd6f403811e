//! The state file and its history: what was set over the API, kept so that a crash at any point leaves the old or the new whole.
//!
//! Every version is written to the folder `state.json.history` first, and then to `state.json.new`, which takes the place of
//! `state.json`. They are two files and not one with two names, so that whoever edits `state.json` leaves the history as it is.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::disk::{Disk, FileSystem};
use crate::model::moment::utc;
use crate::model::{Change, Document};

/// How many versions the history has.
pub const VERSIONS: usize = 50;

/// Why the state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{call} {}: {cause}", path.display())]
    Io {
        /// What was tried: `write`, `rename` ...
        call: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is there and is not a whole document.
    #[error("{} is not a whole state document: {cause}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the parser said, with line and column.
        cause: serde_json::Error,
    },
}

/// What a state file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Version {
    /// The configuration.
    pub document: Document,
    /// The changes that led to it, oldest first: the last [`VERSIONS`].
    pub history: Vec<Change>,
    /// What of baton.toml can change while the director runs, as it was when it was last applied: the next reload applies what is
    /// different from it.
    pub file: Option<Document>,
}

impl Version {
    /// What a director begins with that has no state file: what baton.toml says, and a history that tells so.
    pub fn beginning(document: Document, what: &str) -> Self {
        let change = Change { revision: document.revision, at: utc(SystemTime::now()), by: "baton.toml".to_owned(), what: what.to_owned() };
        Self { history: vec![change], file: Some(document.clone()), document }
    }

    /// The same as a new revision.
    fn put_back(&self, revision: u64) -> Self {
        let what = format!("state file of revision {} put back", self.document.revision);
        let mut version = self.clone();
        version.document.revision = revision;
        version.history.push(Change { revision, at: utc(SystemTime::now()), by: "baton".to_owned(), what });
        version
    }

    /// The bytes of the state file: the document's own fields, `history` and `file`.
    fn render(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(flatten)]
            document: &'a Document,
            history: &'a [Change],
            #[serde(skip_serializing_if = "Option::is_none")]
            file: Option<&'a Document>,
        }
        let mut bytes = serde_json::to_vec_pretty(&Written { document: &self.document, history: &self.history, file: self.file.as_ref() })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads the bytes of a state file, or of a document alone; the error says where they are no such thing.
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let mut value: Value = serde_json::from_slice(bytes)?;
        let mut take = |key: &str| value.as_object_mut().and_then(|fields| fields.remove(key));
        let (history, file) = (take("history"), take("file"));
        Ok(Self {
            document: serde_json::from_value(value)?,
            history: history.map_or_else(|| Ok(Vec::new()), serde_json::from_value)?,
            file: file.map(serde_json::from_value).transpose()?,
        })
    }
}

/// The state file and its history.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    disk: Box<dyn Disk>,
}

impl Store {
    /// The store at `path`; makes the folder it lies in when that is missing.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Self::on(Box::new(FileSystem), path.into())
    }

    fn on(disk: Box<dyn Disk>, path: PathBuf) -> Result<Self, StoreError> {
        let store = Self { path, disk };
        let history = store.history();
        store.disk.make_folder(&history).map_err(fail("make folder", &history))?;
        Ok(store)
    }

    /// The state file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the versions.
    pub fn history(&self) -> PathBuf {
        self.beside("history")
    }

    /// Reads the present version; `None` when there is no state file yet.
    pub fn load(&self) -> Result<Option<Version>, StoreError> {
        self.load_from(&self.path)
    }

    /// Reads the version that led to `revision`; `None` when it was not kept.
    pub fn read(&self, revision: u64) -> Result<Option<Version>, StoreError> {
        self.load_from(&self.numbered(revision))
    }

    fn load_from(&self, path: &Path) -> Result<Option<Version>, StoreError> {
        match self.disk.read(path) {
            Ok(bytes) => Version::parse(&bytes).map(Some).map_err(|cause| StoreError::Corrupt { path: path.to_owned(), cause }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(fail("read", path)(cause)),
        }
    }

    /// The revisions whose versions were kept, in their order.
    pub fn kept(&self) -> Vec<u64> {
        let names = self.disk.list(&self.history()).unwrap_or_default();
        let mut kept: Vec<u64> = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
        kept.sort_unstable();
        kept
    }

    /// Makes the history and the version that the director begins with fit each other: it is kept, and one that a crash kept from
    /// coming into force is not. One that was put back by hand, behind others, becomes a revision after them.
    pub fn begin_with(&self, version: &mut Version) -> Result<(), StoreError> {
        let revision = version.document.revision;
        let later: Vec<u64> = self.kept().into_iter().filter(|kept| *kept > revision).collect();
        match later.as_slice() {
            [] => {}
            [unfinished] => self.remove(&self.numbered(*unfinished))?,
            [.., newest] => {
                let same = |kept: &Version| Document { revision, ..kept.document.clone() } == version.document;
                *version = match self.read(*newest)? {
                    Some(kept) if same(&kept) => kept,
                    _ => version.put_back(newest + 1),
                };
            }
        }
        let revision = version.document.revision;
        let known = self.read(revision).is_ok_and(|kept| kept.is_some_and(|kept| kept.document == version.document));
        if known {
            return Ok(());
        }
        self.keep(version)
    }

    /// Replaces the present version: when this returns without an error, the new one is on the disk and in the history.
    ///
    /// Blocks for four syncs: not for a thread that must not wait.
    pub fn write(&self, version: &Version) -> Result<(), StoreError> {
        self.keep(version)?;
        let fresh = self.beside("new");
        self.put(&fresh, version)?;
        self.disk.rename(&fresh, &self.path).map_err(fail("rename", &fresh))?;
        self.disk.sync_folder(self.folder()).map_err(fail("sync", self.folder()))?;
        let kept = self.kept();
        for old in kept.iter().take(kept.len().saturating_sub(VERSIONS)) {
            self.remove(&self.numbered(*old))?;
        }
        Ok(())
    }

    /// Puts a version into the history.
    fn keep(&self, version: &Version) -> Result<(), StoreError> {
        self.put(&self.numbered(version.document.revision), version)?;
        let history = self.history();
        self.disk.sync_folder(&history).map_err(fail("sync", &history))
    }

    /// Writes a version to a file of its own; one that a crash left there goes.
    fn put(&self, path: &Path, version: &Version) -> Result<(), StoreError> {
        let bytes = version.render().map_err(io::Error::from).map_err(fail("write", path))?;
        self.remove(path)?;
        self.disk.write(path, &bytes).map_err(fail("write", path))
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fail("remove", path)(error)),
            _ => Ok(()),
        }
    }

    fn numbered(&self, revision: u64) -> PathBuf {
        self.history().join(format!("{revision}.json"))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
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

fn fail(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |cause| StoreError::Io { call, path: path.to_owned(), cause }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;
