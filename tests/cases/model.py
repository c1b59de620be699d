"""The reference: what a balancer of INTERFACE.md must send for what it is sent, frame by frame.

Written from the RFCs named below, over scapy; it shares no line with the appliance and is never
adjusted to what the appliance sends. What the appliance is free to choose (server, local address
and port, sequence shift, outer source and identification of a tunnel) is a `Binding`: read from
the first frame of a session, checked against what is allowed, and fixed from then on.
"""
import logging
import struct

logging.getLogger("scapy").setLevel(logging.ERROR)
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.l2 import Dot1Q, Ether  # noqa: E402
from scapy.packet import Raw, raw  # noqa: E402
from scapy.utils import checksum  # noqa: E402

MASK = 0xFFFFFFFF
TRANSLATING = ("fullnat", "nat")  # Replies come by the appliance; else servers answer on their own.


def station_mac(ip):
    """MAC of a station of the test network."""
    _, _, c, d = map(int, ip.split("."))
    return f"02:00:00:09:{c:02x}:{d:02x}"


def number(ip):
    return struct.unpack("!I", bytes(map(int, ip.split("."))))[0]


def address(n):
    return ".".join(map(str, struct.pack("!I", n & MASK)))


class Wrong(Exception):
    """The appliance did something else than it must."""


class Frame:
    """An Ethernet frame with one IPv4 packet: link addresses, tag, the packet's own bytes."""

    def __init__(self, data):
        ether = Ether(data)
        self.dst, self.src, self.vlan = ether.dst, ether.src, 0
        at, kind = 14, ether.type
        if kind == 0x8100:
            self.vlan, kind, at = ether[Dot1Q].vlan, ether[Dot1Q].type, 18
        if kind != 0x0800:
            raise Wrong(f"not IPv4 but ethertype {kind:#06x}")
        self.packet = bytes(data[at:])

    @property
    def ip(self):
        return IP(self.packet)


def ethernet(src, dst, packet, vlan=0):
    """A frame around an IP packet; a tag only where there is one."""
    link = Ether(src=src, dst=dst)
    if vlan:
        link = link / Dot1Q(vlan=vlan, type=0x0800)
    else:
        link.type = 0x0800
    return raw(link) + packet


def l4_offset(packet):
    return (packet[0] & 15) * 4


def l4_sum(packet):
    """The right checksum of TCP or UDP (RFC 9293 §3.1, RFC 768), whatever stands in its field."""
    at, total, proto = l4_offset(packet), struct.unpack("!H", packet[2:4])[0], packet[9]
    segment = bytearray(packet[at:total])
    where = 16 if proto == 6 else 6
    segment[where : where + 2] = b"\0\0"
    pseudo = packet[12:20] + struct.pack("!BBH", 0, proto, len(segment))
    value = checksum(pseudo + bytes(segment))
    return 0xFFFF if proto == 17 and value == 0 else value


def with_ip_sum(packet):
    packet = bytearray(packet)
    packet[10:12] = b"\0\0"
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[: l4_offset(packet)])))
    return bytes(packet)


def options_of(packet):
    """TCP options as (offset in the packet, kind, length), RFC 9293 §3.1."""
    at = l4_offset(packet)
    end, at = at + (packet[at + 12] >> 4) * 4, at + 20
    while at < end and packet[at] != 0:
        length = 1 if packet[at] == 1 else packet[at + 1]
        yield at, packet[at], length
        at += length


def erase_timestamps(packet):
    """Timestamps (RFC 7323) overwritten by no-operations: two clients behind one address have two clocks."""
    packet = bytearray(packet)
    for at, kind, length in list(options_of(packet)):
        if kind == 8 and length == 10:
            packet[at : at + 10] = b"\1" * 10
    return bytes(packet)


def shift_sack(packet, by):
    """Edges of SACK blocks (RFC 2018 §3) less `by`."""
    packet = bytearray(packet)
    for at, kind, length in list(options_of(packet)):
        if kind == 5:
            for edge in range(at + 2, at + length, 4):
                value = struct.unpack("!I", packet[edge : edge + 4])[0]
                packet[edge : edge + 4] = struct.pack("!I", (value - by) & MASK)
    return bytes(packet)


def hop(packet):
    """One hop on: a TTL of one less (RFC 1812 §5.3.1)."""
    packet = bytearray(packet)
    packet[8] -= 1
    return with_ip_sum(packet)


