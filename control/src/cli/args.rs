//! The command line as clap reads it.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::changes::{Manner, Source};
use super::client::reach::Reach;
use super::connections::Filter;
use super::events::Chosen;
use super::get::Output;
use super::import::Import;
use super::marks::Rule;
use super::plan;
use super::token::NewToken;

/// Baton: a Linux Virtual Server director on DPDK.
#[derive(Parser, Debug)]
#[command(
    name = "baton",
    version,
    after_help = "Example:\n  baton run --config /etc/baton/baton.toml\n  baton ipvsadm -A -t 10.10.24.88:80 -s rr\n  baton ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -g\n  baton get services"
)]
pub struct Cli {
    /// How the director is reached.
    #[command(flatten)]
    pub reach: Reach,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the director
    #[command(after_help = "Example:\n  baton run --config /etc/baton/baton.toml")]
    Run(ConfigFile),
    /// Check a configuration: every fault at once, with line and column
    #[command(after_help = "Example:\n  baton check --config /etc/baton/baton.toml")]
    Check(ConfigFile),
    /// Write what ipvsadm, keepalived or ldirectord have as baton.toml, and name every line that is not in it
    #[command(
        after_help = "Example:\n  baton import /etc/keepalived/keepalived.conf > new.toml\n  ipvsadm -Sn | baton import --config /etc/baton/baton.toml - > new.toml\n  baton import --from ldirectord /etc/ha.d/ldirectord.cf > new.toml\n\nExit code 0: all is carried over; 1: some lines are not, or not as they were; 2: nothing could be read."
    )]
    Import(Import),
    /// ipvsadm's own command line
    #[command(
        disable_help_flag = true,
        after_help = "Example:\n  baton ipvsadm -A -t 10.10.24.88:80 -s rr\n  baton ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -g\n  baton ipvsadm -ln\n\nAll of ipvsadm's options: baton ipvsadm -h. A link named ipvsadm to this program works the same."
    )]
    Ipvsadm(Foreign),
    /// Save all rules to standard output, as ipvsadm-save
    #[command(name = "ipvsadm-save", disable_help_flag = true, after_help = "Example:\n  baton ipvsadm-save -n > rules")]
    IpvsadmSave(Foreign),
    /// Replace all rules by those on standard input, as ipvsadm-restore, but all or none
    #[command(name = "ipvsadm-restore", disable_help_flag = true, after_help = "Example:\n  baton ipvsadm-restore < rules")]
    IpvsadmRestore(Foreign),
    /// Show what the director does
    #[command(after_help = "Example:\n  baton get services\n  baton get connections --client 198.51.100.7 -o json")]
    Get(Get),
    /// Show what happened: health, quorums, links, conflicts, changes
    #[command(after_help = "Example:\n  baton events --kind health-changed,quorum-lost\n  baton events --watch")]
    Events(Events),
    /// End connection entries
    #[command(after_help = "Example:\n  baton connections flush --service tcp:10.10.24.88:80")]
    Connections(Connections),
    /// Add and remove mark rules, which say whose packets are a service's by mark (ipvsadm -f)
    #[command(
        after_help = "Example:\n  baton marks add 7 --destination 10.10.24.88 --protocol tcp --ports 80,443\n  baton ipvsadm -A -f 7 -s rr -p"
    )]
    Marks(Marks),
    /// Show and change settings, by IPVS's sysctl names
    #[command(after_help = "Example:\n  baton settings set sloppy_tcp=1 timeout_tcp=600")]
    Settings(Settings),
    /// Look whether this machine is fit for a director, and every real server on the path; exit code 1 when anything fails
    #[command(after_help = "Example:\n  baton doctor\n  baton doctor --config /etc/baton/baton.toml --json")]
    Doctor(super::doctor::Line),
    /// Drain a real server: no new connections, time for the old ones to end
    #[command(
        after_help = "Example:\n  baton drain tcp:10.10.24.88:80 10.10.24.21 --deadline 300s --then reset --wait\n  baton drain tcp:10.10.24.88:80 10.10.24.21 --cancel"
    )]
    Drain(super::drain::Line),
    /// Make the configuration what a file says, all or nothing; what is the same stays untouched
    #[command(after_help = "Example:\n  baton apply -f baton.toml --dry-run\n  baton apply -f baton.toml")]
    Apply {
        /// What to apply.
        #[command(flatten)]
        source: Source,
        /// Change nothing: show what would be
        #[arg(long)]
        dry_run: bool,
    },
    /// Show how the configuration differs from a file: exit code 0 when it does not, 1 when it does, 2 when that is not known
    #[command(after_help = "Example:\n  baton diff -f /etc/baton/baton.toml\n  baton diff -f document.json -o json")]
    Diff(Source),
    /// Read baton.toml again, and apply what is different from when it was last applied
    #[command(
        after_help = "Example:\n  baton reload --dry-run\n  baton reload\n\nWhat was changed otherwise, and not in the file, stays. A difference in keys that are read at start only is refused with their names."
    )]
    Reload(Manner),
    /// Plan a director for this machine: memory, huge pages, queues, kernel command line and a baton.toml with all of it
    #[command(
        after_help = "Example:\n  baton plan --port 0000:03:00.0 --workers 4 --connections 10M > baton.toml\n  baton check --config baton.toml"
    )]
    Plan(plan::Line),
    /// Show the last 50 changes: who, when, what; or the configuration as it was in one revision
    #[command(after_help = "Example:\n  baton history\n  baton history 41 > document.json")]
    History {
        /// Print the configuration of this revision
        #[arg(value_name = "REVISION")]
        revision: Option<u64>,
        /// How to show the changes
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Make the configuration what it was in an earlier revision
    #[command(after_help = "Example:\n  baton rollback --dry-run\n  baton rollback 41")]
    Rollback {
        /// The revision; the kept one before the present one when not given
        #[arg(value_name = "REVISION")]
        revision: Option<u64>,
        /// How.
        #[command(flatten)]
        manner: Manner,
    },
    /// List every error that the API and the commands know, by its stable name
    #[command(after_help = "Example:\n  baton errors")]
    Errors {
        /// How to show them
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Take VIPs that other machines have
    #[command(after_help = "Example:\n  baton get vips\n  baton vips take 10.10.24.88")]
    Vips(Vips),
    /// Let a real server out of quarantine, where it is because it answers for a VIP
    #[command(after_help = "Example:\n  baton release tcp:10.10.24.88:80 10.10.24.21")]
    Release {
        /// The virtual service
        #[arg(value_name = "SERVICE")]
        service: String,
        /// The real server: RIP, or RIP:RPORT
        #[arg(value_name = "RIP")]
        server: String,
    },
    /// Prepare this machine to be a real server
    #[command(
        name = "realserver",
        after_help = "Example:\n  baton realserver apply --vip 10.10.24.88\n  baton realserver check --vip 10.10.24.88"
    )]
    RealServer(RealServer),
    /// Make a token for the API over TCP: print it, and say on standard error what goes into baton.toml
    #[command(after_help = "Example:\n  baton token --name prometheus --role read > prometheus.token")]
    Token(NewToken),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  baton completions bash > /etc/bash_completion.d/baton")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page baton(8)
    #[command(after_help = "Example:\n  baton man > baton.8")]
    Man,
}

