//! Whether the workers' tables have places for what a request adds.

use std::collections::HashSet;

use super::records::{Accepted, ServerKey};
use super::{Error, Inner};
use crate::model::{Document, Fault, ServiceKey, ServiceSpec};

impl Inner {
    /// Makes the desired state what `document`, which is valid and has room, says; what is the same is not touched. In words, what
    /// that changed.
    pub(super) fn replace_all(&mut self, document: &Document) -> String {
        let desired = &mut self.desired;
        let (settings, marks) = (desired.settings != document.settings, desired.marks() != document.marks);
        desired.set_settings(document.settings);
        desired.set_marks(&document.marks);
        let keys: HashSet<ServiceKey> = document.services.iter().map(ServiceSpec::key).collect();
        let gone: Vec<u32> =
            desired.order.values().copied().filter(|id| desired.services.place(*id).is_some_and(|p| !keys.contains(&p.key))).collect();
        let (removed, before) = (gone.len(), desired.order.len());
        for id in gone {
            desired.remove_service(id);
        }
        for spec in &document.services {
            desired.put_service(&Accepted::new(spec));
        }
        let added = desired.order.len() + removed - before;
        let changed = desired.touched.rewritten_services.len().saturating_sub(added);
        let reordered = desired.reorder(document.services.iter().map(ServiceSpec::key));
        let counted = [(added, "added"), (removed, "removed"), (changed, "changed")];
        let services = counted.iter().filter(|(count, _)| *count > 0);
        let services = services.map(|(count, what)| format!("{count} {} {what}", if *count == 1 { "service" } else { "services" }));
        let others = [(reordered, "services in another order"), (settings, "settings changed"), (marks, "mark rules changed")];
        let words: Vec<String> = services.chain(others.iter().filter(|(is, _)| *is).map(|(_, what)| (*what).to_owned())).collect();
        if words.is_empty() { "nothing changed".to_owned() } else { words.join(", ") }
    }

    pub(super) fn check_document_room(&self, document: &Document) -> Result<(), Error> {
        let accepted: Vec<Accepted<'_>> = document.services.iter().map(Accepted::new).collect();
        let services: Vec<ServiceKey> = document.services.iter().map(ServiceSpec::key).collect();
        let servers: Vec<ServerKey> = accepted.iter().flat_map(|a| a.servers.iter().chain(&a.sorry).map(|(key, _)| *key)).collect();
        let mut faults = Vec::new();
        for (what, limit, have) in [
            ("virtual services", self.desired.services.capacity(), services.len()),
            ("real servers", self.desired.servers.capacity(), servers.len()),
        ] {
            if have > limit as usize {
                let key = what.replace(' ', "_").replace("virtual_", "");
                faults.push(Fault {
                    pointer: "/services".to_owned(),
                    detail: format!("the document has {have} {what}: allowed are {limit} (limits.{key})"),
                });
            }
        }
        if faults.is_empty() { self.check_room(&services, &servers) } else { Err(Error::Invalid(faults)) }
    }

    /// Whether all of these, of which some may be there already, can be there at once.
    pub(super) fn check_room(&self, services: &[ServiceKey], servers: &[ServerKey]) -> Result<(), Error> {
        if !self.desired.services.has_room_for(services.iter()) {
            return Err(full("virtual services", "services", self.desired.services.capacity(), self.desired.services.leaving().count()));
        }
        if !self.desired.servers.has_room_for(servers.iter()) {
            return Err(full("real servers", "real_servers", self.desired.servers.capacity(), self.desired.servers.leaving().count()));
        }
        Ok(())
    }
}

fn full(what: &str, key: &str, limit: u32, leaving: usize) -> Error {
    Error::Busy(format!(
        "all {limit} places for {what} are taken (limits.{key}), {leaving} of them by removed ones that connections still refer to: \
         remove some, or flush those connections and try again in some seconds"
    ))
}
