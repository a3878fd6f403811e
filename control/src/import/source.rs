//! Files that are imported, with bounds on all that a file can ask for.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes of all files together.
pub const MOST_BYTES: usize = 16 << 20;
/// The most lines, after everything that multiplies them.
pub const MOST_LINES: usize = 200_000;
/// The longest line, in bytes.
pub const LONGEST_LINE: usize = 64 << 10;
/// The most files.
pub const MOST_FILES: usize = 1_024;
/// How deep files may include each other.
pub const DEEPEST: usize = 16;

/// What cannot be read at all: nothing is written then.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Reads files until they are too many or too large.
#[derive(Debug, Default)]
pub struct Sources {
    bytes: usize,
    files: usize,
    /// The files that are open now, the outermost first: one of them must not be included again.
    open: Vec<PathBuf>,
}

impl Sources {
    /// Takes a text that was read elsewhere.
    ///
    /// # Errors
    /// It is too large, or one of its lines too long.
    pub fn admit(&mut self, name: &str, bytes: &[u8]) -> Result<String, Unreadable> {
        self.bytes += bytes.len();
        self.files += 1;
        if self.bytes > MOST_BYTES {
            return Err(Unreadable(format!("{name}: more than {} MiB in all", MOST_BYTES >> 20)));
        }
        if self.files > MOST_FILES {
            return Err(Unreadable(format!("{name}: more than {MOST_FILES} files")));
        }
        if bytes.contains(&0) {
            return Err(Unreadable(format!("{name}: is no text")));
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some(at) = text.lines().position(|line| line.len() > LONGEST_LINE) {
            return Err(Unreadable(format!("{name}:{}: longer than {} KiB", at + 1, LONGEST_LINE >> 10)));
        }
        Ok(text)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is too large.
    pub fn read(&mut self, path: &Path) -> Result<String, Unreadable> {
        let fail = |why: std::io::Error| Unreadable(format!("{}: cannot read it: {why}", path.display()));
        let file = File::open(path).map_err(fail)?;
        // A pipe or a device may never end; only so much of it is taken.
        let mut bytes = Vec::new();
        let room = MOST_BYTES.saturating_sub(self.bytes) + 1;
        file.take(u64::try_from(room).unwrap_or(u64::MAX)).read_to_end(&mut bytes).map_err(fail)?;
        self.admit(&path.display().to_string(), &bytes)
    }

    /// Notes that `path` is being read; why it must not be, when it is open already or too deep.
    pub fn enter(&mut self, path: &Path) -> Result<(), String> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.open.contains(&path) {
            return Err(format!("{} includes itself", path.display()));
        }
        if self.open.len() >= DEEPEST {
            return Err(format!("files include each other more than {DEEPEST} deep"));
        }
        self.open.push(path);
        Ok(())
    }

    /// Notes that the file entered last is done.
    pub fn leave(&mut self) {
        self.open.pop();
    }
}
