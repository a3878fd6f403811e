//! Per-interface sysctls under `/proc/sys/net`, with what they were before.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::error::KernelError;

/// A kernel setting of one interface: the file under `/proc/sys/net` and its value.
pub(super) type Setting<'a> = (&'a str, &'a str);

/// The kernel's settings, and the values that were found when they were first changed here.
///
/// `/proc/sys/net` is that of the calling thread's network namespace, whoever mounted `/proc`.
#[derive(Debug)]
pub(super) struct Sysctls {
    root: PathBuf,
    before: Vec<(PathBuf, String)>,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::at("/proc/sys/net")
    }
}

impl Sysctls {
    /// Settings below another folder, for tests.
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), before: Vec::new() }
    }

    /// Whether the kernel has this folder or file, such as `ipv6/conf/lan`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// What a setting is now, without the newline.
    pub(super) fn get(&self, name: &str) -> Result<String, KernelError> {
        let path = self.root.join(name);
        fs::read_to_string(&path).map(|text| text.trim_end().to_owned()).map_err(|source| failed(&path, source))
    }

    /// Sets a value and remembers the one before, once per file. A value that is there already is not written, so a
    /// read-only `/proc/sys` that holds the right values will do.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), KernelError> {
        let now = self.get(name)?;
        if now == value {
            return Ok(());
        }
        let path = self.root.join(name);
        fs::write(&path, value).map_err(|source| failed(&path, source))?;
        if !self.before.iter().any(|(known, _)| *known == path) {
            self.before.push((path, now));
        }
        Ok(())
    }

    /// Sets each of `settings` below `folder`, in order.
    pub(super) fn set_all(&mut self, folder: &str, settings: &[Setting<'_>]) -> Result<(), KernelError> {
        settings.iter().try_for_each(|(name, value)| self.set(&format!("{folder}/{name}"), value))
    }

    /// Puts back what was found, last change first. A file that is gone with its interface is passed over.
    pub(super) fn restore(&mut self) {
        for (path, value) in self.before.drain(..).rev() {
            match fs::write(&path, &value) {
                Ok(()) => tracing::info!(path = %path.display(), value, "kernel setting restored"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), value, %error, "kernel setting could not be restored"),
            }
        }
    }

    /// Forgets what was found: the interface goes away with its settings.
    pub(super) fn forget(&mut self) {
        self.before.clear();
    }
}

impl Drop for Sysctls {
    fn drop(&mut self) {
        self.restore();
    }
}

fn failed(path: &Path, source: io::Error) -> KernelError {
    KernelError::Sysctl { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "0\n").unwrap();
        fs::write(folder.path().join("b"), "7\n").unwrap();
        folder
    }

    fn read(folder: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(folder.path().join(name)).unwrap().trim_end().to_owned()
    }

    #[test]
    fn values_set_twice_go_back_to_the_first_found() {
        let folder = folder();
        let mut settings = Sysctls::at(folder.path());
        settings.set("a", "1").unwrap();
        settings.set("a", "2").unwrap();
        assert_eq!(read(&folder, "a"), "2");
        settings.restore();
        assert_eq!(read(&folder, "a"), "0");
    }

    #[test]
    fn dropped_settings_are_restored() {
        let folder = folder();
        Sysctls::at(folder.path()).set_all(".", &[("a", "1"), ("b", "8")]).unwrap();
        assert_eq!((read(&folder, "a"), read(&folder, "b")), ("0".into(), "7".into()));
    }

    #[test]
    fn forgotten_settings_stay() {
        let folder = folder();
        let mut settings = Sysctls::at(folder.path());
        settings.set("a", "1").unwrap();
        settings.forget();
        drop(settings);
        assert_eq!(read(&folder, "a"), "1");
    }

    #[test]
    fn a_missing_setting_is_named() {
        let folder = folder();
        let error = Sysctls::at(folder.path()).set("ipv4/conf/d0/arp_ignore", "8").unwrap_err().to_string();
        assert!(error.contains("ipv4/conf/d0/arp_ignore"), "{error}");
    }
}
