//! In network namespaces of the tests' own; they need root.

use std::ffi::OsString;
use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// What one command printed and ended with.
struct Ran {
    code: ExitCode,
    out: String,
    err: String,
}

fn baton(line: &str) -> Ran {
    let arguments: Vec<OsString> = std::iter::once("baton").chain(line.split(' ')).map(OsString::from).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console::new(std::io::empty(), &mut out, &mut err);
    let code = crate::cli::dispatch(&arguments, &mut console);
    assert!(console.finish().is_none());
    drop(console);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn shell(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    ip(&words).unwrap_or_else(|error| panic!("{error}"))
}

fn sysctl(interface: &str, name: &str) -> String {
    host::Key::ipv4(interface, name).read().unwrap()
}

/// Runs `test` on a thread that has a network namespace to itself: lo (down) and eth0, 10.10.24.21/24, with a default
/// route. The path is for a record file.
fn on_a_machine(test: impl FnOnce(&str) + Send + 'static) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record.json").display().to_string();
    let ran = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace: run it as root");
        for line in [
            "link add eth0 type veth peer name far0",
            "link set far0 up",
            "address add 10.10.24.21/24 dev eth0",
            "address add fd00:10::21/64 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 10.10.24.1",
        ] {
            shell(line);
        }
        test(&path);
    });
    if let Err(panic) = ran.join() {
        std::panic::resume_unwind(panic);
    }
}

const OK: ExitCode = ExitCode::SUCCESS;

#[test]
fn apply_makes_a_real_server_and_undo_puts_everything_back() {
    on_a_machine(|record| {
        host::Key::ipv4("eth0", "arp_announce").write("1").unwrap();
        let before = shell("address show dev eth0");

        let ran = baton(&format!("realserver apply --vip 10.10.24.88 --vip fd00:10::88 --state {record}"));
        assert_eq!((ran.code, ran.err.as_str()), (OK, ""), "{}", ran.out);
        for interface in ["all", "eth0"] {
            assert_eq!((sysctl(interface, "arp_ignore").as_str(), sysctl(interface, "arp_announce").as_str()), ("1", "2"), "{interface}");
        }
        let lo = shell("address show dev lo");
        assert!(lo.contains("inet 10.10.24.88/32") && lo.contains("inet6 fd00:10::88/128") && lo.contains("deprecated"), "{lo}");
        assert!(lo.contains("LOOPBACK,UP"), "{lo}");

        let again = baton(&format!("realserver apply --vip 10.10.24.88 --vip fd00:10::88 --state {record}"));
        assert_eq!(again.code, OK);
        assert!(again.out.lines().all(|line| line.starts_with("kept ")), "{}", again.out);

        let checked = baton("realserver check --vip 10.10.24.88 --vip fd00:10::88");
        assert_eq!(checked.code, OK, "{}", checked.out);
        assert!(checked.out.contains("OK     IPv4 answers leave by eth0 through 10.10.24.1"), "{}", checked.out);

        let undone = baton(&format!("realserver undo --state {record}"));
        assert_eq!((undone.code, undone.err.as_str()), (OK, ""));
        assert_eq!(shell("address show dev eth0"), before);
        let lo = shell("address show dev lo");
        assert!(lo.contains("state DOWN") && !lo.contains("88"), "{lo}");
        assert_eq!((sysctl("all", "arp_ignore").as_str(), sysctl("all", "arp_announce").as_str()), ("0", "0"));
        assert_eq!((sysctl("eth0", "arp_ignore").as_str(), sysctl("eth0", "arp_announce").as_str()), ("0", "1"));
        assert!(!Path::new(record).exists());
        assert!(baton(&format!("realserver undo --state {record}")).out.starts_with("nothing to undo"));
    });
}

#[test]
fn check_says_what_is_wrong_and_what_mends_it() {
    on_a_machine(|record| {
        let bare = baton("realserver check --vip 10.10.24.88");
        assert_eq!(bare.code, ExitCode::from(1));
        for part in [
            "WRONG  lo is down",
            "mend: ip link set lo up",
            "WRONG  10.10.24.88/32 is not on lo",
            "mend: ip address add 10.10.24.88/32 dev lo",
            "OK     no other interface carries 10.10.24.88",
            "WRONG  net.ipv4.conf.all.arp_ignore = 0, must be 1",
            "mend: sysctl -w net.ipv4.conf.eth0.arp_announce=2",
        ] {
            assert!(bare.out.contains(part), "{part}\n{}", bare.out);
        }

        assert_eq!(baton(&format!("realserver apply --vip 10.10.24.88 --state {record}")).code, OK);
        host::Key::ipv4("eth0", "arp_ignore").write("0").unwrap();
        let loose = baton("realserver check --vip 10.10.24.88");
        assert_eq!(loose.out.matches("WRONG").count(), 1, "{}", loose.out);
        assert!(loose.out.contains("eth0 would answer ARP for the VIP"), "{}", loose.out);

        shell("address add 10.10.24.88/24 dev eth0");
        let twice = baton(&format!("realserver apply --vip 10.10.24.88 --state {record}"));
        assert_eq!(twice.code, ExitCode::from(1));
        assert!(twice.out.contains("WRONG  10.10.24.88/24 is also on eth0"), "{}", twice.out);
        assert!(twice.out.contains("mend: ip address del 10.10.24.88/24 dev eth0"), "{}", twice.out);
    });
}

