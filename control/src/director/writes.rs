//! The changes that REST offers: each is checked against the desired state, made at once, and answered when it is settled.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::Value;

use super::difference::difference;
use super::health_rules::check_server_health;
use super::listing::server_spec;
use super::records::{Accepted, ServerKey, ServiceFields, fields, sorry_spec};
use super::validate::{At, Findings, Surroundings, check_document, check_server, check_service, check_settings};
use super::{Committed, Director, Error, Inner, Link, Resource};
use crate::model::{Document, Fault, Method, RealServer, RealServerSpec, Service, ServiceKey, ServiceSpec, Settings, What, patched};

impl Director {
    /// Adds a virtual service with its real servers (`ipvsadm -A`).
    pub async fn create_service(&self, spec: &ServiceSpec) -> Result<Service, Error> {
        let key = spec.key();
        let committed = self.change(Resource::Document, |inner| {
            if inner.desired.services.find(&key).is_some() {
                return Err(Error::ServiceExists(key));
            }
            inner.put_service(spec)?;
            Ok(format!("virtual service {key} added"))
        })?;
        self.settle(committed).await?;
        self.service(key)
    }

    /// Adds a virtual service or makes an existing one what `spec` says; whether it was added.
    pub async fn put_service(&self, spec: &ServiceSpec) -> Result<(bool, Service), Error> {
        let mut created = false;
        let key = spec.key();
        let committed = self.change(Resource::Service(key), |inner| {
            created = inner.desired.services.find(&key).is_none();
            inner.put_service(spec)?;
            Ok(format!("virtual service {key} {}", if created { "added" } else { "changed" }))
        })?;
        self.settle(committed).await?;
        Ok((created, self.service(key)?))
    }

    /// Changes parts of a virtual service (`ipvsadm -E`) by a JSON merge patch (RFC 7396). Another scheduler begins without flags, where
    /// the patch gives none.
    pub async fn patch_service(&self, key: ServiceKey, patch: &impl Serialize) -> Result<Service, Error> {
        let patch = &serde_json::to_value(patch).unwrap_or_default();
        let committed = self.change(Resource::Service(key), |inner| {
            let id = inner.find_service(key)?;
            let old = inner.service_spec(id).ok_or(Error::NoSuchService(key))?;
            let mut spec = patched(&old, patch).map_err(|fault| Error::Invalid(vec![fault]))?;
            if spec.key() != key {
                return Err(Error::Invalid(other_key(patch, &["protocol", "address", "port", "mark", "family"], &key.to_string())));
            }
            if spec.scheduler != old.scheduler && patch.get("flags").is_none() {
                spec.flags.clear();
            }
            if spec.real_servers == old.real_servers {
                inner.edit_service(id, spec, patch.get("health").is_some())?;
            } else {
                inner.put_service(&spec)?;
            }
            Ok(format!("virtual service {key} changed"))
        })?;
        self.settle(committed).await?;
        self.service(key)
    }

    /// Removes a virtual service with its real servers (`ipvsadm -D`).
    pub async fn delete_service(&self, key: ServiceKey) -> Result<(), Error> {
        let committed = self.change(Resource::Service(key), |inner| {
            let id = inner.find_service(key)?;
            inner.desired.remove_service(id);
            Ok(format!("virtual service {key} removed"))
        })?;
        self.settle(committed).await
    }

    /// Removes every virtual service (`ipvsadm -C`).
    pub async fn delete_all_services(&self) -> Result<(), Error> {
        let committed = self.change(Resource::Document, |inner| {
            for id in inner.desired.order.values().copied().collect::<Vec<_>>() {
                inner.desired.remove_service(id);
            }
            Ok("all virtual services removed".to_owned())
        })?;
        self.settle(committed).await
    }

    /// Adds a real server (`ipvsadm -a`).
    pub async fn create_real_server(&self, service: ServiceKey, spec: &RealServerSpec) -> Result<RealServer, Error> {
        let key = ServerKey::new(service, spec);
        let committed = self.change(Resource::Service(service), |inner| {
            let id = inner.find_service(service)?;
            if inner.desired.servers.find(&key).is_some() {
                return Err(Error::RealServerExists(service, key.socket()));
            }
            inner.put_real_server(id, key, spec)?;
            Ok(key.in_words("added"))
        })?;
        self.settle(committed).await?;
        self.real_server(service, key.socket())
    }

    /// Adds a real server or makes an existing one what `spec` says; whether it was added.
    pub async fn put_real_server(&self, service: ServiceKey, spec: &RealServerSpec) -> Result<(bool, RealServer), Error> {
        let key = ServerKey::new(service, spec);
        let mut created = false;
        let committed = self.change(Resource::RealServer(service, key.socket()), |inner| {
            let id = inner.find_service(service)?;
            created = inner.desired.servers.find(&key).is_none();
            inner.put_real_server(id, key, spec)?;
            Ok(key.in_words(if created { "added" } else { "changed" }))
        })?;
        self.settle(committed).await?;
        Ok((created, self.real_server(service, key.socket())?))
    }

