"""Sends frames no honest peer sends and prints how many; all of them must be dropped.

usage: malformed.py INTERFACE PORT_MAC VIP TCP_PORT UDP_PORT

Scapy builds each frame right; then one thing is made wrong, bytes and not fields, so that no
library corrects it. Checksums are right unless they are what is wrong: each frame must fail for
its own reason.
"""
import logging
import socket
import struct
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.all import ARP, IP, TCP, UDP, Ether, Raw, raw  # noqa: E402

interface, port_mac, vip, tcp_port, udp_port = sys.argv[1:6]
CLIENT = "10.0.0.11"
ether = Ether(src="02:00:00:00:0b:ad", dst=port_mac)


def tcp(**fields):
    return IP(src=CLIENT, dst=vip, **fields) / TCP(sport=4321, dport=int(tcp_port), flags="S")


def udp(payload=b"x" * 32, **fields):
    return IP(src=CLIENT, dst=vip, **fields) / UDP(sport=4321, dport=int(udp_port)) / Raw(payload)


def with_ip_checksum(packet):
    """The IPv4 header checksum over as many bytes as the packet's own IHL says, at least 20."""
    packet = bytearray(packet)
    length = max(20, min((packet[0] & 15) * 4, len(packet) & ~1))
    packet[10:12] = b"\0\0"
    total = sum(struct.unpack(f"!{length // 2}H", bytes(packet[:length])))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = struct.pack("!H", ~total & 0xFFFF)
    return bytes(packet)


def patched(packet, offset, value, fix=True):
    packet = bytearray(raw(packet))
    packet[offset : offset + len(value)] = value
    return with_ip_checksum(packet) if fix else bytes(packet)


frames = []
# Header lengths below the minimum or beyond the packet.
for ihl in list(range(0, 5)) + list(range(11, 16)):
    frames.append(patched(tcp(), 0, bytes([0x40 | ihl])))
for version in (0, 3, 5, 15):
    frames.append(patched(tcp(), 0, bytes([version << 4 | 5])))
# TCP data offsets below the minimum or beyond the segment.
for offset in list(range(0, 5)) + list(range(6, 16)):
    frames.append(patched(tcp(), 32, bytes([offset << 4])))
# Total length below the header, or more than there is.
for length in (0, 19, 20, 39, 41, 1500, 65535):
    frames.append(patched(tcp(), 2, struct.pack("!H", length)))
# Cut short anywhere.
for length in range(0, 40, 3):
    frames.append(raw(tcp())[:length])
# UDP lengths.
for length in (0, 7, 41, 1000, 65535):
    frames.append(patched(udp(), 24, struct.pack("!H", length)))
# Wrong IPv4 checksum; no time to live; fragments; source addresses nobody has.
frames.append(patched(tcp(), 10, b"\xde\xad", fix=False))
frames.append(raw(tcp(ttl=0)))
frames.append(raw(udp(flags="MF")))
frames.append(raw(udp(frag=100)))
for source in ("127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"):
    frames.append(raw(IP(src=source, dst=vip) / TCP(sport=4321, dport=int(tcp_port), flags="S")))
# Flags that mean nothing; to a port nobody serves there is an RST at most, never a session.
for flags in ("", "SF", "SR", "FSRPAU"):
    frames.append(raw(IP(src=CLIENT, dst=vip) / TCP(sport=4321, dport=int(tcp_port), flags=flags)))
frames = [bytes(ether)[:12] + b"\x08\x00" + packet for packet in frames]
# Not IP at all.
frames.append(bytes(ether)[:12] + b"\x88\xb5" + b"local experiment")
frames.append(bytes(ether)[:12] + b"\x08\x06" + bytes(ARP(op=1, pdst=vip))[:20])
frames.append(bytes(ether)[:12] + b"\x08\x06" + b"\0\1\x86\xdd\6\4\0\1" + b"\0" * 20)
# A tag the port does not have. (A tag cut short never arrives: the kernel's own ports drop it.)
frames.append(bytes(ether)[:12] + b"\x81\x00\0\7\x08\x00" + raw(tcp()))

with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind((interface, 0))
    for frame in frames:
        link.send(frame)
print(len(frames))
