//! Configurations that are sound, and every fault with its place.

use super::*;
use crate::api::access::{Access, Client, Token, TokenHash};
use crate::api::tls::TlsFiles;
use crate::api::who::Role;
use crate::model::{Method, NoRealServer, Persistence, Protocol, Scheduler, ServiceTimeouts};

const CPUS: &[u32] = &[0, 1, 2, 3];

fn read(text: &str) -> Result<Config, ConfigFaults> {
    parse(text, Path::new("baton.toml"), CPUS)
}

/// A sound port for texts that are about something else.
const PORT: &str = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\", \"fd00:10::10/64\"]\n";

/// Every fault of `text` as `LINE:COLUMN key` and what it says.
fn faults(text: &str) -> Vec<(String, String)> {
    let faults = read(text).expect_err("the text is at fault");
    faults.faults().iter().map(|f| (format!("{}:{} {}", f.line, f.column, f.key), f.detail.clone())).collect()
}

#[test]
fn configuration_of_the_manual_is_read_as_it_stands() {
    let config = read(include_str!("../../../configs/baton-vdev.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    let port = &config.ports[0];
    assert_eq!((port.name.as_str(), port.device.to_string().as_str()), ("lan", "net_af_packet0,iface=d0"));
    assert_eq!(port.device.port_name(), "net_af_packet0");
    assert_eq!(port.device.kernel_interface(), Some("d0"));
    assert_eq!(port.addresses, ["10.10.24.10/24".parse::<IpNet>().unwrap(), "fd00:10::10/64".parse().unwrap()]);
    assert_eq!(port.gateways, ["10.10.24.1".parse::<IpAddr>().unwrap(), "fd00:10::1".parse().unwrap()]);
    assert_eq!(config.workers, Workers { cores: vec![1], idle: vec![Idle::Adaptive] });
    assert_eq!((config.control.core, config.control.entrance.listen), (0, None));
    assert_eq!((config.eal.no_huge, config.eal.memory.map(ByteSize::mebibytes)), (true, Some(1024)));
    assert_eq!(config.forwarding.ttl, Ttl::Decrement);
}

#[test]
fn configuration_for_a_nic_is_read_as_it_stands() {
    let config = read(include_str!("../../../configs/baton.toml")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.ports[0].device, Device::Pci("0000:03:00.0".to_owned()));
    assert!(!config.eal.no_huge);
}

#[test]
fn every_key_that_the_example_shows_is_known() {
    // Commented-out keys and headers are `# key = value` and `# [header]`; prose never looks like either.
    let key = |line: &str| {
        line.split_once(" = ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
    };
    let shown = |line: &str| line.strip_prefix("# ").filter(|rest| rest.starts_with('[') || key(rest)).unwrap_or(line).to_owned();
    let text: Vec<String> = include_str!("../../../configs/baton.toml").lines().map(shown).collect();
    let config = read(&text.join("\n")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.ports[0].neighbours.len(), config.services[0].real_servers.len()), (1, 2));
    assert_eq!((config.vlans[0].name.as_str(), config.vlans[0].tags), ("lan.100.300", Tags { outer: Some(100), id: 300 }));
    assert_eq!((config.limits, config.settings), (Limits::default(), Settings::default()), "what is shown is the default");
    assert_eq!(config.eal.file_prefix.as_deref(), Some("baton"));
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = read("[[port]]\nname = \"lan\"\ndevice = \"03:00.1\"\n").unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.ports[0].device.port_name(), "0000:03:00.1");
    assert_eq!((config.control.core, config.workers.cores.as_slice()), (0, &[1][..]));
    assert_eq!(config.control.entrance.socket, PathBuf::from("/run/baton/baton.sock"));
    assert_eq!(config.control.state, PathBuf::from("/var/lib/baton/state.json"));
    assert_eq!(config.eal, Eal::default());
    assert_eq!(config.forwarding.ttl, Ttl::Preserve);
    assert_eq!((config.limits, config.limits.half_open()), (Limits::default(), 262_144));
    assert_eq!((config.settings, config.services.len()), (Settings::default(), 0));
}

#[test]
fn who_may_come_is_read_whole() {
    let hash = TokenHash::of("secret");
    let text = format!(
        "{PORT}[control]\nsocket_mode = \"0600\"\nsocket_group = \"adm\"\nlisten = \"10.10.24.10:8443\"\nmetrics_listen = \"10.10.24.10:9100\"\n\
         audit = \"/var/log/baton/audit.jsonl\"\n[control.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n\
         [[control.token]]\nname = \"prometheus\"\nrole = \"read\"\nsha256 = \"{hash}\"\n[[control.client]]\nname = \"ops\"\nrole = \"operate\"\n"
    );
    let entrance = read(&text).unwrap_or_else(|faults| panic!("{faults}")).control.entrance;
    let files = TlsFiles { certificate: "/c".into(), key: "/k".into(), client_ca: Some("/a".into()) };
    let tokens = vec![Token { name: "prometheus".to_owned(), role: Role::Read, hash }];
    let clients = vec![Client { name: "ops".to_owned(), role: Role::Operate }];
    let wanted = Entrance {
        socket: "/run/baton/baton.sock".into(),
        mode: 0o600,
        group: Some("adm".to_owned()),
        listen: Some("10.10.24.10:8443".parse().unwrap()),
        tls: Some(files),
        access: Access { tokens, clients },
        metrics: Some("10.10.24.10:9100".parse().unwrap()),
        audit: Some("/var/log/baton/audit.jsonl".into()),
    };
    assert_eq!(entrance, wanted);
}

#[test]
fn bond_and_idle_are_read_whole() {
    let bond = "[[port]]\nname = \"lan\"\nmembers = [\"04:00.0\", \"net_tap1,iface=d1\"]\n";
    let config =
        read(&format!("{bond}[workers]\ncores = [1, 2]\nidle = [\"poll\", \"interrupt\"]\n")).unwrap_or_else(|faults| panic!("{faults}"));
    let port = &config.ports[0];
    assert_eq!(
        (port.device.port_name(), port.devices()[0].port_name(), port.devices()[1].port_name()),
        ("net_bonding0", "0000:04:00.0", "net_tap1")
    );
    assert_eq!(port.bond.as_ref().map(|bond| bond.mode), Some(BondMode::ActiveBackup));
    assert_eq!(config.workers.idle, [Idle::Poll, Idle::Interrupt]);
    let config = read(&format!("{bond}bond = \"802.3ad\"\n[workers]\ncores = [1, 2]\nidle = \"interrupt\"\n"))
        .unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.ports[0].bond.as_ref().map(|bond| bond.mode), Some(BondMode::Lacp));
    assert_eq!(config.workers.idle, [Idle::Interrupt; 2]);
}

