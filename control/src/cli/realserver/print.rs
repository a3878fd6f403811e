//! `baton realserver apply --print`: the same as commands, and as files that make it last.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::plan::{Plan, address_arguments, host_prefix};

/// Commands to paste, then the files, each under a comment that says where it belongs.
pub fn text(plan: &Plan) -> String {
    let mut text = String::from("# Now:\n");
    for wanted in &plan.sysctls {
        let _ = writeln!(text, "sysctl -w {}={}", wanted.key, wanted.value);
    }
    for name in plan.devices() {
        let _ = writeln!(text, "ip link set {name} up");
    }
    for &vip in &plan.vips {
        let _ = writeln!(text, "ip {}", address_arguments("replace", vip, &plan.dev).join(" "));
    }
    if !plan.sysctls.is_empty() {
        text.push_str("\n# After a reboot: /etc/sysctl.d/60-baton-realserver.conf\n");
        for wanted in &plan.sysctls {
            let _ = writeln!(text, "{} = {}", wanted.key, wanted.value);
        }
    }
    text.push_str("\n# and either, with ifupdown: /etc/network/interfaces.d/baton-realserver\n");
    let _ = writeln!(text, "auto {}", plan.dev);
    for &vip in &plan.vips {
        text.push_str(&ifupdown(vip, &plan.dev));
    }
    text.push_str("\n# or, with systemd-networkd: /etc/systemd/network/60-baton-realserver.network\n");
    let _ = writeln!(text, "[Match]\nName={}", plan.dev);
    for &vip in &plan.vips {
        let _ = write!(text, "\n[Address]\nAddress={}\n", host_prefix(vip));
        if vip.is_ipv6() {
            text.push_str("PreferredLifetime=0\nDuplicateAddressDetection=none\n");
        }
    }
    text
}

fn ifupdown(vip: IpAddr, dev: &str) -> String {
    if vip.is_ipv4() {
        return format!("iface {dev} inet static\n    address {}\n", host_prefix(vip));
    }
    format!("iface {dev} inet6 static\n    address {}\n    dad-attempts 0\n    preferred-lifetime 0\n", host_prefix(vip))
}
