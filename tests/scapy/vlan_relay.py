"""Joins a tagged link to an untagged one, as a switch's trunk and access port: vlan_relay.py TRUNK ACCESS VLAN.

For kernels without VLAN devices and without bridges that filter by VLAN. The kernel takes the tag off what a packet socket
hears and tells it beside the frame (packet(7), PACKET_AUXDATA); what is sent must carry it. Frames of another VLAN, or
without tag, are not passed on.
"""

import select
import socket
import struct
import sys

SOL_PACKET, PACKET_AUXDATA, PACKET_IGNORE_OUTGOING, SO_RCVBUFFORCE = 263, 8, 23, 33
VLAN_VALID = 0x10
ALL = 3


def link(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    s.bind((name, 0))
    s.setblocking(False)
    return s


def heard(s):
    """All frames waiting, each with its VLAN (None: untagged)."""
    for _ in range(256):
        try:
            frame, aux, _, _ = s.recvmsg(65536, 64)
        except BlockingIOError:
            return
        vlan = None
        for level, kind, data in aux:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                vlan = tci & 0xFFF if status & VLAN_VALID else None
        yield frame, vlan


def send(s, frame):
    try:
        s.send(frame)
    except OSError:
        pass  # A full queue: the ends repeat what is lost.


def main():
    trunk, access, vlan = link(sys.argv[1]), link(sys.argv[2]), int(sys.argv[3])
    tag = struct.pack("!HH", 0x8100, vlan)
    while True:
        ready, _, _ = select.select([trunk, access], [], [])
        for frame, of in heard(trunk) if trunk in ready else ():
            if of == vlan:
                send(access, frame)
        for frame, _ in heard(access) if access in ready else ():
            send(trunk, frame[:12] + tag + frame[12:])


main()
