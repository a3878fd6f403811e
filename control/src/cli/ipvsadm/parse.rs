//! From arguments to a request: ipvsadm's checks in ipvsadm's order, with its messages and exit codes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::ip_mask_to_prefix;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;

use super::address::{AddressPort, address_port, ipv4, number};
use super::names::Names;
use super::options::{Command, Named, Opt, Rule, tunnel_rule};
use super::request::{Columns, Failure, Listing, Request, Subject};
use super::scan::{Found, Scanner};
use super::unbuilt::unbuilt;
use crate::model::{
    Method, NoRealServer, Persistence, Protocol, RealServerPatch, RealServerSpec, Scheduler, SchedulerFlag, ServiceKey, ServicePatch,
    ServiceSpec, Tunnel, TunnelChecksum, TunnelType,
};

/// The most seconds that a timeout may have: 31 days.
const MAX_TIMEOUT: i64 = 31 * 86_400;
/// Seconds of `-p` without a value: 360 in the program, whatever ipvsadm(8) says of 300.
const PERSISTENT_TIMEOUT: u32 = 360;
/// The most that a weight or a threshold may be.
const MAX_NUMBER: i64 = i32::MAX as i64;

/// What was gathered from a line before it is judged.
pub(super) struct Line {
    pub(super) command: Command,
    given: u64,
    pub(super) protocol: Protocol,
    pub(super) service: Option<AddressPort>,
    pub(super) mark: Option<u32>,
    /// `-6`: the mark's packets are IPv6.
    ipv6: bool,
    pub(super) scheduler: Option<String>,
    /// Whether a persistence engine is named (`--pe`).
    pub(super) engine: bool,
    flags: Vec<String>,
    persistence: Persistence,
    server: Option<AddressPort>,
    pub(super) method: Method,
    tunnel: Tunnel,
    weight: u32,
    thresholds: (u32, u32),
    timeouts: [u32; 3],
}

impl Line {
    /// Whether the line has the option.
    pub(super) fn has(&self, option: Named) -> bool {
        self.given & (1 << option as u8) != 0
    }

    fn note(&mut self, option: Named) -> Result<(), Failure> {
        if self.has(option) {
            return Err(Failure::usage(format_args!("multiple '{}' options specified", option.name())));
        }
        self.given |= 1 << option as u8;
        Ok(())
    }

    fn take(&mut self, found: &Found, names: &Names) -> Result<(), Failure> {
        let text = found.value.as_deref().unwrap_or_default();
        match found.option {
            Opt::Tcp => self.take_service(Protocol::Tcp, text, names)?,
            Opt::Udp => self.take_service(Protocol::Udp, text, names)?,
            Opt::Sctp => self.take_service(Protocol::Sctp, text, names)?,
            Opt::Mark => {
                self.note(Named::ServiceAddress)?;
                let bad = || Failure::usage(format_args!("invalid fwmark value `{text}' specified"));
                let mark = number(text, 1, i64::from(u32::MAX)).and_then(|mark| u32::try_from(mark).ok());
                self.mark = Some(mark.ok_or_else(bad)?);
                self.protocol = Protocol::Mark;
            }
            Opt::Ipv6 if self.mark.is_none() => return Err(Failure::usage("-6 used before -f\n")),
            Opt::Ipv6 => self.ipv6 = true,
            Opt::Sort => {}
            Opt::Gatewaying => self.take_method(Method::DirectRouting)?,
            Opt::Ipip => self.take_method(Method::Tunnel)?,
            Opt::Masquerading => self.take_method(Method::Masquerading)?,
            Opt::Command(_) => return Err(Failure::usage(format_args!("invalid option `{}'", found.argument))),
            Opt::Named(option) => {
                self.note(option)?;
                self.take_value(option, found.value.as_deref(), names)?;
            }
        }
        Ok(())
    }

    fn take_service(&mut self, protocol: Protocol, text: &str, names: &Names) -> Result<(), Failure> {
        self.note(Named::ServiceAddress)?;
        let bad = || Failure::usage("illegal virtual server address[:port] specified");
        self.protocol = protocol;
        self.service = Some(address_port(text, protocol, names).ok_or_else(bad)?);
        Ok(())
    }

