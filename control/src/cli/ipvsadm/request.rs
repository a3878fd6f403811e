//! What a line of ipvsadm's asks for, and how one ends that cannot be done.

use std::fmt;
use std::net::IpAddr;

use crate::model::{RealServerPatch, RealServerSpec, ServiceKey, ServicePatch, ServiceSpec};

/// What ends a command before it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The message.
    pub text: String,
}

impl Failure {
    /// A line that is wrong in itself: exit code 2.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self { code: 2, text: text.to_string() }
    }

    /// A line that cannot be done: exit code 255.
    pub fn refused(text: impl fmt::Display) -> Self {
        Self { code: 255, text: text.to_string() }
    }
}

/// The columns of a listing of services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Columns {
    /// Forwarding method, weight, connections.
    Plain,
    /// `--stats`
    Stats,
    /// `--rate`
    Rate,
    /// `--thresholds`
    Thresholds,
    /// `--persistent-conn`
    PersistentConn,
    /// `--tun-info`
    TunInfo,
}

/// What `-L` lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// All services.
    Services,
    /// One service.
    Service(ServiceKey),
    /// `-c`
    Connections,
    /// `--timeout`
    Timeouts,
    /// `--daemon`
    Daemon,
}

/// A `-L` line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listing {
    /// What is listed.
    pub subject: Subject,
    /// With which columns.
    pub columns: Columns,
    /// `-n`: numbers instead of names.
    pub numeric: bool,
    /// `--exact`: whole numbers instead of K, M, G and T.
    pub exact: bool,
    /// Not `--nosort`.
    pub sorted: bool,
}

/// What a line asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// `-A`
    AddService(ServiceSpec),
    /// `-E`
    EditService(ServiceKey, ServicePatch),
    /// `-D`
    DeleteService(ServiceKey),
    /// `-C`
    Clear,
    /// `-L`
    List(Listing),
    /// `-a`
    AddServer(ServiceKey, RealServerSpec),
    /// `-e`: RIP, rport, change.
    EditServer(ServiceKey, (IpAddr, u16), RealServerPatch),
    /// `-d`: RIP, rport.
    DeleteServer(ServiceKey, (IpAddr, u16)),
    /// `--set`: seconds for tcp, tcpfin, udp; 0 leaves one as it is.
    Set([u32; 3]),
    /// `-R`
    Restore,
    /// `-S`, numeric or not.
    Save(bool),
    /// `-Z`
    Zero(Option<ServiceKey>),
    /// `-h`
    Help,
    /// `-v`
    Version,
}
