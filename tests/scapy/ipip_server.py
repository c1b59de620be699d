"""The far end of a tunnel on a kernel without IPIP devices: ipip_server.py DEVICE.

Takes IP-in-IP packets of either family, inside and outside, to this host and gives what is in them to the kernel by a TUN device, as
an ipip or ip6tnl device would.
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# What is inside.
IPPROTO_IPIP, IPPROTO_IPV6 = 4, 41


def main():
    name = sys.argv[1]
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=0", f"net.ipv6.conf.{name}.accept_dad=0"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    sockets = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for inside in (IPPROTO_IPIP, IPPROTO_IPV6):
            outer = socket.socket(family, socket.SOCK_RAW, inside)
            outer.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
            sockets[outer] = family
    while True:
        for outer in select.select(list(sockets), [], [])[0]:
            packet = outer.recv(65536)
            # Of IPv6 the kernel keeps the outer header to itself.
            os.write(tun, packet[(packet[0] & 15) * 4 :] if sockets[outer] == socket.AF_INET else packet)


main()
