//! A check with everything that it needs to know: what a service's and a real server's `health` come to.

mod what;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::service::Encapsulation;

pub(crate) use what::bytes;
pub use what::{Call, Datagram, Lookup, Program, Question, Trust, What, without_port};

use crate::model::{CheckType, HealthSpec, Method, Profile, ServiceKey, Span, Via};

/// A check; equal ones are made once, however many services need them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Check {
    /// What is asked and what a good answer is.
    pub what: What,
    /// Where to.
    pub way: Way,
    /// When, and how often before it counts.
    pub times: Times,
}

/// Where a check goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// To RIP and port, as the kernel routes it.
    Direct(SocketAddr),
    /// To the VIP at this real server.
    Path {
        /// The way from the director to the real server.
        path: Path,
        /// The port that is asked.
        port: u16,
        /// Where the real server itself would answer.
        rip: SocketAddr,
        /// Our own address, of the VIP's family, on the port that requests leave by.
        own: IpAddr,
    },
}

impl Way {
    /// The address and port that the request is for.
    pub fn target(&self) -> SocketAddr {
        match self {
            Self::Direct(rip) => *rip,
            Self::Path { path, port, .. } => SocketAddr::new(path.vip, *port),
        }
    }
}

/// The way that clients' packets for a VIP take from the director to a real server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// The index of the port that they leave by.
    pub link: u16,
    /// Whose MAC they get: the real server's address or a gateway's.
    pub neighbour: IpAddr,
    /// A MAC that was given by hand.
    pub fixed: Option<[u8; 6]>,
    /// For tunnels: our end, the RIP, and what stands between the headers.
    pub tunnel: Option<(IpAddr, IpAddr, Encapsulation)>,
    /// The VIP.
    pub vip: IpAddr,
}

/// When a check is made, and how often before it counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Times {
    /// From beginning to beginning.
    pub interval: Duration,
    /// The same while it fails.
    pub interval_down: Duration,
    /// For one check in all.
    pub timeout: Duration,
    /// By how much intervals are shortened at most, in percent.
    pub jitter: u8,
    /// Successes in a row that count.
    pub rise: u32,
    /// Failures in a row that count.
    pub fall: u32,
}

/// A real server as checks need to know it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its service.
    pub service: ServiceKey,
    /// RIP and rport.
    pub server: SocketAddr,
    /// Its forwarding method.
    pub method: Method,
    /// Index of the port that its frames leave by.
    pub link: u16,
    /// Whose MAC they get.
    pub neighbour: IpAddr,
    /// A MAC that was given by hand.
    pub fixed: Option<[u8; 6]>,
    /// Our own address of the VIP's family on that port, if it has one.
    pub own: Option<IpAddr>,
    /// Our end of its tunnel, and the kind of the tunnel.
    pub tunnel: Option<(IpAddr, Encapsulation)>,
}

/// The way that a check takes where `via` does not say it.
pub fn usual_way(service: ServiceKey, method: Method, kind: Option<CheckType>) -> Via {
    let direct = service.mark().is_some() || method == Method::Masquerading || kind == Some(CheckType::Exec);
    if direct { Via::Direct } else { Via::Path }
}

impl Check {
    /// The check that `spec`, which passed validation, means for a real server; `None` when it means none.
    pub fn new(spec: &HealthSpec, place: &Place) -> Option<Self> {
        let kind = spec.kind.filter(|kind| *kind != CheckType::None)?;
        let way = if kind == CheckType::Arp { Way::arp(place) } else { Way::new(spec, place)? };
        let what = What::new(spec, way.target(), place.service)?;
        Some(Self { what, way, times: Times::of(spec) })
    }
}

impl Way {
    /// `None` when the port has no address of the VIP's family, which validation lets nobody ask for.
    fn new(spec: &HealthSpec, place: &Place) -> Option<Self> {
        let via = if place.method == Method::Masquerading {
            // What the director would make of a packet for the VIP is a packet to the RIP.
            Via::Direct
        } else {
            spec.via.unwrap_or_else(|| usual_way(place.service, place.method, spec.kind))
        };
        // An echo has no port: services of one VIP have it in common.
        let port = |usual| if spec.kind == Some(CheckType::Ping) { 0 } else { spec.port.unwrap_or(usual) };
        let rip = SocketAddr::new(place.server.ip(), port(place.server.port()));
        Some(match via {
            Via::Direct => Self::Direct(rip),
            Via::Path => Self::Path { path: place.path(), port: port(place.service.port), rip, own: place.own? },
        })
    }

    fn arp(place: &Place) -> Self {
        let path = Path { vip: place.server.ip(), tunnel: None, ..place.path() };
        Self::Path { path, port: 0, rip: place.server, own: place.server.ip() }
    }
}

impl Place {
    fn path(&self) -> Path {
        let tunnel = self.tunnel.filter(|_| self.method == Method::Tunnel).map(|(source, kind)| (source, self.server.ip(), kind));
        Path { link: self.link, neighbour: self.neighbour, fixed: self.fixed, tunnel, vip: self.service.address }
    }
}

