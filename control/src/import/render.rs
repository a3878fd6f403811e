//! The configuration that an import writes: the ports it was given, or an example of them, and what was carried over.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::draft::Draft;
use super::source::Unreadable;
use crate::model::ServiceSpec;

/// Ports that an example has at most networks for.
const MOST_NETWORKS: usize = 256;

/// A first part for whom has none yet: a port on the networks of the real servers. Its device is none that there is, so that
/// nobody starts with addresses that nobody chose.
pub fn example(draft: &Draft) -> String {
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    let mut networks: BTreeSet<(IpAddr, u8)> = BTreeSet::new();
    for service in &draft.services {
        let spec = &service.spec;
        taken.insert(spec.address);
        let sorry = spec.health.iter().filter_map(|health| health.sorry_server.as_ref()).map(|sorry| sorry.address);
        for address in spec.real_servers.iter().map(|server| server.address).chain(sorry) {
            taken.insert(address);
            if usable(address) && networks.len() < MOST_NETWORKS {
                networks.insert(network(address));
            }
        }
    }
    let addresses: Vec<String> = networks.into_iter().filter_map(|network| free_address(network, &taken)).collect();
    format!(
        "# What was imported says nothing of ports and cores. Put in their place here what this director has:\n\
         # every real server by direct routing must be on one of these networks.\n\
         [[port]]\n\
         name = \"lan\"\n\
         device = \"0000:00:00.0\"    # to be replaced by the NIC's PCI address\n\
         addresses = [{}]    # to be replaced by the director's own addresses\n",
        addresses.join(", ")
    )
}

fn usable(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some());
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local)
}

/// The network that an address is most likely on: a /24, a /64.
fn network(address: IpAddr) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(v4) => (Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(), 24),
        IpAddr::V6(v6) => (Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(), 64),
    }
}

/// The last address of a network that nothing imported has.
fn free_address((network, prefix): (IpAddr, u8), taken: &BTreeSet<IpAddr>) -> Option<String> {
    (1..=254_u8).rev().find_map(|host| {
        let address: IpAddr = match network {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | u32::from(host)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(host)).into(),
        };
        (!taken.contains(&address)).then(|| format!("\"{address}/{prefix}\""))
    })
}

/// What was carried over, as sections of baton.toml.
///
/// # Errors
/// A value that TOML cannot hold.
pub fn sections(draft: &Draft) -> Result<String, Unreadable> {
    let mut text = String::new();
    if !draft.settings.is_empty() {
        text.push_str("\n[settings]\n");
        for (name, seconds, _) in &draft.settings {
            // A String takes all that is written to it.
            let _ = writeln!(text, "{name} = {seconds}");
        }
    }
    for service in &draft.services {
        let _ = writeln!(text, "\n# {}:{}", service.at.file.replace(char::is_control, " "), service.at.line);
        text.push_str(&section(&service.spec)?);
    }
    Ok(text)
}

fn section(service: &ServiceSpec) -> Result<String, Unreadable> {
    let fail = |why: &dyn std::fmt::Display| Unreadable(format!("virtual service {} cannot be written: {why}", service.key()));
    let mut table = toml::Table::try_from(service).map_err(|why| fail(&why))?;
    // What documents name by their plural is one header each here.
    if let Some(servers) = table.remove("real_servers")
        && servers.as_array().is_some_and(|servers| !servers.is_empty())
    {
        table.insert("real_server".to_owned(), servers);
    }
    let mut root = toml::Table::new();
    root.insert("service".to_owned(), vec![table].into());
    toml::to_string(&root).map_err(|why| fail(&why))
}
