//! Persistence templates: what they say, and what becomes of those that are not followed any more.

use dataplane::service::{Drain, Method, RealServer};

use super::Director;
use super::connections::{Connection, Key, Learned, SECOND};
use super::recycle::Short;
use super::wire::Packet;

impl Director {
    /// Where a client of a persistent service goes.
    pub(super) fn template(&mut self, key: Key, service: u32, timeout: u32, packet: &Packet) -> Result<(u32, bool), &'static str> {
        let expires = self.now.wrapping_add(timeout * SECOND);
        let followed = self.connections.get(&key).filter(|old| old.service == service && self.may_be_followed(old.server));
        if let Some(server) = followed.map(|old| old.server) {
            self.connections.get_mut(&key).expect("just seen").expires = expires;
            self.agree(&key, server, service, timeout * SECOND);
            return Ok((server, false));
        }
        // One that is not followed any more stays for its time, and its connections with it.
        self.put_aside(&key);
        let server = self.said(&key, service).or_else(|| self.schedule(service, packet)).ok_or("no_real_server")?;
        let mut template = Connection {
            server,
            service,
            method: Method::DirectRouting,
            state: "NO",
            expires,
            packets: 0,
            template: None,
            children: 0,
            assured: false,
            by_datagram: packet.protocol == 17,
            masqueraded: None,
            answered: false,
            way: Learned::Nothing,
        };
        self.admits(&key, &template, None).map_err(|short| match short {
            Short::Places => "table_full",
            Short::HalfOpen => "half_open_limit",
        })?;
        template.server = self.agree(&key, server, service, timeout * SECOND);
        let server = template.server;
        self.insert(key, template);
        Ok((server, true))
    }

    /// A connection of a template was established.
    pub(super) fn assure(&mut self, template: Option<Key>) {
        if let Some(key) = template {
            self.connections.get_mut(&key).expect("of a connection").assured = true;
            self.places.delist(&key);
        }
    }

    /// What a packet says of its connection, and of the template that it was made through.
    pub(super) fn confirm(&mut self, key: &Key) {
        let entry = &self.connections[key];
        if key.protocol != 17 {
            if entry.is_half_open(key) {
                self.places.enlist(key, entry);
            } else {
                self.places.delist(key);
            }
        } else if self.places.is_tentative(key) {
            self.places.delist(key);
            if let Some(template) = entry.template {
                self.places.delist(&template);
            }
        }
    }

    /// Whether new connections may follow a template to this real server.
    pub(super) fn may_be_followed(&self, server: u32) -> bool {
        self.servers.get(&server).is_some_and(|target| {
            let RealServer { available, drain, weight, .. } = *target.snapshot;
            available && drain == Drain::No && !(weight == 0 && self.settings.expire_quiescent_template)
        })
    }

    /// Puts a template where no connection finds it: it is listed with port 65535.
    fn put_aside(&mut self, key: &Key) {
        let Some(template) = self.connections.remove(key) else { return };
        self.templates_aside += 1;
        let aside = Key { aside: self.templates_aside, virtual_: (key.virtual_.ip(), u16::MAX).into(), ..*key };
        for connection in self.connections.values_mut().filter(|connection| connection.template == Some(*key)) {
            connection.template = Some(aside);
        }
        self.connections.insert(aside, template);
        self.places.rename(key, aside);
    }
}
