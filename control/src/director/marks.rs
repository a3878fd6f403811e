//! Mark rules in the desired state: what they must keep, and what the workers make of them.

use std::net::IpAddr;

use dataplane::address::Address;
use dataplane::marks as paths;
use ipnet::IpNet;

use super::desired::Desired;
use super::snapshot::protocol_for_workers;
use super::validate::{Findings, Surroundings, unfit_vip};
use super::writes::Present;
use super::{Director, Error, Resource};
use crate::model::{MarkRule, MarkRules, Network, Protocol};

/// The most mark rules: a worker goes through them for the first packet of every connection.
pub const MAX_MARKS: usize = 256;

/// The most ports and ranges in one rule.
pub const MAX_RANGES: usize = 16;

impl Director {
    /// All mark rules, in order.
    pub fn marks(&self) -> MarkRules {
        MarkRules { marks: self.lock().desired.marks().to_vec() }
    }

    /// Makes these all mark rules there are. Connections stay where they are: only first packets are looked at.
    pub async fn put_marks(&self, rules: &MarkRules) -> Result<MarkRules, Error> {
        let committed = self.change(Resource::Marks, |inner| {
            let mut found = Findings::default();
            check_marks(&rules.marks, &Present::with_new_vips(inner), &mut found);
            found.into_result()?;
            inner.desired.set_marks(&rules.marks);
            Ok("mark rules changed".to_owned())
        })?;
        self.settle(committed).await?;
        Ok(self.marks())
    }

    /// Adds a mark rule behind all others.
    pub async fn add_mark(&self, rule: &MarkRule) -> Result<MarkRules, Error> {
        let committed = self.change(Resource::Marks, |inner| {
            let mut found = Findings::default();
            check_mark(rule, "", &Present::with_new_vips(inner), &mut found);
            let mut rules = inner.desired.marks().to_vec();
            rules.push(rule.clone());
            check_count("", rules.len(), &mut found);
            found.into_result()?;
            inner.desired.set_marks(&rules);
            Ok(format!("a rule for mark {} added", rule.mark))
        })?;
        self.settle(committed).await?;
        Ok(self.marks())
    }
}

impl Desired {
    /// What the workers get.
    pub(super) fn marks_for_workers(&self) -> paths::Marks {
        let prefix = |network: Network| paths::Prefix::new(Address::from(network.0.addr()), network.0.prefix_len());
        let rule = |rule: &MarkRule| paths::MarkRule {
            destination: prefix(rule.destination),
            source: rule.source.map(prefix),
            protocol: rule.protocol.map(protocol_for_workers),
            ports: rule.ports.iter().map(|range| (range.first, range.last)).collect(),
            mark: rule.mark,
        };
        paths::Marks::new(self.marks().iter().map(rule).collect())
    }
}

/// The VIPs among the destinations of `rules`: those that are a single address. A network has to be routed to the director.
pub(super) fn vips(rules: &[MarkRule]) -> impl Iterator<Item = IpAddr> + '_ {
    rules.iter().filter_map(|rule| rule.destination.host())
}

/// Holds all mark rules against what they must keep, with pointers such as `/marks/0/destination`.
pub(super) fn check_marks(rules: &[MarkRule], around: &dyn Surroundings, found: &mut Findings) {
    check_count("/marks", rules.len(), found);
    for (index, rule) in rules.iter().enumerate() {
        check_mark(rule, &format!("/marks/{index}"), around, found);
    }
}

fn check_count(at: &str, rules: usize, found: &mut Findings) {
    if rules > MAX_MARKS {
        found.add(at, format!("there would be {rules} mark rules: allowed are {MAX_MARKS}"));
    }
}

