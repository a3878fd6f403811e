//! The audit log: a line of JSON for every write, done or refused.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::who::Who;
use crate::model::moment::utc_milliseconds;

/// A write, as the log has it.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'e> {
    time: String,
    pub(super) who: &'e Who,
    pub(super) from: &'e str,
    pub(super) method: &'e str,
    pub(super) path: &'e str,
    /// The status of the answer.
    pub(super) status: u16,
    /// The revision of the configuration after it; not where nothing was even tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<u64>,
}

impl<'e> Entry<'e> {
    /// An entry of this moment.
    pub(super) fn now(who: &'e Who, from: &'e str, method: &'e str, path: &'e str, status: u16, revision: Option<u64>) -> Self {
        Self { time: utc_milliseconds(SystemTime::now()), who, from, method, path, status, revision }
    }
}

/// Where the lines go: to a file, or with the log.
#[derive(Debug)]
pub(super) struct Audit {
    path: Option<PathBuf>,
    file: Mutex<Option<File>>,
}

impl Audit {
    /// Opens the file; without one, lines go with the log.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(append).transpose()?;
        Ok(Self { path: path.map(Path::to_owned), file: Mutex::new(file) })
    }

    /// Opens the file anew, after it was moved away. What cannot be opened leaves the old one in use.
    pub(super) fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let fresh = append(path)?;
            *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        }
        Ok(())
    }

    /// Writes a line. A line that the file does not take goes with the log, so that it is not lost.
    pub(super) fn note(&self, entry: &Entry<'_>) {
        let line = serde_json::to_string(entry).unwrap_or_default();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_mut() else {
            tracing::info!(target: "audit", "{line}");
            return;
        };
        // One write a line, so that lines of two writers never mix.
        if let Err(why) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::error!(target: "audit", "the audit log cannot be written ({why}): {line}");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_the_file_and_to_a_new_one_after_it_was_moved() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let audit = Audit::open(Some(&path)).unwrap();
        let who = Who::Token { name: "chief".to_owned() };
        let note = |path| audit.note(&Entry::now(&who, "192.0.2.7:5000", "PUT", path, 200, Some(7)));
        note("/one");
        std::fs::rename(&path, &moved).unwrap();
        note("/two\n\"x\"");
        audit.reopen().unwrap();
        note("/three");
        let lines = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((lines(&moved).lines().count(), lines(&path).lines().count()), (2, 1));
        let mut entry: serde_json::Value = serde_json::from_str(lines(&moved).lines().nth(1).unwrap()).unwrap();
        assert!(entry["time"].take().as_str().unwrap().ends_with('Z'));
        assert_eq!(
            entry,
            serde_json::json!({
                "time": null, "who": {"kind": "token", "name": "chief"}, "from": "192.0.2.7:5000", "method": "PUT",
                "path": "/two\n\"x\"", "status": 200, "revision": 7,
            })
        );
        assert!(Audit::open(Some(Path::new("/nonexistent/audit"))).is_err());
    }
}
