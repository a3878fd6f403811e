//! A disk that loses power at a chosen step, and may then have torn what was not synced and reordered what was not yet final.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tests::version;
use super::*;

/// A change of names that is not on the disk until its folder is synced.
#[derive(Clone, Debug)]
enum Naming {
    Put(PathBuf, usize),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl Naming {
    fn folder(&self) -> &Path {
        let (Self::Put(path, _) | Self::Remove(path) | Self::Rename(_, path, _)) = self;
        path.parent().unwrap()
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Put(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: bool,
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Content>,
    /// As the running system sees them.
    names: BTreeMap<PathBuf, usize>,
    /// As the disk has them for certain.
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<Naming>,
    /// Steps until the power goes.
    left: usize,
    random: u64,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }

    fn random(&mut self, below: usize) -> usize {
        // xorshift64 (Marsaglia 2003)
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % below
    }

    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.pending.push(naming);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[derive(Clone, Debug, Default)]
struct Model(Arc<Mutex<State>>);

impl Model {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same on it.
    fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Power for so many steps.
    fn power(&self, steps: usize, seed: u64) {
        let mut state = self.lock();
        (state.left, state.random) = (steps, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    }

    /// What is found when the power is back: of the names that were not synced any, in any order; of files that were not, any part.
    fn reboot(&self) {
        let mut state = self.lock();
        let mut pending = std::mem::take(&mut state.pending);
        let mut names = std::mem::take(&mut state.durable);
        while !pending.is_empty() {
            let at = state.random(pending.len());
            let naming = pending.remove(at);
            if state.random(2) == 0 {
                naming.apply(&mut names);
            }
        }
        for file in 0..state.files.len() {
            if !state.files[file].synced {
                let length = state.files[file].bytes.len();
                let keep = state.random(length + 1);
                if state.random(2) == 0 {
                    state.files[file].bytes.truncate(keep);
                } else {
                    state.files[file].bytes[keep..].fill(0);
                }
                state.files[file].synced = true;
            }
        }
        state.names.clone_from(&names);
        state.durable = names;
        state.left = usize::MAX;
    }
}

impl Disk for Model {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.lock();
        Ok(state.files[state.find(path)?].bytes.clone())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        if state.find(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.name(Naming::Put(path.to_owned(), file));
        // Filled byte by byte, as far as a crash is concerned.
        let filled = state.random(bytes.len());
        state.files[file].bytes = bytes[..filled].to_vec();
        state.step()?;
        state.files[file].bytes = bytes.to_vec();
        state.step()?;
        state.files[file].synced = true;
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let file = state.find(from)?;
        state.name(Naming::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.find(path)?;
        state.name(Naming::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        let (synced, pending) = std::mem::take(&mut state.pending).into_iter().partition(|naming| naming.folder() == folder);
        state.pending = pending;
        let synced: Vec<Naming> = synced;
        for naming in synced {
            naming.apply(&mut state.durable);
        }
        Ok(())
    }
}

fn open(disk: &Model) -> Store {
    Store::on(Box::new(disk.clone()), PathBuf::from("/state/state.json")).unwrap()
}

/// What a start finds, which must be one of `allowed`, with every kept version as it was written. The revision.
fn start(disk: &Model, allowed: &[u64], at: &str) -> u64 {
    let store = open(disk);
    let found = store.load().unwrap_or_else(|why| panic!("{at}: {why}"));
    let revision = found.as_ref().map_or(0, |found| found.document.revision);
    assert!(allowed.contains(&revision), "{at}: {revision} is none of {allowed:?}");
    let mut found = found.unwrap_or_else(|| version(0));
    assert_eq!(found, version(revision), "{at}");
    store.begin_with(&mut found).unwrap_or_else(|why| panic!("{at}: {why}"));
    let kept = store.kept();
    assert_eq!(kept.last(), Some(&revision), "{at}: the present version is the last of the history");
    for kept in kept {
        assert_eq!(store.read(kept).unwrap_or_else(|why| panic!("{at}: {why}")), Some(version(kept)), "{at}");
    }
    revision
}

/// Writes until the power goes; the last revision that was said to be on the disk, and the one that was begun.
fn write_on(disk: &Model, from: u64, to: u64) -> (u64, u64) {
    let store = open(disk);
    for revision in from..=to {
        if store.write(&version(revision)).is_err() {
            return (revision - 1, revision);
        }
    }
    (to, to)
}

/// A disk with the versions before `first`, and how many steps the writes from there to `last` take.
fn prepared(first: u64, last: u64) -> (Model, usize) {
    let disk = Model::default();
    disk.power(usize::MAX, 1);
    write_on(&disk, 1, first - 1);
    let tried = disk.copy();
    let before = tried.lock().left;
    write_on(&tried, first, last);
    let left = tried.lock().left;
    (disk, before - left)
}

#[test]
fn power_cut_at_any_step_leaves_the_old_or_the_new_and_a_whole_history() {
    let mut cuts = 0;
    // The writes from the fiftieth on also remove the oldest versions.
    for (first, last, seeds) in [(1, 3, 180), (50, 52, 4)] {
        let (begun_with, steps) = prepared(first, last);
        for cut in 0..=steps {
            for seed in 0..seeds {
                let at = format!("writes {first} to {last}, cut at step {cut}, seed {seed}");
                let disk = begun_with.copy();
                disk.power(cut, seed);
                let (stored, begun) = write_on(&disk, first, last);
                disk.reboot();
                let revision = start(&disk, &[stored, begun], &at);
                // It goes on from what it found, and the power goes again, at another step.
                disk.power(usize::try_from(seed).unwrap() % (steps + 1), seed + 1);
                let (stored, begun) = write_on(&disk, revision + 1, revision + 3);
                disk.reboot();
                start(&disk, &[stored, begun], &at);
                cuts += 2;
            }
        }
    }
    assert!(cuts >= 10_000, "{cuts} power cuts are fewer than were to be tried");
}