fn check_mark(rule: &MarkRule, at: &str, around: &dyn Surroundings, found: &mut Findings) {
    if rule.mark == 0 {
        found.add(format!("{at}/mark"), "mark is 0: allowed are 1 to 4294967295");
    }
    if let Some(why) = unfit_network(rule.destination.0) {
        found.add(format!("{at}/destination"), why);
    } else if let Some(host) = rule.destination.host()
        && let Some(why) = unfit_vip(host, around)
    {
        found.add(format!("{at}/destination"), format!("{host} cannot be a VIP: {why}"));
    }
    if let Some(source) = rule.source {
        if let Some(why) = unfit_network(source.0) {
            found.add(format!("{at}/source"), why);
        } else if source.0.addr().is_ipv4() != rule.destination.0.addr().is_ipv4() {
            let detail = format!("{source} and the destination {} are of two families: no packet is of both", rule.destination);
            found.add(format!("{at}/source"), detail);
        }
    }
    if rule.protocol == Some(Protocol::Mark) {
        found.add(format!("{at}/protocol"), "protocol is mark: allowed are tcp, udp and sctp, and none of them for all");
    }
    if rule.ports.len() > MAX_RANGES {
        found.add(format!("{at}/ports"), format!("there are {} ports and ranges: allowed are {MAX_RANGES} in a rule", rule.ports.len()));
    }
}

fn unfit_network(network: IpNet) -> Option<String> {
    let whole = network.trunc();
    if whole != network {
        let host = network.addr();
        return Some(format!("{network} has bits behind its prefix: write {whole} for the network, or {host} for the address"));
    }
    network.addr().is_multicast().then(|| format!("{network} is multicast, which belongs to no service"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::scripted::{Rig, service};
    use super::*;

    fn rules(marks: &serde_json::Value) -> MarkRules {
        serde_json::from_value(json!({ "marks": marks })).unwrap()
    }

    fn pointers(result: Result<MarkRules, Error>) -> Vec<String> {
        match result {
            Err(Error::Invalid(faults)) => faults.into_iter().map(|fault| fault.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn single_destination_is_a_vip_as_long_as_a_rule_has_it() {
        let rig = Rig::new(1);
        let vips = || rig.director.wanted().borrow().vips.iter().map(ToString::to_string).collect::<Vec<_>>();
        let two = rules(&json!([{"mark": 7, "destination": "10.10.24.88"}, {"mark": 7, "destination": "10.10.24.88", "ports": [80]},
            {"mark": 8, "destination": "192.0.2.0/24"}]));
        assert_eq!(rig.director.put_marks(&two).await.unwrap(), two);
        assert_eq!(vips(), ["10.10.24.88"]);
        rig.director.create_service(&service(json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80}))).await.unwrap();
        rig.director.put_marks(&MarkRules::default()).await.unwrap();
        assert_eq!(vips(), ["10.10.24.88"]);
        rig.director.delete_all_services().await.unwrap();
        assert!(vips().is_empty());
        rig.director.create_service(&service(json!({"mark": 7}))).await.unwrap();
        assert!(vips().is_empty(), "a mark is no VIP");
    }

    #[tokio::test]
    async fn every_fault_of_mark_rules_is_named_and_nothing_changed() {
        let rig = Rig::new(1);
        let near = json!([{"address": "10.10.24.21", "mac": "02:00:00:00:00:15"}]);
        let web = json!({"protocol": "tcp", "address": "10.10.24.88", "port": 80, "real_servers": near});
        rig.director.create_service(&service(web)).await.unwrap();
        let revision = rig.director.revision();
        let faulty = rules(&json!([
            {"mark": 0, "destination": "10.10.24.88/24"},
            {"mark": 1, "destination": "10.10.24.10", "source": "fd00::/8"},
            {"mark": 1, "destination": "10.10.24.21", "protocol": "mark"},
            {"mark": 1, "destination": "224.0.0.0/8", "source": "10.0.0.1/8"},
            {"mark": 1, "destination": "10.10.24.89", "ports": (1..=17).collect::<Vec<u16>>()},
        ]));
        assert_eq!(
            pointers(rig.director.put_marks(&faulty).await),
            [
                "/marks/0/mark",
                "/marks/0/destination",
                "/marks/1/destination",
                "/marks/1/source",
                "/marks/2/destination",
                "/marks/2/protocol",
                "/marks/3/destination",
                "/marks/3/source",
                "/marks/4/ports"
            ]
        );
        assert_eq!(pointers(rig.director.add_mark(&faulty.marks[1]).await), ["/destination", "/source"]);
        assert_eq!(rig.director.revision(), revision);
        let many = MarkRules { marks: vec![rules(&json!([{"mark": 1, "destination": "10.10.24.89"}])).marks[0].clone(); 257] };
        assert_eq!(pointers(rig.director.put_marks(&many).await), ["/marks"]);
    }
}
