"""Makes icmpv6.txt, the packets that tests/icmpv6.rs expects: "name hex" a line. Run: /usr/bin/python3 icmpv6.py > icmpv6.txt"""

import struct

from scapy.all import ICMP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, \
    ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig, ICMPv6ParamProblem, ICMPv6TimeExceeded, IP, \
    IPv6, IPv6ExtHdrDestOpt, Dot1Q, Ether, Raw, TCP, UDP, in6_getnsma, in6_getnsmac, inet_pton, inet_ntop
import socket

HOST, US, ROUTER = "02:00:0a:00:00:01", "02:00:0a:00:00:02", "02:00:0a:00:00:09"
CLIENT, VIP, LOCAL, SERVER, GATEWAY = "2001:db8:1::5", "2001:db8::100", "2001:db8::80", "2001:db8:2::21", "2001:db8::1"
LOCAL4, SERVER4, GATEWAY4 = "10.0.0.128", "10.0.2.21", "10.0.0.1"
SHIFT = 0x0f000001


def say(name, packet):
    print(name, bytes(packet).hex())


def ether(src=HOST, dst=US, tag=None):
    frame = Ether(src=src, dst=dst)
    return frame / Dot1Q(vlan=tag) if tag else frame


def group(address):
    return inet_ntop(socket.AF_INET6, in6_getnsma(inet_pton(socket.AF_INET6, address)))


def group_mac(address):
    return in6_getnsmac(in6_getnsma(inet_pton(socket.AF_INET6, address)))


def discovery():
    ask = ICMPv6ND_NS(tgt=VIP) / ICMPv6NDOptSrcLLAddr(lladdr=US)
    for name, tag in (("", None), ("_tagged", 7)):
        say("solicit" + name, ether(US, group_mac(VIP), tag) / IPv6(src=LOCAL, dst=group(VIP), hlim=255) / ask)
        say("announce" + name, ether(US, "33:33:00:00:00:01", tag) / IPv6(src=VIP, dst="ff02::1", hlim=255)
            / ICMPv6ND_NA(tgt=VIP, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=US))
    say("probe", ether(US, HOST) / IPv6(src=LOCAL, dst=VIP, hlim=255) / ask)
    say("answer", ether(US, HOST) / IPv6(src=VIP, dst=CLIENT, hlim=255)
        / ICMPv6ND_NA(tgt=VIP, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=US))
    say("duplicate_probe", ether(HOST, group_mac(VIP)) / IPv6(src="::", dst=group(VIP), hlim=255) / ICMPv6ND_NS(tgt=VIP))


def echo():
    data = Raw(b"abcdefg")
    say("echo", ether() / IPv6(src=CLIENT, dst=VIP, hlim=3, tc=0xb8, fl=0x12345)
        / ICMPv6EchoRequest(id=77, seq=3, data=bytes(data)))
    say("echo_reply", ether(US, HOST) / IPv6(src=VIP, dst=CLIENT, hlim=64, tc=0xb8, fl=0x12345)
        / ICMPv6EchoReply(id=77, seq=3, data=bytes(data)))


def segment(sport, dport, seq, ack, payload):
    return TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags="A", window=501) / Raw(payload)


def datagram(sport, dport, payload):
    return UDP(sport=sport, dport=dport) / Raw(payload)


def own_errors():
    large = Raw(bytes(i & 0xff for i in range(1400)))
    sent = IPv6(src=CLIENT, dst=VIP, hlim=9) / segment(40000, 80, 1000, 2000, large)
    say("large", ether() / sent)
    say("large_refused", ether(US, HOST) / IPv6(src=VIP, dst=CLIENT, hlim=64) / ICMPv6PacketTooBig(mtu=1460)
        / Raw(bytes(sent)[:1280 - 40 - 8]))


def cut(packet, length):
    return Raw(bytes(packet)[:length])


def quoted():
    """Errors that the servers' side reports: about what we sent, and as the client is told."""
    payload = bytes(range(40))
    for kind, make in (("tcp", lambda a, b, shift: segment(a, b, 0x11223344 + shift, 0x55667788, payload)),
                       ("udp", lambda a, b, shift: datagram(a, b, payload))):
        sent = IPv6(src=CLIENT, dst=VIP, hlim=61, tc=0x28) / make(40000, 80, 0)
        seen6 = IPv6(src=LOCAL, dst=SERVER, hlim=61, tc=0x28) / make(1030, 8080, SHIFT)
        seen4 = IP(src=LOCAL4, dst=SERVER4, ttl=61, tos=0x28, id=0, flags="DF") / make(1030, 8080, SHIFT)
        for name, length in (("whole", 2000), ("short", 8), ("part", 24)):
            error = ICMPv6DestUnreach(code=4)
            say(f"{kind}_{name}_66_in", ether(ROUTER) / IPv6(src=GATEWAY, dst=LOCAL, hlim=60) / error / cut(seen6, 40 + length))
            say(f"{kind}_{name}_66_out", ether(ROUTER) / IPv6(src=VIP, dst=CLIENT, hlim=59) / error / cut(sent, 40 + length))
            error = ICMP(type=3, code=3)
            say(f"{kind}_{name}_46_in", ether(ROUTER) / IP(src=GATEWAY4, dst=LOCAL4, ttl=60) / error / cut(seen4, 20 + length))
            say(f"{kind}_{name}_46_out", ether(US, HOST) / IPv6(src=VIP, dst=CLIENT, hlim=59) / ICMPv6DestUnreach(code=4)
                / cut(sent, 40 + length))
            # The client's side reports what the server sent: its acknowledgement had the shift taken off.
        reply4 = IP(src=SERVER4, dst=LOCAL4, ttl=61, tos=0x28, id=0, flags="DF") / back(kind, 8080, 1030, SHIFT, payload)
        reply6 = IPv6(src=VIP, dst=CLIENT, hlim=61, tc=0x28) / back(kind, 80, 40000, 0, payload)
        options = IPv6(src=VIP, dst=CLIENT, hlim=61, tc=0x28) / IPv6ExtHdrDestOpt() / back(kind, 80, 40000, 0, payload)
        for name, of in (("plain", reply6), ("options", options)):
            say(f"{kind}_{name}_64_in", ether(HOST) / IPv6(src=GATEWAY, dst=VIP, hlim=60) / ICMPv6DestUnreach(code=1) / of)
        say(f"{kind}_64_out", ether(US, HOST) / IP(src=LOCAL4, dst=SERVER4, ttl=59, id=0, flags="DF") / ICMP(type=3, code=10)
            / cut(reply4, 576))


def back(kind, sport, dport, shift, payload):
    if kind == "udp":
        return datagram(sport, dport, payload)
    return segment(sport, dport, 0x55667788, 0x11223344 + shift, payload)


discovery()
echo()
own_errors()
quoted()
