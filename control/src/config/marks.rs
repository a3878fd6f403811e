//! `[[mark]]`: the mark rules to begin with.

use super::faults::Collector;
use super::reader::{Item, Section};
use crate::director::MAX_MARKS;
use crate::model::{MarkRule, Network, PortRange, Protocol};

pub(super) fn read(root: &mut Section<'_>, faults: &mut Collector<'_>) -> Vec<MarkRule> {
    let mut rules = Vec::new();
    for mut section in root.take_sections("mark", faults) {
        let pointer = format!("/marks/{}", rules.len());
        if rules.len() == MAX_MARKS {
            faults.place("/marks".to_owned(), section.path().to_owned(), section.span());
        }
        faults.place(pointer.clone(), section.path().to_owned(), section.span());
        let rule = read_rule(&mut section, &pointer, faults);
        section.finish(faults);
        rules.extend(rule);
    }
    rules
}

fn read_rule(section: &mut Section<'_>, pointer: &str, faults: &mut Collector<'_>) -> Option<MarkRule> {
    let note = |field: &str, item: &Item<'_>, faults: &mut Collector<'_>| {
        faults.place(format!("{pointer}/{field}"), item.path.clone(), item.span.clone());
    };
    let mark = section.need("mark", "the mark, 1 to 4294967295", faults).and_then(|item| item.number(faults, 1..=u32::MAX));
    let destination = section.need("destination", Network::EXPECTED, faults).and_then(|item| {
        note("destination", &item, faults);
        item.parsed(faults, Network::EXPECTED)
    });
    let source = section.take("source").map(|item| {
        note("source", &item, faults);
        item.parsed(faults, Network::EXPECTED)
    });
    let protocol = section
        .take("protocol")
        .map(|item| item.choice(faults, &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp)]));
    let ports = section.take("ports").map(|item| {
        note("ports", &item, faults);
        let list = item.list(faults);
        list.iter().filter_map(|port| port_range(port, faults)).collect()
    });
    // A source or protocol that cannot be read must not become a rule without one.
    Some(MarkRule {
        mark: mark?,
        destination: destination?,
        source: source.map_or(Some(None), |source| source.map(Some))?,
        protocol: protocol.map_or(Some(None), |protocol| protocol.map(Some))?,
        ports: ports.unwrap_or_default(),
    })
}

fn port_range(item: &Item<'_>, faults: &mut Collector<'_>) -> Option<PortRange> {
    if item.is_integer() {
        let port = item.number(faults, 1..=u16::MAX)?;
        return Some(PortRange { first: port, last: port });
    }
    item.parsed(faults, PortRange::EXPECTED)
}