#[test]
fn bond_that_cannot_be_is_refused_with_each_fault() {
    let of = |keys: &str| faults(&format!("[[port]]\nname = \"wan\"\ndevice = \"04:00.0\"\n[[port]]\nname = \"lan\"\n{keys}"));
    let only = |keys: &str, key: &str, words: &str| {
        let found = of(keys);
        assert!(found.iter().any(|(place, detail)| place.ends_with(key) && detail.contains(words)), "{found:?}");
    };
    only("members = [\"05:00.0\"]\n", "port[1].members", "2 to 8 members");
    only("members = [\"04:00.0\", \"05:00.0\"]\n", "port[1].members[0]", "port 'wan' has this device already");
    only("members = [\"05:00.0\", \"0000:05:00.0\"]\n", "port[1].members[1]", "this member already");
    only("members = [\"net_af_packet0,iface=d0\", \"net_af_packet1,iface=d0\"]\n", "port[1].members[1]", "this member already");
    only("members = [\"05:00.0\", \"06:00.0\"]\ndevice = \"07:00.0\"\n", "port[1].device", "a device or members");
    only("device = \"07:00.0\"\nbond = \"802.3ad\"\n", "port[1].bond", "only a port with members");
    only("members = [\"05:00.0\", \"06:00.0\"]\nbond = \"balance\"\n", "port[1].bond", "\"active-backup\", \"802.3ad\"");
    only("device = \"net_bonding0,mode=1\"\n", "port[1].device", "members in place of a device");
}

