//! ipvsadm's options: their spellings, and which command takes which of them (ipvsadm(8)).

/// A command: what the first option of a line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-L`, `-l`
    List,
    /// `-a`
    AddServer,
    /// `-d`
    DeleteServer,
    /// `-e`
    EditServer,
    /// `--set`
    Set,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-Z`
    Zero,
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// What an option means to the rules below: several spellings can be one (`-t` and `-u` are both the service's address).
/// The order is the one in which ipvsadm checks them, so it decides which of two faults is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Named {
    /// `-n`
    Numeric,
    /// `-c`
    Connection,
    /// `-t`, `-u`, `--sctp-service`, `-f`
    ServiceAddress,
    /// `-s`
    Scheduler,
    /// `-p`
    Persistent,
    /// `-M`
    Netmask,
    /// `-r`
    RealServer,
    /// `-g`, `-i`, `-m`
    ForwardingMethod,
    /// `-w`
    Weight,
    /// `-x`
    UpperThreshold,
    /// `-y`
    LowerThreshold,
    /// `--mcast-interface`
    McastInterface,
    /// `--timeout`
    Timeout,
    /// `--daemon`
    Daemon,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--nosort`
    NoSort,
    /// `--syncid`
    SyncId,
    /// `--exact`
    Exact,
    /// `-o`
    Ops,
    /// `--pe`
    Pe,
    /// `-b`
    SchedFlags,
    /// `--mcast-group`
    McastGroup,
    /// `--mcast-port`
    McastPort,
    /// `--mcast-ttl`
    McastTtl,
    /// `--sync-maxlen`
    SyncMaxlen,
    /// `--tun-info`
    TunInfo,
    /// `--tun-type`
    TunType,
    /// `--tun-port`
    TunPort,
    /// `--tun-nocsum`
    TunNocsum,
    /// `--tun-csum`
    TunCsum,
    /// `--tun-remcsum`
    TunRemcsum,
}

impl Named {
    /// All of them in checking order, with the names that messages use.
    pub const ALL: [(Self, &'static str); 34] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::ServiceAddress, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::RealServer, "real-server"),
        (Self::ForwardingMethod, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::UpperThreshold, "u-threshold"),
        (Self::LowerThreshold, "l-threshold"),
        (Self::McastInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::Ops, "ops"),
        (Self::Pe, "pe"),
        (Self::SchedFlags, "sched-flags"),
        (Self::McastGroup, "mcast-group"),
        (Self::McastPort, "mcast-port"),
        (Self::McastTtl, "mcast-ttl"),
        (Self::SyncMaxlen, "sync-maxlen"),
        (Self::TunInfo, "tun-info"),
        (Self::TunType, "tun-type"),
        (Self::TunPort, "tun-port"),
        (Self::TunNocsum, "tun-nocsum"),
        (Self::TunCsum, "tun-csum"),
        (Self::TunRemcsum, "tun-remcsum"),
    ];

    /// The name that messages use.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// How a command takes an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Not at all.
    Illegal,
    /// It may be there.
    Allowed,
    /// It must be there.
    Required,
    /// At most one of these may be there.
    Exclusive,
}

impl Command {
    /// The name that messages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::List => "list",
            Self::AddServer => "add-server",
            Self::DeleteServer => "delete-server",
            Self::EditServer => "edit-server",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
            Self::Help => "help",
            Self::Version => "version",
        }
    }

    /// How this command takes `option`.
    pub fn rule(self, option: Named) -> Rule {
        use Named as N;
        match (self, option) {
            (
                Self::AddService | Self::EditService | Self::DeleteService | Self::AddServer | Self::EditServer | Self::DeleteServer,
                N::ServiceAddress,
            )
            | (Self::AddServer | Self::EditServer | Self::DeleteServer, N::RealServer) => Rule::Required,
            (Self::List, N::Connection | N::ServiceAddress | N::Timeout | N::Daemon) => Rule::Exclusive,
            (Self::AddService | Self::EditService, N::Scheduler | N::Persistent | N::Netmask | N::Ops | N::Pe | N::SchedFlags)
            | (
                Self::AddServer | Self::EditServer,
                N::ForwardingMethod
                | N::Weight
                | N::UpperThreshold
                | N::LowerThreshold
                | N::TunType
                | N::TunPort
                | N::TunNocsum
                | N::TunCsum
                | N::TunRemcsum,
            )
            | (
                Self::List,
                N::Numeric | N::Stats | N::Rate | N::Thresholds | N::PersistentConn | N::NoSort | N::SyncId | N::Exact | N::TunInfo,
            )
            | (Self::StartDaemon, N::McastInterface | N::SyncId | N::McastGroup | N::McastPort | N::McastTtl | N::SyncMaxlen)
            | (Self::StopDaemon, N::SyncId)
            | (Self::Save, N::Numeric)
            | (Self::Zero, N::ServiceAddress) => Rule::Allowed,
            _ => Rule::Illegal,
        }
    }
}

/// How a tunnel of that type takes `option`; what is not about tunnels is allowed.
pub fn tunnel_rule(kind: &str, option: Named) -> Rule {
    use Named as N;
    match (kind, option) {
        ("gue", N::TunPort) => Rule::Required,
        ("gue", N::TunNocsum | N::TunCsum | N::TunRemcsum) | ("gre", N::TunNocsum | N::TunCsum) => Rule::Exclusive,
        (_, N::TunPort | N::TunNocsum | N::TunCsum | N::TunRemcsum) => Rule::Illegal,
        _ => Rule::Allowed,
    }
}