    /// Changes parts of a real server (`ipvsadm -e`) by a JSON merge patch (RFC 7396). A method other than `tunnel` has no tunnel, where
    /// the patch gives none.
    pub async fn patch_real_server(&self, service: ServiceKey, server: SocketAddr, patch: &impl Serialize) -> Result<RealServer, Error> {
        let patch = &serde_json::to_value(patch).unwrap_or_default();
        let key = ServerKey { service, address: server.ip(), port: server.port() };
        let committed = self.change(Resource::RealServer(service, server), |inner| {
            let id = inner.find_service(service)?;
            let place = inner.find_member(id, &key).and_then(|s| inner.desired.servers.get(s));
            let old = place.ok_or(Error::NoSuchRealServer(service, server))?.fields.clone();
            let mut spec = patched(&server_spec(&key, &old), patch).map_err(|fault| Error::Invalid(vec![fault]))?;
            if ServerKey::new(service, &spec) != key {
                return Err(Error::Invalid(other_key(patch, &["address", "port"], &server.to_string())));
            }
            if spec.method != Method::Tunnel && patch.get("tunnel").is_none() {
                spec.tunnel = None;
            }
            inner.put_real_server(id, key, &spec)?;
            Ok(key.in_words("changed"))
        })?;
        self.settle(committed).await?;
        self.real_server(service, server)
    }

    /// Removes a real server (`ipvsadm -d`); its connections stay until they end.
    pub async fn delete_real_server(&self, service: ServiceKey, server: SocketAddr) -> Result<(), Error> {
        let key = ServerKey { service, address: server.ip(), port: server.port() };
        let committed = self.change(Resource::RealServer(service, server), |inner| {
            let id = inner.find_service(service)?;
            let id = inner.find_member(id, &key).ok_or(Error::NoSuchRealServer(service, server))?;
            inner.desired.remove_server(id);
            Ok(key.in_words("removed"))
        })?;
        self.settle(committed).await
    }

    /// Makes the whole configuration what `document` says, or changes nothing at all; its revision is ignored.
    ///
    /// What is the same in both stays untouched: connections, counters and the schedulers' positions.
    pub async fn put_document(&self, document: &Document) -> Result<Document, Error> {
        check_document(document, &self.0.links).into_result()?;
        let committed = self.change(Resource::Document, |inner| {
            inner.check_document_room(document)?;
            Ok(inner.replace_all(document))
        })?;
        self.settle(committed).await?;
        Ok(self.document())
    }

    /// The settings.
    pub fn settings(&self) -> Settings {
        self.lock().desired.settings
    }

    /// Changes some settings by a JSON merge patch (RFC 7396).
    pub async fn patch_settings(&self, patch: &Value) -> Result<Settings, Error> {
        let edit =
            |settings: &mut Settings| patched(settings, patch).map(|new| *settings = new).map_err(|fault| Error::Invalid(vec![fault]));
        self.try_edit_settings(edit).await
    }

    /// Changes the settings by `edit`.
    pub async fn edit_settings(&self, edit: impl FnOnce(&mut Settings)) -> Result<Settings, Error> {
        self.try_edit_settings(|settings| {
            edit(settings);
            Ok(())
        })
        .await
    }

    async fn try_edit_settings(&self, edit: impl FnOnce(&mut Settings) -> Result<(), Error>) -> Result<Settings, Error> {
        let committed = self.change(Resource::Settings, |inner| {
            let mut settings = inner.desired.settings;
            edit(&mut settings)?;
            let mut found = Findings::default();
            check_settings(&settings, "", &mut found);
            found.into_result()?;
            inner.desired.set_settings(settings);
            Ok("settings changed".to_owned())
        })?;
        self.settle(committed).await?;
        Ok(self.settings())
    }

    /// Takes the present counters of a service and of its real servers as zero, or of all services (`ipvsadm -Z`).
    pub fn zero(&self, service: Option<ServiceKey>) -> Result<(), Error> {
        let mut inner = self.lock();
        let ids = match service {
            Some(key) => vec![inner.find_service(key)?],
            None => inner.desired.order.values().copied().collect(),
        };
        for id in ids {
            let Some(record) = inner.desired.services.get_mut(id) else { continue };
            record.meter.zero(record.stats.sum());
            for server in record.members.clone() {
                if let Some(record) = inner.desired.servers.get_mut(server) {
                    record.meter.zero(record.stats.sum());
                }
            }
        }
        Ok(())
    }

    /// Does what the document does not show, and gives it to the workers; an error means that nothing was done.
    pub(super) fn act(&self, make: impl FnOnce(&mut Inner) -> Result<(), Error>) -> Result<Committed, Error> {
        let mut inner = self.lock();
        make(&mut inner)?;
        Ok(self.commit(&mut inner))
    }