#[test]
fn default_cores_are_chosen_from_those_that_are_allowed() {
    let of = |cpus: &[u32], more: &str| {
        let config = parse(&format!("{PORT}{more}"), Path::new("baton.toml"), cpus).unwrap_or_else(|faults| panic!("{faults}"));
        (config.control.core, config.workers.cores)
    };
    assert_eq!(of(&[4, 6, 7], ""), (4, vec![6]));
    assert_eq!(of(&[0], ""), (0, vec![0]));
    assert_eq!(of(&[0, 1], "[control]\ncore = 1\n"), (1, vec![0]));
}

#[test]
fn services_are_read_whole() {
    let text = format!(
        "{PORT}[settings]\nsloppy_tcp = 1\ntimeout_udp = 30\n[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 80\n\
         scheduler = \"sh\"\nflags = [\"sh-port\"]\npersistence = {{ prefix = 24 }}\nno_real_server = \"drop\"\ntimeouts = {{ tcp = 60 }}\n[[service.real_server]]\naddress = \"10.10.24.21\"\nweight = 0\nupper_threshold = 9\n[[service.real_server]]\n\
         address = \"10.10.24.22\"\nmethod = \"direct-routing\"\nmac = \"02:00:00:00:00:16\"\n\
         [[service.real_server]]\naddress = \"10.10.24.23\"\nmethod = \"tunnel\"\ntunnel = {{ type = \"gue\", port = 6080 }}\n"
    );
    let config = read(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!((config.settings.sloppy_tcp, config.settings.timeout_udp, config.settings.timeout_tcp), (1, 30, 900));
    let service = &config.services[0];
    assert_eq!((service.protocol, service.port, service.scheduler, service.one_packet), (Protocol::Tcp, 80, Scheduler::Sh, false));
    assert_eq!(service.persistence, Some(Persistence { timeout: 300, prefix: Some(24), netmask: None }));
    assert_eq!(service.no_real_server, NoRealServer::Drop);
    assert_eq!(service.timeouts, Some(ServiceTimeouts { tcp: Some(60), ..ServiceTimeouts::default() }));
    assert_eq!(service.flags.iter().map(|flag| flag.as_str()).collect::<Vec<_>>(), ["sh-port"]);
    assert_eq!((service.real_servers[0].upper_threshold, service.real_servers[1].upper_threshold), (9, 0));
    let weights: Vec<_> = service.real_servers.iter().map(|rs| (rs.address.to_string(), rs.weight, rs.method, rs.mac.clone())).collect();
    assert_eq!(
        weights,
        [
            ("10.10.24.21".to_owned(), 0, Method::DirectRouting, None),
            ("10.10.24.22".to_owned(), 1, Method::DirectRouting, Some("02:00:00:00:00:16".to_owned())),
            ("10.10.24.23".to_owned(), 1, Method::Tunnel, None)
        ]
    );
    assert_eq!(service.real_servers[2].tunnel.unwrap().to_string(), "gue:6080:-c");
}

#[test]
fn schedulers_flags_and_their_settings_are_known_by_their_names() {
    for name in ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos"] {
        let flags = if matches!(name, "sh" | "mh") { format!("[\"{name}-port\", \"{name}-fallback\"]") } else { "[]".to_owned() };
        let text = format!(
            "{PORT}[settings]\nlblc_expiration = 60\nlblcr_expiration = 0\n[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 80\n\
             scheduler = \"{name}\"\nflags = {flags}\n"
        );
        let config = read(&text).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!((config.settings.lblc_expiration, config.settings.lblcr_expiration), (60, 0));
        let service = &config.services[0];
        assert_eq!(service.scheduler.as_str(), name);
        assert!(service.flags.iter().all(|flag| flag.fits(service.scheduler)));
        assert_eq!(service.flags.len(), if flags == "[]" { 0 } else { 2 });
    }
}