    fn take_method(&mut self, method: Method) -> Result<(), Failure> {
        self.method = method;
        self.note(Named::ForwardingMethod)
    }

    fn take_value(&mut self, option: Named, value: Option<&str>, names: &Names) -> Result<(), Failure> {
        let text = value.unwrap_or_default();
        let numbered = |least, most, what: &str| {
            let fits = number(text, least, most).and_then(|number| u32::try_from(number).ok());
            fits.ok_or_else(|| Failure::usage(format_args!("illegal {what} specified")))
        };
        match option {
            Named::Scheduler => self.scheduler = Some(text.to_owned()),
            Named::Persistent if value.is_some() => self.persistence.timeout = timeout(text, 1)?,
            Named::Netmask => self.persistence.prefix = self.prefix(text)?,
            Named::RealServer => {
                let bad = || Failure::usage("illegal real server address[:port] specified");
                self.server = Some(address_port(text, self.protocol, names).ok_or_else(bad)?);
            }
            Named::Weight => self.weight = numbered(0, MAX_NUMBER, "weight")?,
            Named::UpperThreshold => self.thresholds.0 = numbered(0, MAX_NUMBER, "u_threshold")?,
            Named::LowerThreshold => self.thresholds.1 = numbered(0, MAX_NUMBER, "l_threshold")?,
            Named::SyncId => drop(numbered(0, 255, "syncid")?),
            Named::SyncMaxlen => drop(numbered(1, 65_535, "sync-maxlen")?),
            Named::McastPort => drop(numbered(1, 65_535, "mcast-port")?),
            Named::McastTtl => drop(numbered(1, 255, "mcast-ttl")?),
            Named::SchedFlags => self.flags = text.split(',').filter(|flag| !flag.is_empty()).map(str::to_owned).collect(),
            Named::McastGroup => mcast_group(text)?,
            Named::Pe => self.engine = !text.is_empty(),
            Named::TunPort => self.tunnel.port = u16::try_from(numbered(1, 65_535, "tunnel port")?).ok(),
            Named::TunType => {
                let known = [TunnelType::Ipip, TunnelType::Gue, TunnelType::Gre].into_iter().find(|kind| kind.as_str() == text);
                self.tunnel.kind = known.ok_or_else(|| Failure::usage("illegal tunnel type specified"))?;
            }
            Named::TunCsum => self.tunnel.checksum = TunnelChecksum::Whole,
            Named::TunRemcsum => self.tunnel.checksum = TunnelChecksum::Remote,
            _ => {}
        }
        Ok(())
    }

    /// Whether the service is one of IPv6, as far as the line has been read.
    fn is_ipv6(&self) -> bool {
        self.ipv6 || self.service.is_some_and(|service| service.address.is_ipv6())
    }

    /// The prefix that a mask means; a whole address is no mask at all.
    fn prefix(&mut self, text: &str) -> Result<Option<u8>, Failure> {
        let (prefix, whole) = if self.is_ipv6() {
            let bad = || Failure::usage("illegal ipv6 netmask specified");
            (number(text, 1, 128).and_then(|prefix| u8::try_from(prefix).ok()).ok_or_else(bad)?, 128)
        } else {
            let bad = || Failure::usage("illegal virtual server persistent mask specified");
            let mask = ipv4(text).ok_or_else(bad)?;
            let prefix = ip_mask_to_prefix(mask.into());
            self.persistence.netmask = prefix.is_err().then_some(mask);
            (prefix.unwrap_or(32), 32)
        };
        Ok(Some(prefix).filter(|prefix| *prefix != whole))
    }

