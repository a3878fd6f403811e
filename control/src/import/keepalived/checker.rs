//! Checkers of a real server.

use std::net::IpAddr;

use super::special;
use super::tree::Statement;
use super::values::{number, only, port, read, switch, timer};
use crate::import::report::Report;
use crate::model::{CheckType, HealthSpec, Span, StatusSet, Via};

/// Times and counts that virtual servers give to their real servers, and these to their checkers.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    connect_timeout: Option<Span>,
    retry: Option<u32>,
    delay_before_retry: Option<Span>,
    delay_loop: Option<Span>,
    virtualhost: Option<String>,
}

impl Times {
    /// Takes a statement that is one of these; whether it was.
    pub(super) fn take(&mut self, statement: &Statement, report: &mut Report) -> bool {
        match statement.name() {
            "connect_timeout" => self.connect_timeout = timer(statement, report).or(self.connect_timeout),
            "retry" | "nb_get_retry" => self.retry = number(statement, report).or(self.retry),
            "delay_before_retry" => self.delay_before_retry = timer(statement, report).or(self.delay_before_retry),
            "delay_loop" => self.delay_loop = timer(statement, report).or(self.delay_loop),
            "virtualhost" => self.virtualhost = only(statement, report).map(str::to_owned).or_else(|| self.virtualhost.take()),
            _ => return false,
        }
        true
    }
}

/// Statements that stand at virtual servers, real servers and checkers alike, and are not carried over.
pub(super) fn common_reason(name: &str) -> Option<&'static str> {
    Some(match name {
        "alpha" => "a real server counts as healthy until its first check has ended",
        "omega" => "no scripts are run at the end",
        "warmup" => "first checks are spread over an interval anyway",
        "smtp_alert" => "no mail is sent: metrics and events say what happens",
        "log_all_failures" => "every change of health is logged with its reason",
        "snmp_name" => "there is no SNMP: metrics are Prometheus's",
        "ha_suspend" => "checks go on whoever has the VIP",
        "quorum_up" | "quorum_down" | "notify_up" | "notify_down" => "no scripts are run: metrics and events say what happens",
        "bindto" | "bind_if" | "bind_port" => "checks leave from the director's address on the real server's network",
        "fwmark" => "packets of checks have no mark of netfilter's",
        "persistence_engine" => "there are no persistence engines",
        "sorry_server_inhibit" => "a sorry server is taken out while it is not needed",
        _ => return None,
    })
}

/// The real server that is checked.
pub(super) struct Checked<'t> {
    pub(super) address: IpAddr,
    /// Its port as keepalived has it; 0 for none.
    pub(super) port: u16,
    /// The port that is asked when none is given.
    pub(super) usual_port: u16,
    pub(super) times: &'t Times,
}

/// Whether a statement is a checker.
pub(super) fn is_checker(name: &str) -> bool {
    name.ends_with("_CHECK") || matches!(name, "HTTP_GET" | "SSL_GET")
}

/// The check that a checker becomes, if there is one for it.
pub(super) fn read_checker(block: &Statement, checked: &Checked<'_>, report: &mut Report) -> Option<HealthSpec> {
    let kind = match block.name() {
        "TCP_CHECK" => CheckType::Tcp,
        "HTTP_GET" => CheckType::Http,
        "SSL_GET" => CheckType::Https,
        "SMTP_CHECK" => {
            report.changed(&block.at, "the connection is checked, not the greeting: type = \"tcp\"");
            CheckType::Tcp
        }
        "BFD_CHECK" => return leave(block, "BFD is not done by the director", report),
        "FILE_CHECK" => return leave(block, "weights are not read from files", report),
        "PING_CHECK" => CheckType::Ping,
        "UDP_CHECK" => CheckType::Udp,
        "DNS_CHECK" => CheckType::Dns,
        "MISC_CHECK" => {
            report.changed(&block.at, "the program runs as the user of [health], without a shell and with an empty environment");
            CheckType::Exec
        }
        _ => return leave(block, "is no checker of keepalived 2.2", report),
    };
    let mut times = checked.times.clone();
    let mut check = HealthSpec { kind: Some(kind), via: Some(Via::Direct), rise: Some(1), ..HealthSpec::default() };
    let mut asked_port = Some(checked.port).filter(|port| *port != 0);
    let mut url = None;
    for statement in block.inside() {
        if times.take(statement, report) {
            continue;
        }
        if special::take(statement, kind, &mut check, report) {
            continue;
        }
        match statement.name() {
            "connect_ip" => connect_ip(statement, checked.address, report),
            "connect_port" => asked_port = port(statement, report).or(asked_port),
            "url" if matches!(kind, CheckType::Http | CheckType::Https) => match url {
                None => url = Some(statement),
                Some(_) => statement.leave_out("a check asks for one path: the first", report),
            },
            "http_protocol" if only(statement, report) == Some("1.1") => {}
            "http_protocol" => report.left(&statement.at, "checks speak HTTP/1.1"),
            "fast_recovery" => report.left(&statement.at, "checks ask for one path, so there is nothing to wait for between paths"),
            "enable_sni" if kind == CheckType::Https => {}
            "helo_name" => report.left(&statement.at, "nothing is said to the mail server"),
            "host" if block.name() == "SMTP_CHECK" => read_host(statement, checked.address, &mut asked_port, report),
            name => statement.leave_out(common_reason(name).unwrap_or("is nothing that is known at this checker"), report),
        }
    }
    check.host = times.virtualhost.clone().filter(|_| matches!(kind, CheckType::Http | CheckType::Https));
    if let Some(url) = url {
        read_url(url, &mut check, report);
    }
    if matches!(kind, CheckType::Http | CheckType::Https) && check.status.is_none() {
        check.status = "200-299".parse().ok();
    }
    if kind == CheckType::Https {
        // keepalived takes any certificate.
        check.verify = Some(false);
    }
    special::finish(block, kind, &mut check, report);
    // Nobody is asked by a program of our own, and echo has no port.
    let portless = matches!(kind, CheckType::Ping | CheckType::Exec);
    check.port = asked_port.filter(|port| *port != checked.usual_port && !portless);
    times_of(&times, kind, &mut check);
    Some(check)
}