#[test]
fn every_value_is_refused_with_its_place() {
    // Text behind PORT (4 lines), where the fault is, part of what it says.
    let table = [
        ("[wokers]\ncores = [1]\n", "5:2 wokers", "unknown key; did you mean 'workers'? allowed here: control, eal, forwarding"),
        (
            "[control]\ncore = 0\nsockets = \"/x\"\n",
            "7:1 control.sockets",
            "did you mean 'socket'? allowed here: audit, client, core, listen, metrics_listen, socket",
        ),
        ("[workers]\ncores = 1\n", "6:9 workers.cores", "1 is an integer: expected a list"),
        ("[workers]\ncores = []\n", "6:9 workers.cores", "at least one core"),
        ("[workers]\ncores = [1, \"2\"]\n", "6:13 workers.cores[1]", "\"2\" is a string: expected a whole number from 0 to 1023"),
        ("[workers]\ncores = [-1]\n", "6:10 workers.cores[0]", "-1 is not allowed: expected a whole number from 0 to 1023"),
        (
            "[workers]\nidle = \"sleep\"\n",
            "6:8 workers.idle",
            "\"sleep\" is not allowed: expected one of \"adaptive\", \"poll\", \"interrupt\"",
        ),
        ("[workers]\ncores = [1, 2]\nidle = [\"poll\"]\n", "7:8 workers.idle", "expected one word, or one for each of the 2 workers"),
        ("[control]\nsocket = \"baton.sock\"\n", "6:10 control.socket", "absolute path"),
        ("[control]\nlisten = \"0.0.0.0:80\"\n", "6:10 control.listen", "needs control.tls"),
        ("[control]\nlisten = \"[2001:db8::1]:80\"\n", "6:10 control.listen", "a [[control.token]]"),
        ("[control]\nsocket_mode = \"0777\"\n", "6:15 control.socket_mode", "an octal mode"),
        ("[control]\nmetrics_listen = \"[::1]:0\"\n", "6:18 control.metrics_listen", "1 to 65535"),
        ("[control]\ntls = { certificate = \"/c\", key = \"/k\" }\n", "6:7 control.tls", "control.listen, which is not given"),
        (
            "[control]\nlisten = \"[::1]:80\"\n[[control.client]]\nname = \"ops\"\nrole = \"read\"\n",
            "7:1 control.client",
            "control.tls.client_ca is not given",
        ),
        (
            "[control]\nlisten = \"[::1]:80\"\n[control.tls]\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"\n",
            "7:1 control.tls",
            "no [[control.client]]",
        ),
        (
            "[control]\nlisten = \"[::1]:80\"\n[[control.token]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"00\"\n",
            "10:10 control.token[0].sha256",
            "64 hexadecimal digits",
        ),
        ("[control]\nlisten = \"127.0.0.1\"\n", "6:10 control.listen", "an address and a port"),
        ("[control]\nlisten = \"[::1]:0\"\n", "6:10 control.listen", "1 to 65535"),
        ("[control]\nstate = true\n", "6:9 control.state", "true is a boolean: expected an absolute path"),
        (
            "[limits]\nconnections = \"10X\"\n",
            "6:15 limits.connections",
            "\"10X\" is not allowed: expected a whole number, or a text such as \"10M\"",
        ),
        ("[limits]\nconnections = \"500M\"\n", "6:15 limits.connections", "\"500M\" is not allowed: expected 1024 to 268435456"),
        ("[limits]\nconnections = \"99999999999K\"\n", "6:15 limits.connections", "is not allowed: expected a whole number, or a text"),
        ("[limits]\nconnections = true\n", "6:15 limits.connections", "true is a boolean: expected a whole number, or a text"),
        ("[eal]\nno_huge = \"yes\"\n", "6:11 eal.no_huge", "\"yes\" is a string: expected true or false"),
        ("[eal]\nmemory = \"1T\"\n", "6:10 eal.memory", "\"512M\" or \"1G\""),
        ("[eal]\nmemory = 1024\n", "6:10 eal.memory", "1024 is an integer"),
        ("[eal]\nfile_prefix = \"a/b\"\n", "6:15 eal.file_prefix", "1 to 32 letters"),
        ("[eal]\nargs = [\"-l\", \"1\"]\n", "6:9 eal.args[0]", "the key for it is workers.cores"),
        ("[forwarding]\nttl = \"keep\"\n", "6:7 forwarding.ttl", "expected one of \"preserve\", \"decrement\""),
        ("[limits]\nconnections = 10\n", "6:15 limits.connections", "from 1024 to 268435456"),
        ("[limits]\nhalf_open_percent = 101\n", "6:21 limits.half_open_percent", "from 1 to 100"),
        ("[settings]\nsloppy_tcp = 2\n", "6:14 settings.sloppy_tcp", "from 0 to 1"),
        ("[settings]\ndrop_entry = 4\n", "6:14 settings.drop_entry", "from 0 to 3"),
        ("[settings]\namemthresh = 1024\n", "6:14 settings.amemthresh", "from 0 to 100"),
        ("[settings]\ntimeout_tcp = 0\n", "6:15 settings.timeout_tcp", "from 1 to 2678400"),
        ("[[port]]\nname = \"lan\"\ndevice = \"net_null1\"\n", "6:8 port[1].name", "another port has this name"),
        ("[[port]]\nname = \"wan/0\"\ndevice = \"net_null1\"\n", "6:8 port[1].name", "1 to 15 letters"),
        ("[[port]]\nname = \"lo\"\ndevice = \"net_null1\"\n", "6:8 port[1].name", "the kernel uses this name"),
        ("[[port]]\nname = \"wan\"\ndevice = \"net_null0\"\n", "7:10 port[1].device", "port 'lan' has this device already"),
        ("[[port]]\nname = \"wan\"\ndevice = \"eth1\"\n", "7:10 port[1].device", "a PCI address such as"),
        ("[[port]]\nname = \"wan\"\ndevice = \"net_af_packet1\"\n", "7:10 port[1].device", "iface=NAME"),
        ("[[port]]\nname = \"wan\"\n", "5:1 port[1].device", "missing: a PCI address"),
        ("[[port]]\ndevice = \"net_null1\"\n", "5:1 port[1].name", "missing: the port's name"),
        ("mtu = 100\n", "5:7 port[0].mtu", "from 1280 to 9600"),
        ("[[port.vlan]]\nouter = 5\n", "5:1 port[0].vlan[0].id", "missing: the VLAN id, 1 to 4094"),
        ("[[port.vlan]]\nid = 0\n", "6:6 port[0].vlan[0].id", "from 1 to 4094"),
        ("[[port.vlan]]\nid = 7\nouter = 4095\n", "7:9 port[0].vlan[0].outer", "from 1 to 4094"),
        ("[[port.vlan]]\nid = 7\n[[port.vlan]]\nid = 7\nname = \"b\"\n", "8:6 port[0].vlan[1].id", "VLAN with these tags already"),
        ("[[port.vlan]]\nid = 7\n[[port.vlan]]\nid = 8\nname = \"lan.7\"\n", "9:8 port[0].vlan[1].name", "another port has this name"),
        ("[[port.vlan]]\nid = 7\nmtu = 9601\n", "7:7 port[0].vlan[0].mtu", "from 1280 to 9600"),
        ("[[port.vlan]]\nid = 7\naddresses = [\"10.10.24.10/24\"]\n", "7:14 port[0].vlan[0].addresses[0]", "port 'lan' has this address"),
        ("[[port.vlan]]\nid = 7\ngateways = [\"10.10.24.1\"]\n", "7:13 port[0].vlan[0].gateways[0]", "none, because it has no addresses"),
        ("[[port.vlan]]\nid = 7\ndevice = \"x\"\n", "7:1 port[0].vlan[0].device", "unknown key"),
        ("gateways = [\"10.10.25.1\"]\n", "5:13 port[0].gateways[0]", "connected networks (10.10.24.0/24, fd00:10::/64)"),
        ("gateways = [\"10.10.24.10\"]\n", "5:13 port[0].gateways[0]", "the port's own address"),
        ("gateways = [\"10.10.24.1\", \"10.10.24.2\"]\n", "5:27 port[0].gateways[1]", "one gateway of each family"),
        ("[[port.neighbour]]\naddress = \"10.10.24.9\"\nmac = \"01:00:5e:00:00:01\"\n", "7:7 port[0].neighbour[0].mac", "a unicast MAC"),
        ("[[port.neighbour]]\naddress = \"10.9.24.9\"\nmac = \"02:00:00:00:00:01\"\n", "6:11 port[0].neighbour[0].address", "connected"),
        (
            "[[service]]\nprotocol = \"icmp\"\naddress = \"10.10.24.88\"\nport = 80\n",
            "6:12 service[0].protocol",
            "\"tcp\", \"udp\", \"sctp\"",
        ),
        ("[[service]]\nprotocol = \"tcp\"\naddress = \"vip\"\nport = 80\n", "7:11 service[0].address", "an IPv4 or IPv6 address"),
        ("[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\n", "5:1 service[0].port", "missing: the vport"),
        ("[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 65536\n", "8:8 service[0].port", "from 0 to 65535"),
        ("[service]\nprotocol = \"tcp\"\n", "5:1 service", "each under its own [[service]]"),
    ];
    for (text, place, says) in table {
        let found = faults(&format!("{PORT}{text}"));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, place, "{text}");
        assert!(found[0].1.contains(says), "{text}: {}", found[0].1);
    }
}