/// An option as it is spelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opt {
    /// One that says what to do.
    Command(Command),
    /// `-t`
    Tcp,
    /// `-u`
    Udp,
    /// `--sctp-service`
    Sctp,
    /// `-f`
    Mark,
    /// `-6`
    Ipv6,
    /// `-g`
    Gatewaying,
    /// `-i`
    Ipip,
    /// `-m`
    Masquerading,
    /// `--sort`: nothing, listings are sorted anyway
    Sort,
    /// One that is its own name in the rules.
    Named(Named),
}

/// Whether an option takes a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// It does not.
    Nothing,
    /// It does.
    Value,
    /// The next argument is its value unless that starts with a dash.
    MaybeValue,
}

/// Every spelling: long name, short name, meaning, value.
pub const OPTIONS: &[(&str, Option<char>, Opt, Takes)] = {
    use Command as C;
    use Named as N;
    use Opt::Named as O;
    use Takes::{MaybeValue, Nothing, Value};
    &[
        ("add-service", Some('A'), Opt::Command(C::AddService), Nothing),
        ("edit-service", Some('E'), Opt::Command(C::EditService), Nothing),
        ("delete-service", Some('D'), Opt::Command(C::DeleteService), Nothing),
        ("clear", Some('C'), Opt::Command(C::Flush), Nothing),
        ("list", Some('L'), Opt::Command(C::List), Nothing),
        ("list", Some('l'), Opt::Command(C::List), Nothing),
        ("zero", Some('Z'), Opt::Command(C::Zero), Nothing),
        ("add-server", Some('a'), Opt::Command(C::AddServer), Nothing),
        ("edit-server", Some('e'), Opt::Command(C::EditServer), Nothing),
        ("delete-server", Some('d'), Opt::Command(C::DeleteServer), Nothing),
        ("set", None, Opt::Command(C::Set), Nothing),
        ("help", Some('h'), Opt::Command(C::Help), Nothing),
        ("version", Some('v'), Opt::Command(C::Version), Nothing),
        ("restore", Some('R'), Opt::Command(C::Restore), Nothing),
        ("save", Some('S'), Opt::Command(C::Save), Nothing),
        ("start-daemon", None, Opt::Command(C::StartDaemon), Value),
        ("stop-daemon", None, Opt::Command(C::StopDaemon), Value),
        ("tcp-service", Some('t'), Opt::Tcp, Value),
        ("udp-service", Some('u'), Opt::Udp, Value),
        ("sctp-service", None, Opt::Sctp, Value),
        ("fwmark-service", Some('f'), Opt::Mark, Value),
        ("scheduler", Some('s'), O(N::Scheduler), Value),
        ("persistent", Some('p'), O(N::Persistent), MaybeValue),
        ("netmask", Some('M'), O(N::Netmask), Value),
        ("real-server", Some('r'), O(N::RealServer), Value),
        ("masquerading", Some('m'), Opt::Masquerading, Nothing),
        ("ipip", Some('i'), Opt::Ipip, Nothing),
        ("gatewaying", Some('g'), Opt::Gatewaying, Nothing),
        ("weight", Some('w'), O(N::Weight), Value),
        ("u-threshold", Some('x'), O(N::UpperThreshold), Value),
        ("l-threshold", Some('y'), O(N::LowerThreshold), Value),
        ("numeric", Some('n'), O(N::Numeric), Nothing),
        ("connection", Some('c'), O(N::Connection), Nothing),
        ("mcast-interface", None, O(N::McastInterface), Value),
        ("syncid", None, O(N::SyncId), Value),
        ("timeout", None, O(N::Timeout), Nothing),
        ("daemon", None, O(N::Daemon), Nothing),
        ("stats", None, O(N::Stats), Nothing),
        ("rate", None, O(N::Rate), Nothing),
        ("thresholds", None, O(N::Thresholds), Nothing),
        ("persistent-conn", None, O(N::PersistentConn), Nothing),
        ("nosort", None, O(N::NoSort), Nothing),
        ("sort", None, Opt::Sort, Nothing),
        ("exact", Some('X'), O(N::Exact), Nothing),
        ("ipv6", Some('6'), Opt::Ipv6, Nothing),
        ("ops", Some('o'), O(N::Ops), Nothing),
        ("pe", None, O(N::Pe), Value),
        ("sched-flags", Some('b'), O(N::SchedFlags), Value),
        ("tun-info", None, O(N::TunInfo), Nothing),
        ("tun-type", None, O(N::TunType), Value),
        ("tun-port", None, O(N::TunPort), Value),
        ("tun-nocsum", None, O(N::TunNocsum), Nothing),
        ("tun-csum", None, O(N::TunCsum), Nothing),
        ("tun-remcsum", None, O(N::TunRemcsum), Nothing),
        ("sync-maxlen", None, O(N::SyncMaxlen), Value),
        ("mcast-group", None, O(N::McastGroup), Value),
        ("mcast-port", None, O(N::McastPort), Value),
        ("mcast-ttl", None, O(N::McastTtl), Value),
    ]
};
