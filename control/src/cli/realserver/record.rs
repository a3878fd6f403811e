//! What apply changed, and what was there before: a file that undo reads.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::host::{HostError, Key};

/// A sysctl that was changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Changed {
    /// Which one.
    pub key: Key,
    /// What it was.
    pub before: String,
    /// What apply made it.
    pub after: String,
}

/// An address that was added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Added {
    /// The VIP.
    pub address: IpAddr,
    /// The device that it was added to.
    pub device: String,
}

/// Everything that was changed by one or more applies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Sysctls.
    #[serde(default)]
    pub sysctls: Vec<Changed>,
    /// Addresses.
    #[serde(default)]
    pub addresses: Vec<Added>,
    /// Devices that were set up.
    #[serde(default)]
    pub links: Vec<String>,
}

impl Record {
    /// Reads the record; an empty one when there is no file.
    pub fn load(path: &Path) -> Result<Self, HostError> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| fault(path, error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fault(path, error)),
        }
    }

    /// Writes the record so that a crash leaves the old one or the new one; an empty record is no file.
    pub fn save(&self, path: &Path) -> Result<(), HostError> {
        self.try_save(path).map_err(|cause| fault(path, cause))
    }

    fn try_save(&self, path: &Path) -> io::Result<()> {
        if *self == Self::default() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Notes a change of a sysctl; the first value is what undo goes back to.
    pub fn note(&mut self, key: &Key, before: &str, after: &str) {
        match self.sysctls.iter_mut().find(|changed| changed.key == *key) {
            Some(changed) => after.clone_into(&mut changed.after),
            None => self.sysctls.push(Changed { key: key.clone(), before: before.to_owned(), after: after.to_owned() }),
        }
    }
}

/// Where the record of this network namespace is unless another place is named: one file for the machine itself, and
/// one for each other namespace (or container, where the machine's own cannot be seen).
pub fn default_path() -> PathBuf {
    let folder = Path::new("/run/baton");
    let of = |path: &str| fs::metadata(path).map(|namespace| namespace.ino()).ok();
    match (of("/proc/thread-self/ns/net"), of("/proc/1/ns/net")) {
        (Some(ours), first) if first != Some(ours) => folder.join(format!("realserver-{ours}.json")),
        _ => folder.join("realserver.json"),
    }
}

fn fault(path: &Path, cause: io::Error) -> HostError {
    HostError::Record { path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_what_undo_goes_back_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/record.json");
        let key = Key::ipv4("all", "arp_ignore");
        let mut record = Record::load(&path).unwrap();
        record.note(&key, "0", "1");
        record.note(&key, "3", "1");
        record.save(&path).unwrap();
        let loaded = Record::load(&path).unwrap();
        assert_eq!(loaded.sysctls, [Changed { key, before: "0".into(), after: "1".into() }]);
        Record::default().save(&path).unwrap();
        assert!(!path.exists());
        Record::default().save(&path).unwrap();
    }
}