impl Times {
    /// The times that `spec` comes to with its profile.
    pub fn of(spec: &HealthSpec) -> Self {
        let fast = spec.profile == Some(Profile::Fast);
        let usual = |given: Option<Span>, slow: u64, fast_ones: u64| {
            given.map_or(Duration::from_millis(if fast { fast_ones } else { slow }), |span| span.0)
        };
        let interval = usual(spec.interval, 2_000, 100);
        Self {
            interval,
            interval_down: spec.interval_down.map_or_else(|| interval.min(Duration::from_secs(1)), |span| span.0),
            timeout: usual(spec.timeout, 1_000, 100),
            jitter: spec.jitter.unwrap_or(10),
            rise: spec.rise.unwrap_or(2),
            fall: spec.fall.unwrap_or(1),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.what.kind();
        match &self.what {
            What::Arp => return write!(f, "arp of {}", self.way.target().ip()),
            What::Exec(program) => {
                return write!(f, "exec of {} for {}", program.command.first().map_or("", String::as_str), self.way.target());
            }
            _ => {}
        }
        let way = if matches!(self.way, Way::Direct(_)) { "directly" } else { "on the clients' path" };
        let target = self.way.target();
        if kind == CheckType::Ping {
            return write!(f, "ping to {} {way}", target.ip());
        }
        write!(f, "{} to {target} {way}", kind.as_str())
    }
}

/// What a real server's own `health` makes of its service's: field by field, the real server's counts.
pub fn merged(service: Option<&HealthSpec>, server: Option<&HealthSpec>) -> Option<HealthSpec> {
    let (Some(of_service), Some(own)) = (service, server) else { return service.or(server).cloned() };
    let mut headers = of_service.headers.clone();
    headers.extend(own.headers.clone());
    macro_rules! either {
        ($($field:ident),*) => {
            HealthSpec { headers, $($field: own.$field.clone().or_else(|| of_service.$field.clone()),)* }
        };
    }
    Some(either!(
        kind,
        profile,
        via,
        port,
        interval,
        interval_down,
        timeout,
        jitter,
        rise,
        fall,
        path,
        host,
        method,
        status,
        body,
        sni,
        ca,
        verify,
        on_failure,
        quorum,
        quorum_hysteresis,
        panic,
        sorry_server,
        send,
        send_hex,
        answer,
        name,
        record,
        rcode,
        expect,
        grpc_service,
        tls,
        command,
        slow_start,
        slow_start_connections,
        hints
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            service: "tcp:10.10.24.88:80".parse().unwrap(),
            server: "10.10.24.21:80".parse().unwrap(),
            method: Method::DirectRouting,
            link: 0,
            neighbour: IpAddr::from([10, 10, 24, 21]),
            fixed: None,
            own: Some(IpAddr::from([10, 10, 24, 10])),
            tunnel: None,
        }
    }

    fn spec(json: &str) -> HealthSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn check_goes_the_clients_way_unless_told_otherwise() {
        let check = Check::new(&spec(r#"{"type": "http"}"#), &place()).unwrap();
        assert_eq!(check.to_string(), "http to 10.10.24.88:80 on the clients' path");
        let check = Check::new(&spec(r#"{"type": "tcp", "via": "direct", "port": 8080}"#), &place()).unwrap();
        assert_eq!(check.to_string(), "tcp to 10.10.24.21:8080 directly");
        let marked = Place { service: "mark:7".parse().unwrap(), ..place() };
        let check = Check::new(&spec(r#"{"type": "tcp", "port": 80}"#), &marked).unwrap();
        assert_eq!(check.way, Way::Direct("10.10.24.21:80".parse().unwrap()));
        let masqueraded = Place { method: Method::Masquerading, ..place() };
        assert!(matches!(Check::new(&spec(r#"{"type": "tcp", "via": "path"}"#), &masqueraded).unwrap().way, Way::Direct(_)));
    }

    #[test]
    fn services_that_check_the_same_thing_have_one_check() {
        let other = Place { service: "tcp:10.10.24.88:443".parse().unwrap(), ..place() };
        let same = spec(r#"{"type": "tcp", "port": 80}"#);
        assert_eq!(Check::new(&same, &place()).unwrap().way.target(), Check::new(&same, &other).unwrap().way.target());
        let direct = spec(r#"{"type": "tcp", "port": 80, "via": "direct"}"#);
        assert_eq!(Check::new(&direct, &place()), Check::new(&direct, &other));
    }

    #[test]
    fn death_is_noticed_in_time_by_default_and_by_the_fast_profile() {
        for (json, bound) in [(r#"{"type": "tcp"}"#, 3_500), (r#"{"type": "tcp", "profile": "fast"}"#, 300)] {
            let times = Times::of(&spec(json));
            // The worst: it dies just after a check began, and each check fails only by its timeout.
            let worst = times.interval + times.timeout + times.interval_down.max(times.timeout) * (times.fall - 1);
            assert!(worst < Duration::from_millis(bound), "{worst:?}");
        }
    }

    #[test]
    fn real_servers_own_fields_come_before_its_services() {
        let service = spec(r#"{"type": "http", "port": 80, "headers": {"a": "1", "b": "2"}}"#);
        let own = spec(r#"{"port": 81, "headers": {"b": "3"}}"#);
        let both = merged(Some(&service), Some(&own)).unwrap();
        assert_eq!((both.kind, both.port), (Some(CheckType::Http), Some(81)));
        assert_eq!(both.headers.into_values().collect::<Vec<_>>(), ["1", "3"]);
        let none = merged(Some(&service), Some(&spec(r#"{"type": "none"}"#))).unwrap();
        assert_eq!(Check::new(&none, &place()), None);
    }
}
