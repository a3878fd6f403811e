//! `ipvsadm -R` and `ipvsadm-restore`: many lines, all of them or none.
//!
//! The lines are carried out on a copy of the configuration with the checks that the director makes one by one, and
//! the result replaces the configuration in one request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hyper::Method;

use super::names::Names;
use super::parse::parse;
use super::request::{Failure, Request};
use super::run::whole;
use crate::cli::client::{Client, ClientError};
use crate::cli::console::Console;
use crate::model::{Document, Fault, RealServerSpec, ServiceKey, ServiceSpec, patched};

/// What the lines start from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// The services there are (`ipvsadm -R`).
    AsItIs,
    /// None (`ipvsadm-restore`).
    Empty,
}

/// Reads rules from standard input and carries them out.
///
/// # Errors
/// The first line that fails, with its number and its own exit code; then nothing was changed.
pub fn run(client: &Client, start: Start, names: &Names, console: &mut Console<'_>) -> Result<(), Failure> {
    let text = console.read_all().map_err(|error| Failure::refused(format_args!("cannot read standard input: {error}")))?;
    let current: Document = client.get("config").map_err(Failure::refused)?;
    let draft = Draft::of(&text, current, start, names)?;
    client.submit(Method::PUT, "config", &draft.document).map_err(|error| draft.explain(&error))
}

/// Carries out lines on an empty configuration, one after another; `failed` gets the index of each line that cannot be, and why.
pub(crate) fn collect<'a>(lines: Vec<&'a str>, names: &Names, mut failed: impl FnMut(usize, &Failure)) -> Draft<'a> {
    let mut draft = Draft::on(lines, Document::default());
    for index in 0..draft.lines.len() {
        if let Err(why) = draft.take_line(index, names) {
            failed(index, &why);
        }
    }
    draft
}

/// A configuration in the making, with the line that each part comes from.
pub(crate) struct Draft<'a> {
    /// What the lines made so far.
    pub(crate) document: Document,
    /// Where each service is in the document.
    index: HashMap<ServiceKey, usize>,
    lines: Vec<&'a str>,
    origins: BTreeMap<(ServiceKey, Option<(IpAddr, u16)>), usize>,
    /// MACs that an operator set: rules cannot say them, so a real server that comes back keeps its own.
    macs: BTreeMap<(ServiceKey, IpAddr, u16), String>,
}

impl<'a> Draft<'a> {
    fn on(lines: Vec<&'a str>, document: Document) -> Self {
        let mut macs = BTreeMap::new();
        for service in &document.services {
            for server in &service.real_servers {
                if let Some(mac) = &server.mac {
                    macs.insert((service.key(), server.address, port_of(service, server)), mac.clone());
                }
            }
        }
        let mut draft = Self { document, index: HashMap::new(), lines, origins: BTreeMap::new(), macs };
        draft.reindex();
        draft
    }

    fn of(text: &'a str, document: Document, start: Start, names: &Names) -> Result<Self, Failure> {
        let mut draft = Self::on(text.lines().collect(), document);
        if start == Start::Empty {
            draft.document.services.clear();
            draft.reindex();
        }
        for index in 0..draft.lines.len() {
            draft.take_line(index, names).map_err(|failure| draft.at_line(index, &failure))?;
        }
        Ok(draft)
    }

    fn take_line(&mut self, index: usize, names: &Names) -> Result<(), Failure> {
        let line = self.lines[index].trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.apply(parse(&words, names)?, index)
    }

    /// The index of the line that a service, or a real server of it, comes from.
    pub(crate) fn origin(&self, service: ServiceKey, server: Option<(IpAddr, u16)>) -> Option<usize> {
        self.origins.get(&(service, server)).or_else(|| self.origins.get(&(service, None))).copied()
    }

    fn at_line(&self, index: usize, failure: &Failure) -> Failure {
        let line = self.lines[index].trim();
        let text = format!("{}\nline {}: {line}\nnothing was changed", failure.text.trim_end(), index + 1);
        Failure { code: failure.code, text }
    }