def translated(packet, src, dst, seq_add=0, ack_sub=0, sack_sub=0, erase=False):
    """RFC 3022 §4.1 with shifted sequence numbers. A checksum that was right is right afterwards, one that was wrong is
    wrong by as much (RFC 1624: updated, not made anew); UDP without checksum stays so (RFC 768)."""
    at, proto = l4_offset(packet), packet[9]
    where = at + (16 if proto == 6 else 6)
    had = struct.unpack("!H", packet[where : where + 2])[0]
    before = l4_sum(packet)
    out = bytearray(packet)
    out[12:20] = struct.pack("!II", number(src[0]), number(dst[0]))
    out[at : at + 4] = struct.pack("!HH", src[1], dst[1])
    if proto == 6:
        seq, ack = struct.unpack("!II", out[at + 4 : at + 12])
        if out[at + 13] & 0x10:
            ack = (ack - ack_sub) & MASK
        out[at + 4 : at + 12] = struct.pack("!II", (seq + seq_add) & MASK, ack)
        if sack_sub:
            out = bytearray(shift_sack(bytes(out), sack_sub))
        if erase:
            out = bytearray(erase_timestamps(bytes(out)))
    if proto == 17 and had == 0:
        value = 0
    elif had == before:
        value = l4_sum(bytes(out))
    else:
        # Ones' complement: the same distance from what is right.
        value = had - before + l4_sum(bytes(out))
        value = value % 0xFFFF or 0xFFFF
    out[where : where + 2] = struct.pack("!H", value)
    return hop(out)


class Binding:
    """What the appliance chose for one session."""

    def __init__(self, server, local=None, shift=0, outer=None):
        self.server, self.local, self.shift, self.outer = server, local, shift, outer


class Reference:
    """One service of the appliance as it is configured."""

    def __init__(self, service, world):
        self.service, self.world = service, world
        self.vip = (service["vip"], service["port"])

    def link(self, packet, station):
        """The frame that carries `packet` to a station, by a gateway where it is not on our network."""
        return ethernet(self.world.port_mac, station_mac(self.world.next_hop(station)), packet, self.world.vlan)

    def bind(self, sent, seen, client):
        """Reads the choices for a session from the first frame that reached a server."""
        mode, got = self.service["mode"], Frame(seen)
        known = {ip: (ip, port) for ip, port in self.servers()}
        layer = got.ip[TCP] if TCP in got.ip else got.ip[UDP]
        if mode == "tunnel":
            outer = got.ip
            self.must(outer.proto == 4, "the outer packet is IP in IP (RFC 2003)")
            server = known.get(outer.dst)
            self.must(outer.src in self.world.laddrs, f"outer source {outer.src} is a local address")
        elif mode == "dr":
            server = next((s for ip, s in known.items() if station_mac(ip) == got.dst), None)
        else:
            server = next((s for s in self.servers() if s == (got.ip.dst, layer.dport)), None)
        self.must(server is not None, f"{got.ip.summary()} to {got.dst} reaches a configured server")
        binding = Binding(server)
        if mode == "tunnel":
            binding.outer = got.ip.src
        elif mode == "nat":
            binding.local = client
        elif mode == "fullnat":
            ip = got.ip
            binding.local = (ip.src, layer.sport)
            self.must(ip.src in self.world.laddrs, f"source {ip.src} is a local address")
            self.must(1024 <= layer.sport, f"local port {layer.sport} is of the range")
            if TCP in ip:
                binding.shift = (ip[TCP].seq - Frame(sent).ip[TCP].seq) & MASK
        return binding

    def servers(self):
        return [(rs["ip"], rs["port"]) for rs in self.service["rs"]]

    @staticmethod
    def must(holds, what):
        if not holds:
            raise Wrong(f"does not hold: {what}")

    def to_server(self, sent, binding, identification=0):
        """The frame a server gets for a client's."""
        packet, mode = Frame(sent).packet, self.service["mode"]
        if mode == "dr":
            return self.link(hop(packet), binding.server[0])
        if mode == "tunnel":
            return self.link(self.wrapped(hop(packet), binding, identification), binding.server[0])
        at = l4_offset(packet)
        syn = packet[9] == 6 and packet[at + 13] & 2
        out = translated(
            packet, binding.local, binding.server, seq_add=binding.shift, erase=bool(syn) and mode == "fullnat"
        )
        return self.link(out, binding.server[0])

    @staticmethod
    def wrapped(inner, binding, identification):
        """RFC 2003 §3.1; the type of service copied (RFC 2983), DF so that a link too small is reported."""
        outer = IP(src=binding.outer, dst=binding.server[0], proto=4, ttl=64, flags="DF", tos=inner[1], id=identification)
        return raw(outer / Raw(inner))

    def to_client(self, sent, binding, client):
        """The frame a client gets for a server's."""
        out = translated(
            Frame(sent).packet, self.vip, client, ack_sub=binding.shift, sack_sub=binding.shift
        )
        return self.link(out, client[0])

    def error_to_client(self, error, original, client):
        """An ICMP error of the servers' side about a client's packet, told to the client: about the packet as it sent it,
        from where it sent it to (RFC 5508 §4.2)."""
        return self.link(self.requoted(error, original, self.vip[0], client[0]), client[0])

    def error_of_tunnel(self, error, client, kind):
        """An error about the packet a client's was wrapped into (RFC 2003 §4): what fits is 20 bytes less; other reasons why
        the far end is not reached are told as `kind`."""
        packet = Frame(error).packet
        at = l4_offset(packet)
        quoted = packet[at + 8 : struct.unpack("!H", packet[2:4])[0]]
        inner = quoted[l4_offset(quoted) :]
        inner = inner[: struct.unpack("!H", inner[2:4])[0]]
        code = bytes(kind) if kind else packet[at : at + 2]
        mtu = struct.unpack("!H", packet[at + 6 : at + 8])[0] - 20 if code == b"\3\4" else 0
        message = code + struct.pack("!HHH", 0, 0, mtu) + inner
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        out = bytearray(packet[:at] + message)
        out[2:4] = struct.pack("!H", len(out))
        out[12:20] = struct.pack("!II", number(self.vip[0]), number(client[0]))
        return self.link(hop(out), client[0])

    def error_to_server(self, error, original, binding):
        """The same of the clients' side about a server's packet."""
        mode = self.service["mode"]
        if mode in TRANSLATING:
            return self.link(self.requoted(error, original, binding.local[0], binding.server[0]), binding.server[0])
        packet = hop(Frame(error).packet)  # The server has the VIP: the error is as it must be.
        return self.link(self.wrapped(packet, binding, 0) if mode == "tunnel" else packet, binding.server[0])

    @staticmethod
    def requoted(error, original, src, dst):
        """The error's own header stays but for addresses and TTL; it quotes `original`, as much as was quoted."""
        packet = Frame(error).packet
        at = l4_offset(packet)
        quoted = packet[at + 8 : struct.unpack("!H", packet[2:4])[0]]
        inner = bytearray(Frame(original).packet[: len(quoted)])
        inner[8] = quoted[8]  # The TTL it had where it was reported.
        message = packet[at : at + 2] + b"\0\0" + packet[at + 4 : at + 8] + with_ip_sum(inner)
        message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
        out = bytearray(packet[:at] + message)
        out[12:20] = struct.pack("!II", number(src), number(dst))
        return hop(out)


