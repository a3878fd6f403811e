"""Frames, built so that a test reads as a sentence: `frames.tcp("198.51.100.1", VIP, flags="S").wrong_checksum()` and the like."""

import ipaddress
import struct

PEER_MAC, DIRECTOR_MAC = "02:00:00:00:00:01", "02:00:00:00:d0:00"
BROADCAST = "ff:ff:ff:ff:ff:ff"
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32}


def mac(text):
    """A MAC's six bytes."""
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    """An IP address's bytes."""
    return ipaddress.ip_address(address).packed


def checksum(data):
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(ether_type, payload, source=PEER_MAC, destination=DIRECTOR_MAC):
    """A frame, padded to the 60 bytes that every Ethernet frame has without its FCS."""
    return (mac(destination) + mac(source) + struct.pack("!H", ether_type) + payload).ljust(60, b"\0")


def ip(source, destination, protocol, payload, *, ttl=64, identifier=1, version=None, ihl=5, total_length=None, bad_checksum=False, fragment=0):
    """An IPv4 or IPv6 header, by the family of the addresses, and its payload. The named fields can be made to lie."""
    one, other = packed(source), packed(destination)
    if len(one) == 16:
        length = len(payload) if total_length is None else total_length
        return struct.pack("!IHBB", (6 if version is None else version) << 28, length, protocol, ttl) + one + other + payload
    length = 20 + len(payload) if total_length is None else total_length
    first = (4 if version is None else version) << 4 | ihl
    header = struct.pack("!BBHHHBBH4s4s", first, 0, length, identifier, fragment, ttl, protocol, 0, one, other)
    total = checksum(header) ^ (0x5555 if bad_checksum else 0)
    return header[:10] + struct.pack("!H", total) + header[12:] + payload


def pseudo(source, destination, protocol, length):
    """The pseudo header that TCP, UDP and ICMPv6 checksums cover."""
    one, other = packed(source), packed(destination)
    return one + other + (struct.pack("!BBH", 0, protocol, length) if len(one) == 4 else struct.pack("!IHBB", length, 0, 0, protocol))


def tcp_segment(source, destination, sport, dport, flags="S", sequence=1000, acknowledges=0, offset=5, data=b""):
    """A TCP segment with a right checksum."""
    bits = sum(FLAGS[flag] for flag in flags)
    segment = struct.pack("!HHIIBBHHH", sport, dport, sequence, acknowledges, offset << 4, bits, 8192, 0, 0) + data
    total = checksum(pseudo(source, destination, 6, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def udp_datagram(source, destination, sport, dport, data=b"x" * 8, length=None):
    """A UDP datagram with a right checksum."""
    length = 8 + len(data) if length is None else length
    datagram = struct.pack("!HHHH", sport, dport, length, 0) + data
    total = checksum(pseudo(source, destination, 17, len(datagram)) + datagram) or 0xFFFF
    return datagram[:6] + struct.pack("!H", total) + datagram[8:]


def ether_type_of(address):
    """0x0800 or 0x86dd."""
    return 0x0800 if len(packed(address)) == 4 else 0x86DD


def tcp(source, destination, sport=10000, dport=80, flags="S", *, offset=5, data=b"", link=None, **header):
    """A frame with a TCP segment. `link` goes to `ethernet`, the rest to `ip`."""
    segment = tcp_segment(source, destination, sport, dport, flags, offset=offset, data=data)
    return ethernet(ether_type_of(source), ip(source, destination, 6, segment, **header), **(link or {}))


def udp(source, destination, sport=10000, dport=53, *, data=b"x" * 8, length=None, link=None, **header):
    """A frame with a UDP datagram."""
    datagram = udp_datagram(source, destination, sport, dport, data, length)
    return ethernet(ether_type_of(source), ip(source, destination, 17, datagram, **header), **(link or {}))


def arp(operation, sender_mac, sender, target_mac, target, *, source=None, destination=BROADCAST, hardware=1, protocol=0x0800, lengths=(6, 4)):
    """A frame with an ARP message: operation 1 asks, 2 answers."""
    message = struct.pack("!HHBBH", hardware, protocol, *lengths, operation) + mac(sender_mac) + packed(sender) + mac(target_mac) + packed(target)
    return ethernet(0x0806, message, source or sender_mac, destination)


def arp_request(sender, target, sender_mac=PEER_MAC, **more):
    """Who has `target`? Tell `sender`."""
    return arp(1, sender_mac, sender, "00:00:00:00:00:00", target, **more)


def arp_reply(sender, sender_mac, target, target_mac=DIRECTOR_MAC, **more):
    """`sender` is at `sender_mac`."""
    return arp(2, sender_mac, sender, target_mac, target, destination=more.pop("destination", target_mac), **more)


def icmp6(source, destination, message, *, hop_limit=255, link=None, bad_checksum=False):
    """A frame with an ICMPv6 message whose checksum bytes are filled in."""
    total = checksum(pseudo(source, destination, 58, len(message)) + message) ^ (0x5555 if bad_checksum else 0)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    return ethernet(0x86DD, ip(source, destination, 58, message, ttl=hop_limit), **(link or {}))


def solicited_node(target):
    """The solicited-node multicast address of `target`, and its MAC (RFC 4291 2.7.1, RFC 2464 7)."""
    last = packed(target)[-3:]
    address = ipaddress.IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + last)
    return str(address), "33:33:ff:" + last.hex(":")


def neighbour_solicitation(sender, target, sender_mac=PEER_MAC, *, hop_limit=255, option_length=1, bad_checksum=False):
    """Who has `target`? Tell `sender`."""
    address, group = solicited_node(target)
    message = struct.pack("!BBHI", 135, 0, 0, 0) + packed(target) + struct.pack("!BB", 1, option_length) + mac(sender_mac)
    return icmp6(sender, address, message, hop_limit=hop_limit, bad_checksum=bad_checksum, link={"source": sender_mac, "destination": group})


def neighbour_advertisement(sender, sender_mac, target, target_mac=DIRECTOR_MAC):
    """`sender` is at `sender_mac`: solicited, override."""
    message = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + packed(sender) + struct.pack("!BB", 2, 1) + mac(sender_mac)
    return icmp6(sender, target, message, link={"source": sender_mac, "destination": target_mac})


def echo_request(source, destination, data=b"is anybody there"):
    """A ping."""
    if len(packed(source)) == 16:
        return icmp6(source, destination, struct.pack("!BBHHH", 128, 0, 0, 7, 1) + data, hop_limit=64)
    message = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + data
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return ethernet(0x0800, ip(source, destination, 1, message))
