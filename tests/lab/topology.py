"""The networks that tests and the demo use."""

from pathlib import Path

from .lab import Lab
from .servers import udp_server, web_server

REPOSITORY = Path(__file__).resolve().parents[2]

PUBLIC = "203.0.113.88"
CLIENT, CLIENT6 = "203.0.113.10", "fd00:99::10"
VIP, VIP6 = "10.10.24.88", "fd00:10::88"
DIP, DIP6 = "10.10.24.10", "fd00:10::10"
ROUTER, ROUTER6 = "10.10.24.1", "fd00:10::1"
# The last number of a host's address, again and again, after a first byte of its kind: two hosts of different kinds differ in all six bytes, so
# that every byte that the director writes shows.
ROUTER_MAC = "0a:01:01:01:01:01"
DIRECTOR_MAC = "02:10:10:10:10:10"
# The wire is the network in which the recordings of tests/oracle were made.
WIRE_DIRECTOR_MAC, WIRE_PEER_MAC = "02:00:00:00:d0:00", "02:00:00:00:00:01"


def server_mac(last):
    """The MAC of the real server 10.10.24.21: 06:21:21:21:21:21."""
    return "06" + f":{last}" * 5


class Classic(Lab):
    """Client, router with static NAT, switch, director, and real servers whose answers go straight to the router.

    `attach` says how the director is plugged in: "af_packet" (DPDK on the veth d0) or "tap" (DPDK makes the TAP d0, a bridge joins it to the cable).
    The real servers are named rs1, rs2, ... at 10.10.24.21 and up; they are plain until `prepare` gives them the VIP.
    """

    def __init__(self, servers=3, attach="af_packet"):
        super().__init__()
        self.server_count = servers
        self.attach = attach

    def build(self):
        self.client, self.router, self.switch, self.director = (self.host(name) for name in ("client", "router", "switch", "director"))
        self.servers = [self.host(f"rs{number}") for number in range(1, self.server_count + 1)]
        self._build_switch()
        self._build_router()
        self._build_client()
        self._build_director()
        for number, server in enumerate(self.servers):
            self._build_server(server, 21 + number)

    def _build_switch(self):
        self.switch.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        self.switch.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        self.switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        self.switch.ip("link set br0 up")

    def plug(self, host, device, mac):
        """A cable from the host's `device` to the switch, whose end bears the host's name."""
        self.link(host, device, self.switch, host.name, mac=mac)
        self.switch.ip(f"link set {host.name} master br0")

    def _build_router(self):
        self.plug(self.router, "inside", ROUTER_MAC)
        self.link(self.router, "outside", self.client, "eth0", mac="0a:99:99:99:99:01", other_mac="0a:99:99:99:99:10")
        self.router.ip(f"address add {ROUTER}/24 dev inside")
        self.router.ip(f"address add {ROUTER6}/64 dev inside nodad")
        self.router.ip("address add 203.0.113.1/24 dev outside")
        self.router.ip(f"address add {PUBLIC}/32 dev outside")
        self.router.ip("address add fd00:99::1/64 dev outside nodad")
        self.router.sysctl("net.ipv4.ip_forward", 1)
        self.router.sysctl("net.ipv6.conf.all.forwarding", 1)
        for key in ("all", "inside", "outside"):
            self.router.sysctl(f"net.ipv4.conf.{key}.send_redirects", 0)
        rules = f"""table ip static_nat {{
  chain inbound {{ type nat hook prerouting priority dstnat; ip daddr {PUBLIC} dnat to {VIP}; }}
  chain outbound {{ type nat hook postrouting priority srcnat; ip saddr {VIP} oifname "outside" snat to {PUBLIC}; }}
}}
"""
        self.router.run(["nft", "-f", "-"], stdin=rules)

    def _build_client(self):
        self.client.ip(f"address add {CLIENT}/24 dev eth0")
        self.client.ip(f"address add {CLIENT6}/64 dev eth0 nodad")
        self.client.ip("route add 10.10.24.0/24 via 203.0.113.1")
        self.client.ip("route add fd00:10::/64 via fd00:99::1")
        self.client.sysctl("net.ipv4.ip_local_port_range", "10000 65000")

    def _build_director(self):
        if self.attach == "af_packet":
            self.plug(self.director, "d0", DIRECTOR_MAC)
            return
        self.plug(self.director, "cable", "0e:10:10:10:10:10")
        self.director.ip("link add joint type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        for device in ("cable", "joint"):
            # The kernel would answer here for addresses of the director's TAP.
            self.director.sysctl(f"net.ipv4.conf.{device}.arp_ignore", 8)
            self.director.sysctl(f"net.ipv6.conf.{device}.disable_ipv6", 1)
        self.director.ip("link set joint up")
        self.director.ip("link set cable master joint")

    def join_tap(self):
        """Joins the TAP that DPDK made to the cable; only with attach="tap", once the director runs."""
        self.director.plain("d0")
        self.director.sysctl("net.ipv6.conf.d0.disable_ipv6", 1)
        # A bridge keeps frames for its own ports' addresses: the TAP's kernel side must not have the director's MAC.
        # Its queue is as long as a busy machine may keep the worker from its core.
        self.director.ip("link set d0 address 0e:10:10:10:10:11 txqueuelen 16384")
        self.director.ip("link set d0 master joint up")

    @property
    def device(self):
        """The director's DPDK device."""
        return "net_af_packet0,iface=d0" if self.attach == "af_packet" else f"net_tap0,iface=d0,mac={DIRECTOR_MAC}"

    def _build_server(self, server, last):
        server.address, server.address6 = f"10.10.24.{last}", f"fd00:10::{last}"
        server.mac = server_mac(last)
        self.plug(server, "eth0", server.mac)
        server.ip(f"address add {server.address}/24 dev eth0")
        server.ip(f"address add {server.address6}/64 dev eth0 nodad")
        server.ip(f"route add default via {ROUTER}")
        server.ip(f"route add default via {ROUTER6}")

    def prepare(self, *vips):
        """Prepares every real server for direct routing as a user does: `baton realserver apply`."""
        for server in self.servers:
            server.run(["baton", "realserver", "apply", *(word for vip in vips or (VIP, VIP6) for word in ("--vip", vip))])

    def serve(self):
        """Starts nginx, and a UDP server on port 53, on every real server; both tell the server's name."""
        for server in self.servers:
            web_server(server)
            udp_server(server)


class Wire(Lab):
    """The director alone on a cable whose other end, p0 on the host `peer`, is this program: it sends and sees frames, nobody else speaks."""

    def build(self):
        self.director, self.peer = self.host("director"), self.host("peer")
        self.peer.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        self.link(self.director, "d0", self.peer, "p0", mac=WIRE_DIRECTOR_MAC, other_mac=WIRE_PEER_MAC)
        self.peer.sysctl("net.ipv4.conf.p0.arp_ignore", 8)
        self.device = "net_af_packet0,iface=d0"


class TapWire(Lab):
    """As Wire, on a TAP that DPDK makes: its kernel side, d0 on the director's host, is the far end, once the director runs. Here the kernel does
    not put fragments together before DPDK sees them, as it does for net_af_packet."""

    def build(self):
        self.director = self.host("director")
        self.director.sysctl("net.ipv4.conf.default.arp_ignore", 8)
        self.device = f"net_tap0,iface=d0,mac={WIRE_DIRECTOR_MAC}"

    def quieten(self):
        """Keeps the kernel from answering on the far end."""
        self.director.plain("d0")
        self.director.sysctl("net.ipv6.conf.d0.disable_ipv6", 1)
        self.director.sysctl("net.ipv4.conf.d0.arp_ignore", 8)
        self.director.ip("link set d0 address 0e:10:10:10:10:11 up")