    /// Makes a change of `resource` and gives it to the workers; an error means that nothing was changed. `make` says in words what
    /// it did.
    ///
    /// A dry run makes it of a copy. Cost of that: the whole desired state.
    pub(super) fn change(&self, resource: Resource, make: impl FnOnce(&mut Inner) -> Result<String, Error>) -> Result<Committed, Error> {
        let mut inner = self.lock();
        self.check_condition(&inner, resource)?;
        if self.1.dry_run {
            let mut copy = inner.copy();
            drop(inner);
            let before = copy.document();
            make(&mut copy)?;
            return Err(Error::DryRun(Box::new(difference(&before, &copy.document()))));
        }
        let what = make(&mut inner)?;
        let before = inner.revision;
        let committed = self.commit(&mut inner);
        if committed.revision > before {
            let reason = format!("{}: {what}", self.1.actor);
            self.0.events.raise(What::ConfigurationChanged { revision: committed.revision }, reason);
            inner.note(committed.revision, &self.1.actor, what);
        }
        Ok(committed)
    }
}

/// A single change is judged against the desired state as it is.
pub(super) struct Present<'a> {
    inner: &'a Inner,
    /// Whether the service is new; the VIP of one that is there was judged before.
    new: bool,
}

impl<'a> Present<'a> {
    /// For VIPs that may be new.
    pub(super) fn with_new_vips(inner: &'a Inner) -> Self {
        Self { inner, new: true }
    }
}

impl Surroundings for Present<'_> {
    fn links(&self) -> &[Link] {
        &self.inner.desired.links
    }

    fn is_vip(&self, address: IpAddr) -> bool {
        self.inner.desired.vips.contains_key(&address)
    }

    fn is_real_server(&self, address: IpAddr) -> bool {
        self.new && self.inner.desired.addresses.contains_key(&address)
    }
}

impl Inner {
    pub(super) fn find_service(&self, key: ServiceKey) -> Result<u32, Error> {
        self.desired.services.find(&key).ok_or(Error::NoSuchService(key))
    }

    /// A real server of a service, other than its sorry server.
    pub(super) fn find_member(&self, service: u32, key: &ServerKey) -> Option<u32> {
        let sorry = self.desired.services.get(service).and_then(|record| record.sorry);
        self.desired.servers.find(key).filter(|id| Some(*id) != sorry)
    }

    /// Changes a service's own settings; its real servers, which were judged when they came, are judged again only if other checks may
    /// not fit them.
    fn edit_service(&mut self, id: u32, mut spec: ServiceSpec, other_checks: bool) -> Result<(), Error> {
        if !other_checks {
            spec.real_servers.clear();
        }
        let mut found = Findings::default();
        check_service(&spec, At::default(), &Present { inner: self, new: false }, &mut found);
        found.into_result()?;
        let sorry = sorry_spec(&spec).map(|sorry| (ServerKey::new(spec.key(), &sorry), fields(&sorry)));
        self.check_room(&[], &sorry.iter().map(|(key, _)| *key).collect::<Vec<_>>())?;
        self.desired.edit_service(id, ServiceFields::of(&spec));
        self.desired.put_sorry(id, sorry.as_ref());
        Ok(())
    }

    fn put_service(&mut self, spec: &ServiceSpec) -> Result<(), Error> {
        let known = self.desired.services.find(&spec.key()).is_some();
        let mut found = Findings::default();
        check_service(spec, At::default(), &Present { inner: self, new: !known }, &mut found);
        found.into_result()?;
        let accepted = Accepted::new(spec);
        let servers: Vec<ServerKey> = accepted.servers.iter().chain(&accepted.sorry).map(|(key, _)| *key).collect();
        self.check_room(&[spec.key()], &servers)?;
        self.desired.put_service(&accepted);
        Ok(())
    }

    fn put_real_server(&mut self, service: u32, key: ServerKey, spec: &RealServerSpec) -> Result<(), Error> {
        let mut found = Findings::default();
        check_server(key.service, spec, At::default(), &Present { inner: self, new: false }, &mut found);
        let of_service = self.desired.services.get(service).and_then(|record| record.fields.health.as_deref());
        check_server_health(key.service, of_service, spec, At::default(), &self.desired.links, &mut found);
        let sorry = self.desired.services.get(service).and_then(|record| self.desired.servers.place(record.sorry?));
        if sorry.is_some_and(|place| place.key == key) {
            found.add("/address", format!("{} is the service's sorry server: a real server must be another", key.socket()));
        }
        found.into_result()?;
        if let Some(server) = self.desired.servers.find(&key) {
            self.desired.edit_server(server, fields(spec));
            return Ok(());
        }
        self.check_room(&[], &[key])?;
        self.desired.add_server(service, key, fields(spec));
        Ok(())
    }
}

/// The fields of a patch that would make its resource another one.
fn other_key(patch: &Value, key: &[&str], id: &str) -> Vec<Fault> {
    let given = key.iter().filter(|field| patch.get(*field).is_some());
    let detail = format!("it is part of the id {id}, which stays: add another one and remove this one");
    given.map(|field| Fault { pointer: format!("/{field}"), detail: detail.clone() }).collect()
}
