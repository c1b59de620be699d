"""The far end of a tunnel on a kernel without IPIP devices: ipip_server.py DEVICE.

Takes IP-in-IP packets to this host and gives what is in them to the kernel by a TUN device, as an ipip device would.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
IPPROTO_IPIP = 4


def main():
    name = sys.argv[1]
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, IPPROTO_IPIP)
    outer.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE
    while True:
        packet = outer.recv(65536)
        os.write(tun, packet[(packet[0] & 15) * 4 :])


main()