#[test]
fn vlans_are_ports_after_the_ports() {
    let text = format!(
        "{PORT}mtu = 1600\n[[port.vlan]]\nid = 7\naddresses = [\"10.10.7.10/24\"]\n[[port.vlan]]\nid = 7\nouter = 4094\nmtu = 1500\n\
         [[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n[[port.vlan]]\nid = 7\nname = \"guests\"\n\
         [[service]]\nprotocol = \"tcp\"\naddress = \"10.10.7.88\"\nport = 80\n[[service.real_server]]\naddress = \"10.10.7.21\"\n"
    );
    let config = read(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let links = config.links(|at| [2, 0, 0, 0, 0, u8::try_from(at).unwrap()], |_| 1500);
    let seen: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.mac[5], link.mtu, link.networks.len())).collect();
    let wanted = [("lan", 0, 1600, 2), ("wan", 1, 1500, 0), ("lan.7", 0, 1600, 1), ("lan.4094.7", 0, 1500, 0), ("guests", 1, 1500, 0)];
    assert_eq!(seen, wanted);
    let many: Vec<String> = (1..=64).map(|id| format!("[[port.vlan]]\nid = {id}\n")).collect();
    let many = many.concat();
    let found = faults(&format!("{PORT}{many}"));
    assert!(found.len() == 1 && found[0].1.contains("1 ports and 64 VLANs: allowed are 64 together"), "{found:?}");
    let long = faults("[[port]]\nname = \"a-name-of-many\"\ndevice = \"net_null0\"\n[[port.vlan]]\nid = 7\n");
    assert!(long.len() == 1 && long[0].1.contains("'a-name-of-many.7', which is too long or taken: give a name"), "{long:?}");
}

