//! Earlier configurations: what the history tells, the way back, and what reading baton.toml again changes.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::difference::difference;
use super::store::VERSIONS;
use super::validate::check_document;
use super::{Actor, Director, Error, Inner, Resource, Store, Version};
use crate::model::moment::utc;
use crate::model::{Change, Difference, Document, History, HistoryEntry, PastDocument, ServiceKey, ServiceSpec, Settings};

impl Director {
    /// The last changes, newest first.
    pub async fn history(&self) -> Result<History, Error> {
        let kept = self.on_disk(|store| Ok(store.kept())).await?;
        let inner = self.lock();
        let entry = |change: &Change| HistoryEntry { change: change.clone(), kept: kept.contains(&change.revision) };
        Ok(History { revision: inner.revision, changes: inner.history.iter().rev().map(entry).collect() })
    }

    /// The configuration as it was in a revision.
    pub async fn past(&self, revision: u64) -> Result<PastDocument, Error> {
        let (version, before) = self.past_version(Some(revision)).await?;
        let since = |change: &Change| before.is_none_or(|before| change.revision > before);
        Ok(PastDocument { changes: version.history.into_iter().filter(since).collect(), document: version.document })
    }

    /// Makes the configuration what it was in `revision`, or in the kept one before the present one: a new revision; what is the same
    /// in both stays untouched. What that changed.
    pub async fn rollback(&self, revision: Option<u64>) -> Result<Difference, Error> {
        let (version, _) = self.past_version(revision).await?;
        let document = version.document;
        check_document(&document, &self.0.links).into_result()?;
        self.replace(|inner| {
            inner.check_document_room(&document)?;
            Ok(format!("back to revision {}: {}", document.revision, inner.replace_all(&document)))
        })
        .await
    }

    /// As [`Director::put_document`], answered with what that changed.
    pub async fn apply(&self, document: &Document) -> Result<Difference, Error> {
        check_document(document, &self.0.links).into_result()?;
        self.replace(|inner| {
            inner.check_document_room(document)?;
            Ok(inner.replace_all(document))
        })
        .await
    }

    /// Applies what is different between `file`, which is what baton.toml says now, and what it said when it was last applied.
    ///
    /// What the file does not change stays, whoever changed it since: settings one by one, services each as a whole, mark rules all
    /// together. What that changed.
    pub async fn reload(&self, file: &Document) -> Result<Difference, Error> {
        self.replace(|inner| {
            let before = inner.file.clone().unwrap_or_default();
            let wanted = merged(&inner.document(), &before, file);
            check_document(&wanted, &inner.desired.links).into_result()?;
            inner.check_document_room(&wanted)?;
            let what = inner.replace_all(&wanted);
            if *before != *file {
                inner.file = Some(Arc::new(file.clone()));
                // It is in the state file, too.
                inner.desired.touched.document = true;
            }
            Ok(format!("baton.toml read again: {what}"))
        })
        .await
    }

    /// A change of the whole configuration that is answered with what it changed.
    async fn replace(&self, make: impl FnOnce(&mut Inner) -> Result<String, Error>) -> Result<Difference, Error> {
        let mut both = None;
        let committed = self.change(Resource::Document, |inner| {
            let before = inner.document();
            let what = make(inner)?;
            both = Some((before, inner.document()));
            Ok(what)
        })?;
        let revision = committed.revision;
        self.settle(committed).await?;
        let found = both.map(|(before, after)| difference(&before, &after)).unwrap_or_default();
        Ok(Difference { revision, ..found })
    }

    /// What goes into the state file.
    pub(super) fn version(&self) -> Version {
        let inner = self.lock();
        Version { document: inner.document(), history: inner.history.iter().cloned().collect(), file: inner.file.as_deref().cloned() }
    }

    /// A version of the history, and the revision of the one before it.
    async fn past_version(&self, revision: Option<u64>) -> Result<(Version, Option<u64>), Error> {
        let present = self.revision();
        self.on_disk(move |store| {
            let kept = store.kept();
            let wanted = revision.or_else(|| kept.iter().rev().copied().find(|kept| *kept < present));
            let before = kept.iter().rev().copied().find(|kept| wanted.is_some_and(|wanted| *kept < wanted));
            let version = wanted.map(|wanted| store.read(wanted)).transpose().map_err(|why| Error::Unread(why.to_string()))?;
            version.flatten().map(|version| (version, before)).ok_or(Error::NotKept { revision, kept })
        })
        .await
    }

    async fn on_disk<T: Send + 'static>(&self, read: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let Some(store) = self.0.persistence.store.clone() else {
            return Err(Error::Unread("there is no state file".to_owned()));
        };
        let done = tokio::task::spawn_blocking(move || read(&store)).await;
        done.unwrap_or_else(|why| Err(Error::Unread(why.to_string())))
    }
}

impl Inner {
    /// A desired state of its own, with no workers to tell.
    pub(super) fn copy(&self) -> Self {
        Self {
            desired: self.desired.clone(),
            outboxes: Vec::new(),
            pulses: Vec::new(),
            revision: self.revision,
            hinted: Vec::new(),
            history: self.history.clone(),
            file: self.file.clone(),
        }
    }

    /// Puts a change into the history.
    pub(super) fn note(&mut self, revision: u64, by: &Actor, what: String) {
        while self.history.len() >= VERSIONS {
            self.history.pop_front();
        }
        self.history.push_back(Change { revision, at: utc(SystemTime::now()), by: by.to_string(), what });
    }
}

/// `present` with all that is different between `before` and `after`.
fn merged(present: &Document, before: &Document, after: &Document) -> Document {
    let mut services: Vec<ServiceSpec> = Vec::with_capacity(present.services.len());
    let by_key = |document: &Document| -> std::collections::HashMap<ServiceKey, ServiceSpec> {
        document.services.iter().map(|service| (service.key(), service.clone())).collect()
    };
    let (old, mut new) = (by_key(before), by_key(after));
    for service in &present.services {
        let key = service.key();
        match (old.get(&key), new.remove(&key)) {
            // The file had it and has it no more.
            (Some(_), None) => {}
            (old, Some(new)) if old != Some(&new) => services.push(new),
            _ => services.push(service.clone()),
        }
    }
    // What is left is not there: it comes if the file brings it, and stays away if someone else removed it.
    services.extend(
        after.services.iter().filter(|service| new.get(&service.key()).is_some_and(|new| old.get(&service.key()) != Some(new))).cloned(),
    );
    Document {
        revision: present.revision,
        settings: merged_settings(present.settings, before.settings, after.settings),
        marks: if before.marks == after.marks { present.marks.clone() } else { after.marks.clone() },
        services,
    }
}

fn merged_settings(present: Settings, before: Settings, after: Settings) -> Settings {
    let fields = |settings: Settings| serde_json::to_value(settings).unwrap_or_default();
    let (mut merged, before, after) = (fields(present), fields(before), fields(after));
    if let (Value::Object(merged), Value::Object(after)) = (&mut merged, after) {
        merged.extend(after.into_iter().filter(|(name, value)| before.get(name) != Some(value)));
    }
    // Every field has been one of a Settings.
    serde_json::from_value(merged).unwrap_or(present)
}

#[cfg(test)]
mod tests;