    /// Holds what is there against the rules, in the order of [`Named::ALL`]; `of` ends the messages.
    fn check_rules(&self, rule: impl Fn(Named) -> Rule, of: &str) -> Result<(), Failure> {
        let mut exclusive: Option<&str> = None;
        for (option, name) in Named::ALL {
            match (rule(option), self.has(option)) {
                (Rule::Illegal, true) => return Err(Failure::usage(format_args!("Illegal '{name}' option with the {of}"))),
                (Rule::Required, false) => {
                    return Err(Failure::usage(format_args!("You need to supply the '{name}' option for the {of}")));
                }
                (Rule::Exclusive, true) => {
                    if let Some(other) = exclusive.replace(name) {
                        let text = format_args!("The option '{name}' conflicts with the '{other}' option in the {of}");
                        return Err(Failure::usage(text));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_meaning(&self) -> Result<(), Failure> {
        match self.command {
            Command::AddService | Command::EditService => self.check_service(),
            Command::AddServer | Command::EditServer => self.check_server(),
            Command::List => {
                let apart = [Named::Connection, Named::Timeout, Named::Daemon];
                let columns = [Named::Stats, Named::Rate, Named::Thresholds];
                if apart.iter().any(|&option| self.has(option)) && columns.iter().any(|&option| self.has(option)) {
                    return Err(Failure::usage("options conflicts in the list command"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_service(&self) -> Result<(), Failure> {
        if self.service.is_some_and(|service| service.port.unwrap_or(0) == 0) && !self.has(Named::Persistent) {
            return Err(Failure::usage("Zero port specified for non-persistent service"));
        }
        if self.has(Named::Ops) && self.mark.is_none() && self.protocol != Protocol::Udp {
            return Err(Failure::usage("One-Packet Scheduling is only for UDP virtual services"));
        }
        Ok(())
    }

    /// Whether the flags are known and the scheduler's: asked before any other rule, and of every command.
    fn check_flags(&self) -> Result<(), Failure> {
        let scheduler = match self.command {
            Command::AddService | Command::EditService => self.scheduler.as_deref().unwrap_or("wlc"),
            _ => self.scheduler.as_deref().unwrap_or_default(),
        };
        for flag in &self.flags {
            let whose = match flag.as_str() {
                "sh-fallback" | "sh-port" => "sh",
                "mh-fallback" | "mh-port" => "mh",
                "flag-1" | "flag-2" | "flag-3" => scheduler,
                _ => return Err(Failure::usage(format_args!("invalid scheduler flag `{flag}'"))),
            };
            if whose != scheduler {
                return Err(Failure::usage(format_args!("incompatible scheduler flag `{flag}'")));
            }
        }
        Ok(())
    }

    fn check_server(&self) -> Result<(), Failure> {
        if let Some(server) = self.server
            && self.is_ipv6() != server.address.is_ipv6()
            && self.method != Method::Tunnel
        {
            return Err(Failure::usage("Different address family is allowed only for tunneling servers"));
        }
        let tunnel = [Named::TunType, Named::TunPort, Named::TunNocsum, Named::TunCsum, Named::TunRemcsum];
        if self.method != Method::Tunnel && tunnel.iter().any(|&option| self.has(option)) {
            return Err(Failure::usage("Tunnel options conflict with forward method"));
        }
        let kind = self.tunnel.kind.as_str();
        self.check_rules(|option| tunnel_rule(kind, option), &format!("'{kind}' tunnel type"))?;
        let (upper, lower) = self.thresholds;
        if lower > upper {
            return Err(Failure::refused("Numerical result out of range"));
        }
        Ok(())
    }

    fn request(&self) -> Result<Request, Failure> {
        // Only marks and commands without a service lack an address here.
        let address = self.service.unwrap_or(AddressPort { address: IpAddr::from([0; 4]), port: None });
        let of_address = ServiceKey { protocol: self.protocol, address: address.address, port: address.port.unwrap_or(0) };
        let key = self.mark.map_or(of_address, |mark| ServiceKey::marked(mark, self.ipv6));
        Ok(match self.command {
            Command::AddService => Request::AddService(ServiceSpec {
                protocol: key.protocol,
                address: key.address,
                port: key.port,
                scheduler: self.scheduler()?,
                flags: self.scheduler_flags()?,
                persistence: self.persistence(),
                one_packet: self.has(Named::Ops),
                health: None,
                no_real_server: NoRealServer::default(),
                timeouts: None,
                real_servers: Vec::new(),
            }),
            Command::EditService => {
                let patch = ServicePatch {
                    scheduler: Some(self.scheduler()?),
                    flags: Some(self.scheduler_flags()?),
                    persistence: Some(self.persistence()),
                    one_packet: Some(self.has(Named::Ops)),
                    // What ipvsadm has no options for stays as it is.
                    ..ServicePatch::default()
                };
                Request::EditService(key, patch)
            }
            Command::DeleteService => Request::DeleteService(key),
            Command::Flush => Request::Clear,
            Command::List => Request::List(self.listing(key)),
            Command::AddServer => {
                let (address, port) = self.server(key);
                let (upper_threshold, lower_threshold) = self.thresholds;
                let spec = RealServerSpec {
                    address,
                    port: Some(port),
                    weight: self.weight,
                    upper_threshold,
                    lower_threshold,
                    method: self.method,
                    tunnel: self.tunnel(),
                    mac: None,
                    health: None,
                };
                Request::AddServer(key, spec)
            }
            Command::EditServer => {
                let patch = RealServerPatch {
                    weight: Some(self.weight),
                    upper_threshold: Some(self.thresholds.0),
                    lower_threshold: Some(self.thresholds.1),
                    method: Some(self.method),
                    tunnel: self.tunnel(),
                    ..RealServerPatch::default()
                };
                Request::EditServer(key, self.server(key), patch)
            }
            Command::DeleteServer => Request::DeleteServer(key, self.server(key)),
            Command::Set => Request::Set(self.timeouts),
            Command::Restore => Request::Restore,
            Command::Save => Request::Save(self.has(Named::Numeric)),
            Command::Zero => Request::Zero(self.has(Named::ServiceAddress).then_some(key)),
            Command::Version => Request::Version,
            Command::Help | Command::StartDaemon | Command::StopDaemon => Request::Help,
        })
    }

    fn tunnel(&self) -> Option<Tunnel> {
        Some(self.tunnel).filter(|_| self.method == Method::Tunnel)
    }

    fn scheduler(&self) -> Result<Scheduler, Failure> {
        let Some(name) = &self.scheduler else { return Ok(Scheduler::default()) };
        scheduler_named(name).ok_or_else(|| Failure::refused("Scheduler or persistence engine not found"))
    }

    /// What `-p` and `-M` ask for. A mask without persistence means nothing to IPVS either.
    fn persistence(&self) -> Option<Persistence> {
        self.has(Named::Persistent).then_some(self.persistence)
    }

    fn scheduler_flags(&self) -> Result<BTreeSet<SchedulerFlag>, Failure> {
        Ok(flags_named(self.scheduler()?, &self.flags))
    }

    /// RIP and rport: direct routing and tunnels leave the packet's port alone, so theirs is always the service's.
    fn server(&self, key: ServiceKey) -> (IpAddr, u16) {
        let server = self.server.unwrap_or(AddressPort { address: key.address, port: None });
        let forced = matches!(self.command, Command::AddServer | Command::EditServer) && self.method != Method::Masquerading;
        let port = if forced { None } else { server.port };
        (server.address, port.unwrap_or(key.port))
    }

    fn listing(&self, key: ServiceKey) -> Listing {
        let subject = [
            (Named::Connection, Subject::Connections),
            (Named::ServiceAddress, Subject::Service(key)),
            (Named::Timeout, Subject::Timeouts),
            (Named::Daemon, Subject::Daemon),
        ];
        let columns = [
            (Named::Stats, Columns::Stats),
            (Named::Rate, Columns::Rate),
            (Named::Thresholds, Columns::Thresholds),
            (Named::PersistentConn, Columns::PersistentConn),
            (Named::TunInfo, Columns::TunInfo),
        ];
        Listing {
            subject: subject.iter().find(|(option, _)| self.has(*option)).map_or(Subject::Services, |found| found.1),
            columns: columns.iter().find(|(option, _)| self.has(*option)).map_or(Columns::Plain, |found| found.1),
            numeric: self.has(Named::Numeric),
            exact: self.has(Named::Exact),
            sorted: !self.has(Named::NoSort),
        }
    }
}

/// The flags of `-b` for a scheduler. Those without a name of their own stand for the flags of sh and mh, which have no third one;
/// to other schedulers they mean nothing, and are kept.
pub(crate) fn flags_named(scheduler: Scheduler, names: &[String]) -> BTreeSet<SchedulerFlag> {
    use SchedulerFlag as F;
    let [first, second, third] = match scheduler {
        Scheduler::Sh => [Some(F::ShFallback), Some(F::ShPort), None],
        Scheduler::Mh => [Some(F::MhFallback), Some(F::MhPort), None],
        _ => [Some(F::Flag1), Some(F::Flag2), Some(F::Flag3)],
    };
    let flags = names.iter().filter_map(|flag| match flag.as_str() {
        "sh-fallback" | "mh-fallback" | "flag-1" => first,
        "sh-port" | "mh-port" | "flag-2" => second,
        _ => third,
    });
    flags.collect()
}

/// The scheduler of that name.
pub(crate) fn scheduler_named(name: &str) -> Option<Scheduler> {
    let name: serde::de::value::StrDeserializer<'_, ValueError> = name.into_deserializer();
    Scheduler::deserialize(name).ok()
}

/// Reads a line of arguments (without the program's name).
///
/// # Errors
/// The first fault in ipvsadm's order, with its exit code.
pub fn parse(arguments: &[String], names: &Names) -> Result<Request, Failure> {
    let mut scanner = Scanner::new(arguments);
    let Some(Ok(Found { option: Opt::Command(command), value, .. })) = scanner.next() else {
        return Err(Failure::refused("Try `ipvsadm -h' or 'ipvsadm --help' for more information."));
    };
    let role = value.as_deref().unwrap_or("master");
    match command {
        Command::Help => return Ok(Request::Help),
        Command::Version => return Ok(Request::Version),
        Command::StartDaemon if !matches!(role, "master" | "backup") => {
            return Err(Failure::usage("illegal start-daemon parameter specified"));
        }
        Command::StopDaemon if !matches!(role, "master" | "backup") => {
            return Err(Failure::usage("illegal start_daemon specified"));
        }
        _ => {}
    }
    let mut line = Line {
        command,
        given: 0,
        protocol: Protocol::Tcp,
        service: None,
        mark: None,
        ipv6: false,
        scheduler: None,
        engine: false,
        flags: Vec::new(),
        persistence: Persistence { timeout: PERSISTENT_TIMEOUT, ..Persistence::default() },
        server: None,
        method: Method::DirectRouting,
        tunnel: Tunnel::default(),
        weight: 1,
        thresholds: (0, 0),
        timeouts: [0; 3],
    };
    for found in scanner.by_ref() {
        line.take(&found.map_err(Failure::refused)?, names)?;
    }
    let mut rest = scanner.rest.as_slice();
    if command == Command::Set {
        let (given, beyond) = rest.split_first_chunk::<3>().ok_or_else(|| Failure::usage("--set option requires 3 timeout values"))?;
        for (seconds, text) in line.timeouts.iter_mut().zip(given) {
            *seconds = timeout(text, 0)?;
        }
        rest = beyond;
    }
    if let Some(argument) = rest.first() {
        return Err(Failure::usage(format_args!("unexpected argument {argument}")));
    }
    line.check_flags()?;
    line.check_rules(|option| command.rule(option), &format!("'{}' command", command.name()))?;
    line.check_meaning()?;
    unbuilt(&line).map_or(Ok(()), |text| Err(Failure::refused(text)))?;
    line.request()
}

/// A group must be a multicast address; what is no IPv6 address is judged as one of IPv4.
fn mcast_group(text: &str) -> Result<(), Failure> {
    let (family, good) = match text.parse::<std::net::Ipv6Addr>() {
        Ok(address) => ("IPv6", address.is_multicast()),
        Err(_) => ("IPv4", ipv4(text).is_some_and(|address| address.is_multicast())),
    };
    if good { Ok(()) } else { Err(Failure::usage(format_args!("invalid {family} mcast-group `{text}'"))) }
}

fn timeout(text: &str, least: i64) -> Result<u32, Failure> {
    let bad = || Failure::usage(format_args!("invalid timeout value `{text}' specified"));
    number(text, least, MAX_TIMEOUT).and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(bad)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