#[test]
fn own_addresses_that_no_host_can_have_are_refused() {
    let table = [
        ("10.10.24.10", "the length of its network's prefix"),
        ("10.10.24.0/24", "the network's own address"),
        ("10.10.24.255/24", "the network's broadcast address"),
        ("10.10.24.10/0", "the whole Internet"),
        ("127.0.0.1/8", "loopback"),
        ("224.0.0.1/4", "multicast"),
        ("ff02::1/64", "multicast"),
        ("::ffff:1.2.3.4/96", "write an IPv4 address as such"),
        ("::/64", "unspecified"),
    ];
    for (address, says) in table {
        let found = faults(&format!("[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"{address}\"]\n"));
        assert_eq!(found.len(), 1, "{address}: {found:?}");
        assert_eq!(found[0].0, "4:14 port[0].addresses[0]");
        assert!(found[0].1.contains(says), "{address}: {}", found[0].1);
    }
    assert!(read("[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/31\"]\n").is_ok(), "RFC 3021");
}

#[test]
fn one_fault_hides_no_other() {
    let text = "[[port]]\nname = \"lan\"\ndevice = \"nothing\"\naddresses = [\"10.10.24.10\", 7]\ncolour = \"red\"\n\
                [workers]\ncores = [\"a\", 1, 5000]\n[control]\nlisten = \"8.8.8.8:1\"\ncore = 1.5\n[[service]]\nport = 65536\n";
    let places: Vec<String> = faults(text).into_iter().map(|(place, _)| place).collect();
    assert_eq!(
        places,
        [
            "3:10 port[0].device",
            "4:14 port[0].addresses[0]",
            "4:29 port[0].addresses[1]",
            "5:1 port[0].colour",
            "7:10 workers.cores[0]",
            "7:18 workers.cores[2]",
            "9:10 control.listen",
            "10:8 control.core",
            "11:1 service[0].protocol",
            "11:1 service[0].address",
            "12:8 service[0].port",
        ]
    );
}