#[test]
fn a_vip_with_a_wide_prefix_is_wrong() {
    on_a_machine(|_| {
        shell("address add 10.10.24.88/24 dev lo");
        let ran = baton("realserver check --vip 10.10.24.88");
        assert!(ran.out.contains("WRONG  10.10.24.88/24 is on lo"), "{}", ran.out);
    });
}

#[test]
fn undo_leaves_what_was_there_before_and_what_was_changed_since() {
    on_a_machine(|record| {
        shell("address add 10.10.24.88/32 dev lo");
        assert_eq!(baton(&format!("realserver apply --vip 10.10.24.88 --vip 10.10.24.89 --state {record}")).code, OK);
        host::Key::ipv4("all", "arp_ignore").write("2").unwrap();
        let undone = baton(&format!("realserver undo --state {record}"));
        assert!(undone.out.contains("left    net.ipv4.conf.all.arp_ignore = 2"), "{}", undone.out);
        assert_eq!(sysctl("all", "arp_ignore"), "2");
        let lo = shell("address show dev lo");
        assert!(lo.contains("10.10.24.88/32") && !lo.contains("10.10.24.89"), "{lo}");
    });
}

#[test]
fn a_tunnel_gets_a_loose_reverse_path_filter() {
    on_a_machine(|record| {
        shell("link add tunl0 type veth peer name far1");
        host::Key::ipv4("all", "rp_filter").write("1").unwrap();
        host::Key::ipv4("tunl0", "rp_filter").write("0").unwrap();
        let ran = baton(&format!("realserver apply --vip 10.10.24.88 --tunnel --state {record}"));
        assert_eq!(ran.code, OK, "{}{}", ran.out, ran.err);
        assert_eq!((sysctl("tunl0", "rp_filter").as_str(), sysctl("all", "rp_filter").as_str()), ("2", "1"));
        assert!(shell("link show tunl0").contains(",UP"), "{}", shell("link show tunl0"));
    });
}

#[test]
fn print_changes_nothing_and_shows_commands_and_files() {
    on_a_machine(|_| {
        let ran = baton("realserver apply --vip 10.10.24.88 --vip fd00:10::88 --print");
        assert_eq!(ran.code, OK);
        assert_eq!(
            ran.out,
            "\
# Now:
sysctl -w net.ipv4.conf.all.arp_ignore=1
sysctl -w net.ipv4.conf.all.arp_announce=2
sysctl -w net.ipv4.conf.eth0.arp_ignore=1
sysctl -w net.ipv4.conf.eth0.arp_announce=2
ip link set lo up
ip address replace 10.10.24.88/32 dev lo
ip address replace fd00:10::88/128 dev lo nodad preferred_lft 0

# After a reboot: /etc/sysctl.d/60-baton-realserver.conf
net.ipv4.conf.all.arp_ignore = 1
net.ipv4.conf.all.arp_announce = 2
net.ipv4.conf.eth0.arp_ignore = 1
net.ipv4.conf.eth0.arp_announce = 2

# and either, with ifupdown: /etc/network/interfaces.d/baton-realserver
auto lo
iface lo inet static
    address 10.10.24.88/32
iface lo inet6 static
    address fd00:10::88/128
    dad-attempts 0
    preferred-lifetime 0

# or, with systemd-networkd: /etc/systemd/network/60-baton-realserver.network
[Match]
Name=lo

[Address]
Address=10.10.24.88/32

[Address]
Address=fd00:10::88/128
PreferredLifetime=0
DuplicateAddressDetection=none
"
        );
        assert_eq!(sysctl("all", "arp_ignore"), "0");
        assert!(!shell("address show dev lo").contains("10.10.24.88"));
    });
}

#[test]
fn bad_input_names_the_option_the_value_and_what_is_allowed() {
    on_a_machine(|_| {
        for (line, part) in [
            ("realserver apply --vip 10.10.24", "invalid value '10.10.24' for '--vip <VIP>': expected an IPv4 or IPv6 address"),
            ("realserver apply --vip 127.0.0.1", "a VIP is a unicast address"),
            ("realserver check --vip 10.10.24.88 --dev dummy0", "--dev: there is no device 'dummy0' here: there are lo, "),
            ("realserver apply --vip 10.10.24.88 --interface eth7", "--interface: there is no device 'eth7' here: there are lo, "),
            ("realserver apply --vip 10.10.24.88 --tunnel tunl0", "--tunnel: there is no device 'tunl0' here"),
            ("realserver apply", "--vip <VIP>"),
        ] {
            let ran = baton(line);
            assert_eq!(ran.code, ExitCode::from(2), "{line}");
            assert!(ran.err.contains(part), "{line}: {}", ran.err);
        }
    });
}

#[test]
fn every_namespace_has_a_record_of_its_own() {
    on_a_machine(|_| {
        let name = record::default_path().display().to_string();
        assert!(name.starts_with("/run/baton/realserver-"), "{name}");
    });
}