def segment_length(tcp):
    return len(tcp.payload) + ("S" in tcp.flags) + ("F" in tcp.flags)


def back(frame, packet):
    """The way the frame came."""
    return ethernet(frame.dst, frame.src, packet, frame.vlan)


def reset_for(sent):
    """RFC 9293 §3.5.2: with the segment's ack as number if it has one, else number 0 and an ack of all it carried."""
    frame = Frame(sent)
    ip = frame.ip
    tcp = ip[TCP]
    # What pads a short frame is no payload.
    length = ip.len - ip.ihl * 4 - tcp.dataofs * 4 + ("S" in tcp.flags) + ("F" in tcp.flags)
    if "A" in tcp.flags:
        fields = {"flags": "R", "seq": tcp.ack}
    else:
        fields = {"flags": "RA", "seq": 0, "ack": (tcp.seq + length) & MASK}
    answer = TCP(sport=tcp.dport, dport=tcp.sport, window=0, **fields)
    return back(frame, raw(IP(src=ip.dst, dst=ip.src, id=0, flags="DF", ttl=64) / answer))


def reset(src, dst, seq):
    """A reset of the appliance's own, as an IP packet."""
    segment = TCP(sport=src[1], dport=dst[1], seq=seq & MASK, flags="R", window=0)
    return raw(IP(src=src[0], dst=dst[0], id=0, flags="DF", ttl=64) / segment)


def echo_reply_for(sent):
    """RFC 792, RFC 1122 §3.2.2.6: addresses turned, all data returned."""
    frame = Frame(sent)
    ip = frame.ip
    packet = bytearray(frame.packet[: ip.len])
    at = l4_offset(packet)
    packet[at], packet[at + 2 : at + 4] = 0, b"\0\0"
    packet[at + 2 : at + 4] = struct.pack("!H", checksum(bytes(packet[at:])))
    packet[8] = 64  # A datagram of its own.
    packet[12:20] = struct.pack("!II", number(ip.dst), number(ip.src))
    return back(frame, with_ip_sum(packet))


def error_about(sent, kind, code, mtu=0, own=None):
    """An ICMP error about a frame, back the way it came (RFC 792, RFC 1812 §4.3.2: at most 576 bytes in all)."""
    frame = Frame(sent)
    ip = frame.ip
    quote = frame.packet[: ip.len][: 576 - 28]
    message = struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quote
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    return back(frame, raw(IP(src=own or ip.dst, dst=ip.src, id=0, flags="DF", ttl=64, proto=1) / Raw(message)))
