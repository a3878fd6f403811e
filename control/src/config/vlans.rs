//! `[[port.vlan]]`: VLANs of a port.

use dataplane::vlan::Tags;

use super::Vlan;
use super::faults::Collector;
use super::ports::{self, Taken};
use super::reader::Section;

/// Ports and VLANs together: the packet path keeps a bit for each.
const MOST: usize = 64;
/// The first and the last VLAN id that may be used (IEEE 802.1Q table 9-2).
const IDS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Reads the VLANs of port `port`, whose name is `name`, after those in `vlans`.
pub(super) fn read(
    section: &mut Section<'_>,
    (port, name): (usize, &str),
    port_mtu: Option<u16>,
    taken: &mut Taken,
    vlans: &mut Vec<Vlan>,
    faults: &mut Collector<'_>,
) {
    for mut entry in section.take_sections("vlan", faults) {
        if let Some(vlan) = read_one(&mut entry, (port, name), port_mtu, taken, vlans, faults) {
            vlans.push(vlan);
        }
        entry.finish(faults);
    }
}

/// Reports more ports and VLANs than there may be.
pub(super) fn check_count(ports: usize, vlans: &[Vlan], faults: &mut Collector<'_>) {
    if ports + vlans.len() > MOST {
        faults.add(0..0, "port.vlan".to_owned(), format!("{ports} ports and {} VLANs: allowed are {MOST} together", vlans.len()));
    }
}

fn read_one(
    section: &mut Section<'_>,
    (port, port_name): (usize, &str),
    port_mtu: Option<u16>,
    taken: &mut Taken,
    vlans: &[Vlan],
    faults: &mut Collector<'_>,
) -> Option<Vlan> {
    let id = section.need("id", "the VLAN id, 1 to 4094", faults);
    let at = id.clone();
    let id = id.and_then(|item| item.number(faults, IDS));
    let outer = section.take("outer").map(|item| item.number(faults, IDS));
    let name = match section.take("name") {
        Some(item) => ports::take_name(&item, taken, faults),
        None => default_name(port_name, outer.flatten(), id).and_then(|name| {
            let fits = ports::is_name(&name) && taken.add_name(&name);
            if !fits && let Some(at) = &at {
                at.refuse(faults, format_args!("the interface of this VLAN would be '{name}', which is too long or taken: give a name"));
            }
            fits.then_some(name)
        }),
    };
    let name = name.unwrap_or_else(|| section.path().to_owned());
    let addresses = section.take("addresses").map_or_else(Vec::new, |item| ports::read_addresses(&item, &name, taken, faults));
    let gateways = section.take("gateways").map_or_else(Vec::new, |item| ports::read_gateways(&item, &addresses, faults));
    let most = port_mtu.unwrap_or(9600);
    let mtu = section.take("mtu").and_then(|item| item.number(faults, 1280..=most));
    let neighbours = ports::read_neighbours(section, &addresses, faults);
    // An outer id that is at fault makes no VLAN with one tag.
    let tags = match outer {
        Some(outer) => Tags { outer: Some(outer?), id: id? },
        None => Tags { outer: None, id: id? },
    };
    if let (Some(at), true) = (at, vlans.iter().any(|other| (other.port, other.tags) == (port, tags))) {
        at.refuse(faults, "this port has a VLAN with these tags already");
    }
    Some(Vlan { name, port, tags, addresses, gateways, mtu, neighbours })
}

/// `lan.100`, or with two tags `lan.100.300`.
fn default_name(port: &str, outer: Option<u16>, id: Option<u16>) -> Option<String> {
    let outer = outer.map_or_else(String::new, |outer| format!("{outer}."));
    id.map(|id| format!("{port}.{outer}{id}"))
}