#[test]
fn faults_of_syntax_hide_no_faults_of_values() {
    let found = faults("[[port]]\nname = \"lan\ndevice = \"nothing\"\n[control]\ncore = 1\ncore = 2\nlisten = 5\n");
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["2:12 ", "3:10 port[0].device", "6:1 ", "7:10 control.listen"]);
    assert!(found[2].1.contains("duplicate key"), "{}", found[2].1);
}

#[test]
fn open_list_is_one_fault() {
    let found = faults(&format!("{PORT}[workers]\ncores = [1, 2\n[control]\ncore = 0\nsocket = \"/run/x\"\n"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.starts_with("7:"), "{found:?}");
}

#[test]
fn faults_of_services_stand_at_their_values() {
    let text = format!(
        "{PORT}[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.87\"\nport = 0\n[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\n\
         port = 80\n[[service.real_server]]\naddress = \"10.10.24.21\"\n[[service.real_server]]\naddress = \"10.99.0.1\"\n\
         [[service.real_server]]\naddress = \"fd00:10::22\"\nmethod = \"masquerading\"\n"
    );
    let places: Vec<String> = faults(&text).into_iter().map(|(place, _)| place).collect();
    assert_eq!(places, ["8:8 service[0].port", "16:11 service[1].real_server[1].address", "18:11 service[1].real_server[2].address"]);
}

#[test]
fn fault_is_shown_with_its_line_marked() {
    let text = read(&format!("{PORT}[forwarding]\n\tttl = \"keep\" # häh\n")).expect_err("not allowed").to_string();
    assert_eq!(
        text,
        "baton.toml:6:8: forwarding.ttl: \"keep\" is not allowed: expected one of \"preserve\", \"decrement\"\n \
         6 | \tttl = \"keep\" # häh\n   | \t      ^^^^^^"
    );
}

#[test]
fn file_that_cannot_be_read_is_named() {
    let text = load(Path::new("/nonexistent/baton.toml"), CPUS).expect_err("not there").to_string();
    assert_eq!(text, "/nonexistent/baton.toml: cannot read it: No such file or directory (os error 2)");
}

#[test]
fn no_text_makes_it_panic() {
    let whole = include_str!("../../../configs/baton-vdev.toml");
    for cut in (0..whole.len()).filter(|at| whole.is_char_boundary(*at)) {
        drop(read(&whole[..cut]));
        drop(read(&whole[cut..]));
    }
    for odd in ["", "\u{feff}", "[[port]]\n[[port]]\n", "port = [[[[]]]]", "port = [1, {}]", "a.b.c = 1\na = 2", "\0", "é = 'é"] {
        drop(read(odd));
    }
}

#[test]
fn mark_rules_and_services_by_mark_are_read() {
    let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\"]\n\
        [[mark]]\nmark = 7\ndestination = \"10.10.24.88\"\nprotocol = \"tcp\"\nports = [80, \"8000-8999\"]\n\
        [[mark]]\nmark = 8\ndestination = \"192.0.2.0/24\"\n\
        [[service]]\nmark = 7\n[[service]]\nmark = 7\nfamily = \"ipv6\"\n";
    let config = parse(text, Path::new("baton.toml"), &[0, 1]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.marks.len(), 2);
    assert_eq!(config.marks[0].ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["80", "8000-8999"]);
    assert_eq!(config.services.iter().map(|s| s.key().to_string()).collect::<Vec<_>>(), ["mark:7", "mark6:7"]);
}

#[test]
fn faults_of_mark_rules_are_all_named_at_their_lines() {
    let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\"]\n\
        [[mark]]\nmark = 0\ndestination = \"10.10.24.88/24\"\nports = [0, \"9-8\", true]\nprotocol = \"sctp6\"\n\
        [[mark]]\nmark = 1\ndestination = \"10.10.24.10\"\n\
        [[mark]]\nmark = 1\ndestination = \"10.10.24.88/24\"\n\
        [[service]]\nmark = 7\nport = 80\n\
        [[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 80\nfamily = \"ipv4\"\n";
    let faults = parse(text, Path::new("baton.toml"), &[0, 1]).unwrap_err();
    let lines: Vec<(usize, &str)> = faults.faults().iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    assert_eq!(
        lines,
        [
            (6, "mark[0].mark"),
            (8, "mark[0].ports[0]"),
            (8, "mark[0].ports[1]"),
            (8, "mark[0].ports[2]"),
            (9, "mark[0].protocol"),
            (12, "mark[1].destination"),
            (15, "mark[2].destination"),
            (18, "service[0].port"),
            (23, "service[1].family"),
        ],
        "{faults}"
    );
}

#[test]
fn health_is_read_with_every_field_and_its_place() {
    let text = format!(
        r#"{PORT}
[health]
probe_network = "100.64.0.0/10"

[[service]]
protocol = "tcp"
address = "10.10.24.88"
port = 443
health = {{ type = "https", profile = "fast", interval = "250ms", rise = 3, status = "200,204", sni = "shop.example", verify = false }}
[service.health.headers]
X-Probe = "yes"
[[service.real_server]]
address = "10.10.24.21"
health = {{ type = "none" }}
"#
    );
    // A table that was given inline cannot be added to.
    assert!(read(&text).is_err());
    let text = text
        .replace("[service.health.headers]\nX-Probe = \"yes\"\n", "")
        .replace("verify = false", "headers = { X-Probe = \"yes\" }, verify = false");
    let config = read(&text).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.checks.networks.v4.to_string(), "100.64.0.0/10");
    let health = config.services[0].health.as_ref().unwrap();
    let wanted = serde_json::json!({"type": "https", "profile": "fast", "interval": "250ms", "rise": 3, "status": "200,204",
        "sni": "shop.example", "verify": false, "headers": {"X-Probe": "yes"}});
    assert_eq!(serde_json::to_value(health).unwrap(), wanted);
    assert!(config.services[0].real_servers[0].health.is_some());

    let found = faults(&text.replace("250ms", "1ms").replace("\"fast\"", "\"slow\"").replace("type = \"none\"", "quorum = 1"));
    let keys: Vec<&str> = found.iter().map(|(place, _)| place.rsplit(' ').next().unwrap()).collect();
    assert_eq!(keys, ["service[0].health.profile", "service[0].health.interval", "service[0].real_server[0].health.quorum"], "{found:?}");
    let found = faults(&text.replace("100.64.0.0/10", "10.0.0.0/8"));
    assert!(found[0].1.contains("overlaps health.probe_network"), "{found:?}");
}

#[test]
fn counts_are_read_and_shown_in_thousands_and_millions() {
    for (text, wanted, shown) in
        [("10M", 10_000_000, "10M"), ("2500K", 2_500_000, "2500K"), ("3000K", 3_000_000, "3M"), ("1024", 1024, "1024"), ("0", 0, "0")]
    {
        let count: Count = text.parse().unwrap();
        assert_eq!((count.0, count.to_string().as_str()), (wanted, shown), "{text}");
    }
    for text in ["", "K", "M", "-1", "+5", "1.5M", "10 M", "10m", "10MK", "5000M", "\u{661}M"] {
        assert!(text.parse::<Count>().is_err(), "{text}");
    }
    let config = read(&format!("{PORT}[limits]\nconnections = \"10M\"\n")).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.limits.connections, 10_000_000);
}