/// A configuration file.
#[derive(Args, Debug)]
pub struct ConfigFile {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = "/etc/baton/baton.toml")]
    pub config: PathBuf,
}

/// Arguments that another grammar reads.
#[derive(Args, Debug)]
pub struct Foreign {
    /// ipvsadm's options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    pub arguments: Vec<String>,
}

/// `baton get`.
#[derive(Args, Debug)]
pub struct Get {
    /// What to show.
    #[command(subcommand)]
    pub what: What,
    /// How to show it
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
}

/// What there is to get.
#[derive(Subcommand, Debug)]
pub enum What {
    /// Virtual services and their real servers
    #[command(after_help = "Example:\n  baton get services -o json")]
    Services,
    /// Connection entries
    #[command(after_help = "Example:\n  baton get connections --service tcp:10.10.24.88:80 --limit 20")]
    Connections {
        /// Which ones.
        #[command(flatten)]
        filter: Filter,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Mark rules, in the order in which packets meet them
    #[command(after_help = "Example:\n  baton get marks")]
    Marks,
    /// Workers, and the version of the configuration that each one runs
    #[command(after_help = "Example:\n  baton get workers")]
    Workers,
    /// Ports
    #[command(after_help = "Example:\n  baton get ports -o json")]
    Ports,
    /// Neighbours: real servers and gateways with their MACs
    #[command(after_help = "Example:\n  baton get neighbours")]
    Neighbours,
    /// VIPs, and who else speaks for them
    #[command(after_help = "Example:\n  baton get vips")]
    Vips,
}

/// `baton events`.
#[derive(Args, Debug)]
pub struct Events {
    /// Which ones.
    #[command(flatten)]
    pub chosen: Chosen,
    /// Go on with what happens, until interrupted
    #[arg(long, short)]
    pub watch: bool,
    /// How to show them; json is one document a line
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// `baton connections`.
#[derive(Args, Debug)]
pub struct Connections {
    /// What to do with them.
    #[command(subcommand)]
    pub action: ConnectionsAction,
}

/// What can be done with connection entries.
#[derive(Subcommand, Debug)]
pub enum ConnectionsAction {
    /// End them: the next packet of each is scheduled anew, or dropped
    #[command(after_help = "Example:\n  baton connections flush --service tcp:10.10.24.88:80\n  baton connections flush --yes")]
    Flush {
        /// Which ones.
        #[command(flatten)]
        filter: Filter,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `baton marks`.
#[derive(Args, Debug)]
pub struct Marks {
    /// What to do with them.
    #[command(subcommand)]
    pub action: MarksAction,
}

/// What can be done with mark rules.
#[derive(Subcommand, Debug)]
pub enum MarksAction {
    /// Add a rule behind all others: a packet gets the mark of the first rule that matches
    #[command(
        after_help = "Example:\n  baton marks add 7 --destination 10.10.24.88 --protocol tcp --ports 80,443\n  baton marks add 8 --destination 192.0.2.0/24"
    )]
    Add(Rule),
    /// Remove every rule
    #[command(after_help = "Example:\n  baton marks clear")]
    Clear,
}

/// `baton settings`.
#[derive(Args, Debug)]
pub struct Settings {
    /// What to do with them.
    #[command(subcommand)]
    pub action: SettingsAction,
}

/// What can be done with settings.
#[derive(Subcommand, Debug)]
pub enum SettingsAction {
    /// Show settings
    #[command(after_help = "Example:\n  baton settings get\n  baton settings get sloppy_tcp")]
    Get {
        /// Which ones; all when none is named
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// How to show them
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Change settings, all that are named or none
    #[command(after_help = "Example:\n  baton settings set sloppy_tcp=1 expire_nodest_conn=1")]
    Set {
        /// NAME=VALUE
        #[arg(value_name = "NAME=VALUE", required = true)]
        changes: Vec<String>,
    },
    /// Put every setting back to its default
    #[command(after_help = "Example:\n  baton settings reset")]
    Reset,
}

/// `baton vips`.
#[derive(Args, Debug)]
pub struct Vips {
    /// What to do with them.
    #[command(subcommand)]
    pub action: VipsAction,
}

/// What can be done with VIPs.
#[derive(Subcommand, Debug)]
pub enum VipsAction {
    /// Take a VIP although another machine has it
    #[command(after_help = "Example:\n  baton vips take 10.10.24.88")]
    Take {
        /// The VIP
        #[arg(value_name = "VIP", value_parser = vip)]
        vip: IpAddr,
    },
}

/// `baton realserver`.
#[derive(Args, Debug)]
pub struct RealServer {
    /// What to do.
    #[command(subcommand)]
    pub action: RealServerAction,
}

/// What can be done on a real server.
#[derive(Subcommand, Debug)]
pub enum RealServerAction {
    /// Put the VIP on a device and keep the kernel from answering ARP for it
    #[command(
        after_help = "Example:\n  baton realserver apply --vip 10.10.24.88\n  baton realserver apply --vip 10.10.24.88 --vip fd00:10::88 --print"
    )]
    Apply {
        /// The VIP that it serves; can be given more than once
        #[arg(long = "vip", value_name = "VIP", required = true, value_parser = vip)]
        vips: Vec<IpAddr>,
        /// How it gets its requests.
        #[command(flatten)]
        ways: Ways,
        /// Print the commands and the files that make it last, and change nothing
        #[arg(long)]
        print: bool,
    },
    /// Say line by line what is right, what is wrong and what mends it; exit code 1 when anything is wrong
    #[command(after_help = "Example:\n  baton realserver check\n  baton realserver check --vip 10.10.24.88")]
    Check {
        /// The VIP; those that apply put there when none is named
        #[arg(long = "vip", value_name = "VIP", value_parser = vip)]
        vips: Vec<IpAddr>,
        /// How it gets its requests.
        #[command(flatten)]
        ways: Ways,
    },
    /// Put back what apply changed
    #[command(after_help = "Example:\n  baton realserver undo\n  baton realserver undo --vip 10.10.24.88")]
    Undo {
        /// Only this VIP; the sysctls are put back with the last one
        #[arg(long = "vip", value_name = "VIP", value_parser = vip)]
        vips: Vec<IpAddr>,
        /// Where apply wrote down what was there before
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
    },
}

/// How a real server gets its requests.
#[derive(Args, Clone, Debug)]
pub struct Ways {
    /// The device that carries the VIP
    #[arg(long, value_name = "DEVICE", default_value = "lo")]
    pub dev: String,
    /// The interface that requests come in by; found by addresses and default route when not given
    #[arg(long = "interface", value_name = "INTERFACE")]
    pub interfaces: Vec<String>,
    /// The device that tunnelled requests come out of, where the method is tunnel
    #[arg(long, value_name = "DEVICE", num_args = 0..=1, default_missing_value = "tunl0")]
    pub tunnel: Option<String>,
    /// Where apply writes down what was there before [default: /run/baton/realserver.json]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

fn vip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "expected an IPv4 or IPv6 address, such as 10.10.24.88".to_owned())?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err("a VIP is a unicast address of a network, not a loopback, multicast, broadcast or unspecified one".to_owned());
    }
    Ok(address)
}