fn leave(block: &Statement, reason: &str, report: &mut Report) -> Option<HealthSpec> {
    block.leave_out(reason, report);
    None
}

/// The times with keepalived's defaults, so that checks come as often as they did.
fn times_of(times: &Times, kind: CheckType, check: &mut HealthSpec) {
    let seconds = |seconds| Span(std::time::Duration::from_secs(seconds));
    let interval = times.delay_loop.unwrap_or(seconds(60));
    let (retries, between) = match kind {
        CheckType::Http | CheckType::Https => (1, seconds(3)),
        CheckType::Dns => (3, interval),
        CheckType::Exec => (0, seconds(1)),
        _ => (1, seconds(1)),
    };
    let retries = times.retry.unwrap_or(retries);
    check.interval = Some(interval);
    check.interval_down = Some(times.delay_before_retry.unwrap_or(between).min(interval));
    check.timeout = check.timeout.or(times.connect_timeout).or(Some(if kind == CheckType::Exec { interval } else { seconds(5) }));
    check.fall = Some(retries.saturating_add(1));
}

fn connect_ip(statement: &Statement, server: IpAddr, report: &mut Report) {
    if let Some(address) = read::<IpAddr>(statement, "an address", report)
        && address != server
    {
        report.left(&statement.at, format_args!("a check asks the real server itself, {server}, and nobody else"));
    }
}

/// A host that a mail check asks: the real server itself, or another one, which is left out whole.
fn read_host(block: &Statement, server: IpAddr, asked_port: &mut Option<u16>, report: &mut Report) {
    let other = |statement: &&Statement| statement.name() == "connect_ip" && statement.rest().first() != Some(&server.to_string());
    if block.inside().iter().any(|statement| other(&statement)) {
        return block.leave_out(&format!("a check asks the real server itself, {server}, and nobody else"), report);
    }
    for statement in block.inside() {
        match statement.name() {
            "connect_ip" => {}
            "connect_port" => *asked_port = port(statement, report).or(*asked_port),
            name => statement.leave_out(common_reason(name).unwrap_or("is nothing that is known of a host"), report),
        }
    }
}

fn read_url(block: &Statement, check: &mut HealthSpec, report: &mut Report) {
    let mut pattern: Option<(&Statement, String)> = None;
    let mut flags = String::new();
    let mut reversed = None;
    for statement in block.inside() {
        match statement.name() {
            "path" => check.path = only(statement, report).map(str::to_owned),
            "status_code" => {
                let status: Result<StatusSet, String> = statement.rest().join(",").parse();
                match status {
                    Ok(status) => check.status = Some(status),
                    Err(_) => report.left(&statement.at, format_args!("expected {}", StatusSet::EXPECTED)),
                }
            }
            "virtualhost" => check.host = only(statement, report).map(str::to_owned).or_else(|| check.host.take()),
            "digest" => report.left(&statement.at, "answers are not digested: a regular expression can be asked for in health.body"),
            "regex" => pattern = only(statement, report).map(|text| (statement, text.to_owned())),
            "regex_no_match" if switch(statement, report) => reversed = Some(statement),
            "regex_no_match" => {}
            "regex_options" => {
                for option in statement.rest() {
                    match option.as_str() {
                        "caseless" => flags.push('i'),
                        "multiline" => flags.push('m'),
                        "dotall" => flags.push('s'),
                        "extended" => flags.push('x'),
                        "ungreedy" => flags.push('U'),
                        "utf" | "ucp" => {}
                        _ => report.left(&statement.at, format_args!("regular expressions have no option {option} here")),
                    }
                }
            }
            "regex_min_offset" | "regex_max_offset" => report.left(&statement.at, "the first 64 KiB of the body are searched, all of them"),
            "regex_stack" => report.left(&statement.at, "regular expressions need no stack here"),
            name => statement.leave_out(common_reason(name).unwrap_or("is nothing that is known of a url"), report),
        }
    }
    match (pattern, reversed) {
        (Some((statement, _)), Some(reversed)) => {
            report.left(&statement.at, "a body that must not match cannot be asked for");
            report.left(&reversed.at, "a body that must not match cannot be asked for");
        }
        (Some((_, pattern)), None) if flags.is_empty() => check.body = Some(pattern),
        (Some((_, pattern)), None) => check.body = Some(format!("(?{flags}){pattern}")),
        (None, Some(reversed)) => report.left(&reversed.at, "there is no regular expression"),
        (None, None) => {}
    }
}
