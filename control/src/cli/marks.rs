//! `baton marks` and `baton get marks`: the rules that give packets their marks.

use hyper::Method;

use super::client::{Client, ClientError};
use super::console::Console;
use super::get::{Output, json, table};
use crate::model::{MarkRule, MarkRules, Network, PortRange, Protocol};

/// A mark rule on the command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Rule {
    /// The mark, as ipvsadm -f takes it
    #[arg(value_name = "MARK", value_parser = clap::value_parser!(u32).range(1..))]
    pub mark: u32,
    /// Where packets go: a VIP, or a network that is routed to the director
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub destination: Network,
    /// Where packets come from; anywhere when not given
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub source: Option<Network>,
    /// tcp, udp or sctp; all when not given
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    pub protocol: Option<Protocol>,
    /// Destination ports and ranges, such as 80,443,8000-8999; all when not given
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub ports: Vec<PortRange>,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err("expected tcp, udp or sctp".to_owned()),
    }
}

/// Shows all rules.
pub fn get(client: &Client, output: Output, console: &mut Console<'_>) -> Result<(), ClientError> {
    let found: MarkRules = client.get("marks")?;
    if output == Output::Json {
        json(&found, console);
        return Ok(());
    }
    let any = |text: Option<String>| text.unwrap_or_else(|| "any".to_owned());
    let row = |rule: &MarkRule| {
        let ports: Vec<String> = rule.ports.iter().map(ToString::to_string).collect();
        vec![
            rule.mark.to_string(),
            rule.destination.to_string(),
            any(rule.source.map(|source| source.to_string())),
            any(rule.protocol.map(|protocol| protocol.as_str().to_owned())),
            any((!ports.is_empty()).then(|| ports.join(","))),
        ]
    };
    table(&["MARK", "DESTINATION", "SOURCE", "PROTOCOL", "PORTS"], found.marks.iter().map(row).collect(), console);
    Ok(())
}

/// Adds a rule behind all others; the exit code.
pub fn add(client: &Client, rule: &Rule) -> Result<u8, ClientError> {
    let Rule { mark, destination, source, protocol, ports } = rule.clone();
    client.submit(Method::POST, "marks", &MarkRule { mark, destination, source, protocol, ports })?;
    Ok(0)
}

/// Removes every rule; the exit code.
pub fn clear(client: &Client) -> Result<u8, ClientError> {
    client.order(Method::DELETE, "marks")?;
    Ok(0)
}