    fn apply(&mut self, request: Request, line: usize) -> Result<(), Failure> {
        match request {
            Request::AddService(spec) => {
                if self.service(spec.key()).is_some() {
                    return Err(Failure::refused("Service already exists"));
                }
                self.origins.insert((spec.key(), None), line);
                self.index.insert(spec.key(), self.document.services.len());
                self.document.services.push(spec);
            }
            Request::EditService(key, patch) => {
                let service = self.service(key).ok_or_else(|| Failure::refused("No such service"))?;
                *service = patched(service, &whole(&patch)).map_err(|fault| Failure::refused(fault.detail))?;
                self.origins.insert((key, None), line);
            }
            Request::DeleteService(key) => {
                self.service(key).ok_or_else(|| Failure::refused("No such service"))?;
                self.document.services.retain(|service| service.key() != key);
                self.reindex();
            }
            Request::Clear => {
                self.document.services.clear();
                self.reindex();
            }
            Request::Set([tcp, tcpfin, udp]) => {
                let settings = &mut self.document.settings;
                for (setting, seconds) in
                    [(&mut settings.timeout_tcp, tcp), (&mut settings.timeout_tcpfin, tcpfin), (&mut settings.timeout_udp, udp)]
                {
                    if seconds > 0 {
                        *setting = seconds;
                    }
                }
            }
            Request::AddServer(key, spec) => self.add_server(key, spec, line)?,
            Request::EditServer(key, at, patch) => {
                let server = self.server(key, at)?;
                *server = patched(server, &whole(&patch)).map_err(|fault| Failure::refused(fault.detail))?;
                self.origins.insert((key, Some(at)), line);
            }
            Request::DeleteServer(key, at) => {
                self.server(key, at)?;
                let service = self.service(key).ok_or_else(not_defined)?;
                let port = service.port;
                service.real_servers.retain(|server| (server.address, server.port.unwrap_or(port)) != at);
            }
            _ => return Err(Failure::usage("only -A -E -D -C -a -e -d and --set can be restored")),
        }
        Ok(())
    }

    fn add_server(&mut self, key: ServiceKey, mut spec: RealServerSpec, line: usize) -> Result<(), Failure> {
        let at = (spec.address, spec.port.unwrap_or(key.port));
        spec.mac = self.macs.get(&(key, at.0, at.1)).cloned();
        let service = self.service(key).ok_or_else(not_defined)?;
        if service.real_servers.iter().any(|server| (server.address, server.port.unwrap_or(key.port)) == at) {
            return Err(Failure::refused("Destination already exists"));
        }
        service.real_servers.push(spec);
        self.origins.insert((key, Some(at)), line);
        Ok(())
    }

    fn reindex(&mut self) {
        self.index = self.document.services.iter().enumerate().map(|(index, service)| (service.key(), index)).collect();
    }

    fn service(&mut self, key: ServiceKey) -> Option<&mut ServiceSpec> {
        self.document.services.get_mut(*self.index.get(&key)?)
    }

    fn server(&mut self, key: ServiceKey, at: (IpAddr, u16)) -> Result<&mut RealServerSpec, Failure> {
        let service = self.service(key).ok_or_else(not_defined)?;
        let found = service.real_servers.iter_mut().find(|server| (server.address, server.port.unwrap_or(key.port)) == at);
        found.ok_or_else(|| Failure::refused("No such destination"))
    }

    /// The director's refusal, led back to the first line that it is about.
    fn explain(&self, error: &ClientError) -> Failure {
        let ClientError::Refused(problem) = error else { return Failure::refused(error) };
        let guilty = problem.errors.iter().find_map(|fault| self.origin_of(fault).map(|line| (line, &fault.detail)));
        match guilty {
            Some((line, detail)) => self.at_line(line, &Failure::refused(detail)),
            None => Failure::refused(error),
        }
    }

    fn origin_of(&self, fault: &Fault) -> Option<usize> {
        let mut steps = fault.pointer.strip_prefix("/services/")?.split('/');
        let service = self.document.services.get(steps.next()?.parse::<usize>().ok()?)?;
        let server = match (steps.next(), steps.next()) {
            (Some("real_servers"), Some(index)) => service.real_servers.get(index.parse::<usize>().ok()?),
            _ => None,
        };
        let at = server.map(|server| (server.address, port_of(service, server)));
        self.origin(service.key(), at)
    }
}

fn port_of(service: &ServiceSpec, server: &RealServerSpec) -> u16 {
    server.port.unwrap_or(service.port)
}

fn not_defined() -> Failure {
    Failure::refused("Service not defined")
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
