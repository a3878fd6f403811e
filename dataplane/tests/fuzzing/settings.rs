//! Settings and mark rules as an operator changes them.

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::command::Batch;
use dataplane::marks::{MarkRule, Marks, Prefix};
use dataplane::service::Protocol;
use dataplane::settings::{Mode, Ttl};

use super::choices::Choices;
use super::kinds::timeouts;
use super::network::address;
use super::world::World;
use crate::reference::marks::Rule;

impl World {
    pub(super) fn change_marks(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let network = |c: &mut Choices<'_>, of: &[(&str, u8)]| {
            let (text, bits) = c.pick(of);
            (address(text).ip(), bits)
        };
        let rules = 0..c.below(4);
        self.marks = rules
            .map(|_| Rule {
                destination: network(
                    c,
                    &[
                        ("10.10.24.88", 32),
                        ("10.10.24.0", 24),
                        ("10.99.0.0", 17),
                        ("10.123.4.5", 0),
                        ("fd00:10::88", 128),
                        ("fd00::", 17),
                        ("2001:db8:77::5", 0),
                    ],
                ),
                source: c.one_in(4).then(|| network(c, &[("198.51.100.0", 24), ("198.51.100.64", 26), ("2001:db8::", 32)])),
                protocol: c.one_in(2).then(|| c.pick(&[6, 17, 132])),
                ports: (0..c.below(3)).map(|_| c.pick(&[(80, 80), (80, 443), (53, 53), (0, 65535), (444, 81)])).collect(),
                mark: 1 + c.below(3) as u32,
            })
            .collect();
        let prefix = |(address, bits): (IpAddr, u8)| Prefix::new(address.into(), bits);
        let rule = |rule: &Rule| MarkRule {
            destination: prefix(rule.destination),
            source: rule.source.map(prefix),
            protocol: rule.protocol.map(|protocol| match protocol {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => Protocol::Sctp,
            }),
            ports: rule.ports.clone().into(),
            mark: rule.mark,
        };
        batch.marks = Some(Arc::new(Marks::new(self.marks.iter().map(rule).collect())));
    }

    pub(super) fn change_settings(&mut self, c: &mut Choices<'_>, batch: &mut Batch) {
        let s = &mut self.settings;
        // When the table is short of places depends on more than the reference knows.
        let exact = self.exact;
        let mode = |c: &mut Choices<'_>| {
            if exact { c.pick(&[Mode::Never, Mode::Always]) } else { c.pick(&[Mode::Never, Mode::Automatic, Mode::Always]) }
        };
        match c.below(15) {
            8 => s.secure_tcp = mode(c),
            9 => (s.drop_packet, s.am_droprate) = (mode(c), c.pick(&[0, 1, 2, 5, 10])),
            10 if !exact => (s.drop_entry, s.amemthresh) = (mode(c), c.pick(&[0, 10, 50, 100])),
            10 => s.sloppy_sctp = !s.sloppy_sctp,
            12 => s.schedule_icmp = !s.schedule_icmp,
            13 => s.nat_icmp_send = !s.nat_icmp_send,
            14 => s.pmtu_disc = !s.pmtu_disc,
            0 => s.sloppy_tcp = !s.sloppy_tcp,
            1 => s.expire_nodest_conn = !s.expire_nodest_conn,
            2 => s.expire_quiescent_template = !s.expire_quiescent_template,
            3 => s.conn_reuse_mode = c.below(4) as u8,
            4 => s.timeouts = timeouts(c).unwrap_or_default(),
            5 => s.ttl = if s.ttl == Ttl::Preserve { Ttl::Decrement } else { Ttl::Preserve },
            6 => s.exception_rate = c.pick(&[1_000_000, 1_000_000, 10_000, 100, 5, 0]),
            _ => s.icmp_error_rate = c.pick(&[1_000_000, 1_000_000, 1_000, 20, 0]),
        }
        batch.settings = Some(*s);
    }
}
