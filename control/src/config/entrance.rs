//! What `[control]` says of the API's sockets: where they are, and who may come.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::faults::Collector;
use super::reader::{Item, Section};
use super::sections::absolute;
use crate::api::Entrance;
use crate::api::access::{Client, Token, TokenHash};
use crate::api::tls::TlsFiles;
use crate::api::who::Role;

const ROLES: &[(&str, Role)] = &[("read", Role::Read), ("operate", Role::Operate), ("admin", Role::Admin)];
const ADDRESS: &str = "an address and a port, such as \"127.0.0.1:8081\" or \"[fd00:10::10]:8443\"";
const NAME: &str = "1 to 64 characters, none of them a blank or a control character at its ends";

pub(super) fn read(section: &mut Section<'_>, entrance: &mut Entrance, faults: &mut Collector<'_>) {
    if let Some(mode) = section.take("socket_mode").and_then(|item| socket_mode(&item, faults)) {
        entrance.mode = mode;
    }
    entrance.group = section.take("socket_group").and_then(|item| name(&item, faults));
    let listen = section.take("listen");
    entrance.listen = listen.as_ref().and_then(|item| address(item, faults));
    let metrics = section.take("metrics_listen");
    entrance.metrics = metrics.as_ref().and_then(|item| address(item, faults));
    if let Some(item) = metrics.filter(|_| entrance.metrics.is_some() && entrance.metrics == entrance.listen) {
        item.refuse(faults, "control.listen is this address already: metrics are there, too, for those who may come");
    }
    entrance.audit = section.take("audit").and_then(|item| absolute(&item, faults));
    let tls = section.take("tls");
    entrance.tls = tls.as_ref().and_then(|item| item.section(faults)).and_then(|section| read_tls(section, faults));
    let tokens = section.take("token");
    entrance.access.tokens = tokens.as_ref().map(|item| read_tokens(item, faults)).unwrap_or_default();
    let clients = section.take("client");
    entrance.access.clients = clients.as_ref().map(|item| read_clients(item, faults)).unwrap_or_default();

    let Some(listen) = listen else {
        for item in [tls, tokens, clients].into_iter().flatten() {
            item.refuse_whole(faults, "it is for control.listen, which is not given: local users go by the socket's mode and group");
        }
        return;
    };
    check_openness(&listen, tls.as_ref(), clients.as_ref(), entrance, faults);
}

/// Nobody may come from elsewhere without TLS and without saying who they are, and nothing is given that means nothing.
fn check_openness(listen: &Item<'_>, tls: Option<&Item<'_>>, clients: Option<&Item<'_>>, entrance: &Entrance, faults: &mut Collector<'_>) {
    let far = entrance.listen.is_some_and(|address| !address.ip().to_canonical().is_loopback());
    let lacks = [
        (tls.is_none(), "needs control.tls, or tokens would be read on the way"),
        (
            entrance.access.is_empty(),
            "needs to know who comes: a [[control.token]] (`baton token` makes one), or control.tls.client_ca with a [[control.client]]",
        ),
    ];
    let lacks: Vec<&str> = lacks.iter().filter(|(lacks, _)| far && *lacks).map(|(_, what)| *what).collect();
    if !lacks.is_empty() {
        listen
            .refuse(faults, format_args!("an address that is not loopback {}; else come to loopback through ssh -L", lacks.join(", and ")));
    }
    let client_ca = entrance.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    if let Some(item) = clients.filter(|_| client_ca.is_none()) {
        item.refuse_whole(faults, "control.tls.client_ca is not given: nobody says whose certificates are believed");
    }
    if let Some(item) = tls.filter(|_| client_ca.is_some() && entrance.access.clients.is_empty()) {
        item.refuse_whole(faults, "client_ca is given, and no [[control.client]]: nobody could come with a certificate");
    }
}

fn address(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<SocketAddr> {
    let address: SocketAddr = item.parsed(faults, ADDRESS)?;
    if address.port() == 0 {
        item.refuse(faults, "the port is 1 to 65535");
        return None;
    }
    Some(address)
}

fn socket_mode(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<u32> {
    const EXPECTED: &str = "an octal mode with reading and writing for the owner, such as \"0660\" or \"0600\"";
    let text = item.text(faults, EXPECTED)?;
    let mode =
        u32::from_str_radix(text, 8).ok().filter(|mode| (3..=4).contains(&text.len()) && mode & !0o666 == 0 && mode & 0o600 == 0o600);
    if mode.is_none() {
        item.refuse(faults, format_args!("expected {EXPECTED}"));
    }
    mode
}

fn name(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<String> {
    let text = item.text(faults, NAME)?;
    let sound = (1..=64).contains(&text.chars().count()) && text.trim() == text && !text.contains(char::is_control);
    if !sound {
        item.refuse(faults, format_args!("expected {NAME}"));
    }
    sound.then(|| text.to_owned())
}

fn read_tls(mut section: Section<'_>, faults: &mut Collector<'_>) -> Option<TlsFiles> {
    let mut file = |name: &'static str, what: &str, faults: &mut Collector<'_>| -> Option<PathBuf> {
        section.need(name, what, faults).and_then(|item| absolute(&item, faults))
    };
    let certificate = file("certificate", "the director's certificate, a PEM file", faults);
    let key = file("key", "the certificate's key, a PEM file", faults);
    let client_ca = section.take("client_ca").map(|item| absolute(&item, faults));
    section.finish(faults);
    Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca.map_or(Some(None), |path| path.map(Some))? })
}

fn read_tokens(item: &Item<'_>, faults: &mut Collector<'_>) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for mut section in item.sections(faults) {
        let name = own_name(&mut section, &|name| tokens.iter().any(|token| token.name == name), faults);
        let role = role(&mut section, faults);
        let hash = section.need("sha256", TokenHash::EXPECTED, faults);
        let hash = hash.and_then(|item| item.parsed::<TokenHash>(faults, TokenHash::EXPECTED).map(|hash| (hash, item)));
        section.finish(faults);
        let Some((hash, item)) = hash else { continue };
        if tokens.iter().any(|token| token.hash == hash) {
            item.refuse(faults, "another token is the same: whose it is could not be told");
        }
        if let (Some(name), Some(role)) = (name, role) {
            tokens.push(Token { name, role, hash });
        }
    }
    tokens
}

fn read_clients(item: &Item<'_>, faults: &mut Collector<'_>) -> Vec<Client> {
    let mut clients: Vec<Client> = Vec::new();
    for mut section in item.sections(faults) {
        let name = own_name(&mut section, &|name| clients.iter().any(|client| client.name == name), faults);
        let role = role(&mut section, faults);
        section.finish(faults);
        if let (Some(name), Some(role)) = (name, role) {
            clients.push(Client { name, role });
        }
    }
    clients
}

fn own_name(section: &mut Section<'_>, taken: &dyn Fn(&str) -> bool, faults: &mut Collector<'_>) -> Option<String> {
    let item = section.need("name", "the name that logs show; of a client, its certificate's common name", faults)?;
    let name = name(&item, faults)?;
    if taken(&name) {
        item.refuse(faults, "another one has this name");
    }
    Some(name)
}

fn role(section: &mut Section<'_>, faults: &mut Collector<'_>) -> Option<Role> {
    section.need("role", "\"read\", \"operate\" or \"admin\"", faults)?.choice(faults, ROLES)
}
