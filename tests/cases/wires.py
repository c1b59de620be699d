"""Two ways to an appliance: a datapath in memory (lines of JSON with the test that started us), real processes (a packet
socket on the kernel's end of the port, the admin socket)."""
import json
import select
import socket
import struct
import sys
import time
import zlib

from model import station_mac

VIP = "10.0.0.100"
PORT = "10.0.0.2"
LADDRS = [f"10.0.0.{n}" for n in range(128, 132)]
OURS = {VIP, PORT, *LADDRS}
# What comes of answers to the appliance's own questions is no verdict about a case's packets.
OWN = {"handled_arp"}


class Memory:
    """The datapath, world by world."""

    name = "in memory"
    port_mac = "02:00:00:00:00:01"

    def __init__(self, pipes):
        self.read, self.write = pipes
        self.sent = 0

    def call(self, **message):
        self.write.write(json.dumps(message) + "\n")
        self.write.flush()
        answer = self.read.readline()
        if not answer:
            raise SystemExit("the datapath's process has ended")
        answer = json.loads(answer)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def begin(self, world, service):
        self.slots = world["slots"]
        world = {"mtu": 1500, **world}
        self.call(op="world", **world, laddrs=LADDRS, address=PORT, service=service)

    def outcome(self, answer):
        drops = {k: v for k, v in answer["drops"].items() if k not in OWN}
        return [bytes.fromhex(frame) for frame in answer["out"]], drops

    def exchange(self, frame, flow=None):
        """Clients' flows stay on their slot, as RSS has it; what is no client's comes to each in turn."""
        self.sent += 1
        slot = (zlib.crc32(repr(flow).encode()) if flow else self.sent) % self.slots
        return self.outcome(self.call(op="send", slot=slot, frame=frame.hex()))

    def wait(self, seconds):
        return self.outcome(self.call(op="wait", ms=int(seconds * 1000)))

    def change(self, service, rs, key, value):
        return self.outcome(self.call(op="change", rs=rs, key=key, value=value))

    def silence(self, station):
        self.call(op="silence", station=station)

    def sessions(self, service):
        return self.call(op="sessions")["sessions"]


class Tap:
    """The kernel's end of a real appliance's port. Nobody else uses the link: what the appliance counts is what we sent."""

    name = "real processes"
    LIMIT = 15
    QUIET = 0.003  # What was sent before the counters were flipped has been delivered.

    def __init__(self, interface, admin):
        self.admin = socket.socket(socket.AF_UNIX)
        self.admin.connect(admin)
        self.lines, self.calls = self.admin.makefile("r"), 0
        self.link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.link.setsockopt(263, 8, 1)  # PACKET_AUXDATA: the kernel takes tags off.
        self.link.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
        self.link.bind((interface, 0))
        self.link.setblocking(False)
        self.port_mac = self.items("port.list")[0]["mac"]
        self.dead, self.got = set(), []
        self.sent = self.stats()["rx"]
        self.acquaint()

    def acquaint(self):
        """Until the appliance knows the MAC of every neighbour that its configuration names."""
        end = time.monotonic() + 2 * self.LIMIT
        while any(n["mac"] is None for n in self.items("neigh.list")) and time.monotonic() < end:
            self.wait_for(0.05)

    def call(self, method, **params):
        self.calls += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self.calls, "method": method, "params": params})
        self.admin.sendall(line.encode() + b"\n")
        answer = json.loads(self.lines.readline())
        if "result" not in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def items(self, method, **params):
        answer = self.call(method, **params)
        return answer["items"] if isinstance(answer, dict) else answer

    def stats(self):
        return self.call("stats.show")

    def begin(self, world, service):
        self.dead = set()
        self.settle()
        self.got = []

    def send(self, frame):
        self.sent += 1
        self.link.send(frame)

    def listen(self):
        """Takes what has come; answers questions for stations of the network."""
        while True:
            try:
                frame, aux, _, _ = self.link.recvmsg(65536, 64)
            except BlockingIOError:
                return
            for level, kind, data in aux:
                if (level, kind) == (263, 8):
                    status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                    if status & 0x10:
                        frame = frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]
            at = 16 if frame[12:14] == b"\x81\0" else 12
            if frame[at : at + 2] != b"\x08\x06":
                self.got.append(frame)
            elif frame[at + 8 : at + 10] == b"\0\1":
                self.answer(frame, at + 2)
            elif frame[at + 10 : at + 16] == bytes.fromhex(self.port_mac.replace(":", "")):
                self.got.append(frame)  # Its answer to a question of ours.

    def answer(self, frame, arp):
        asker, target = frame[arp + 8 : arp + 18], frame[arp + 24 : arp + 28]
        ip = ".".join(map(str, target))
        if ip in OURS or ip in self.dead:
            return
        mac = bytes.fromhex(station_mac(ip).replace(":", ""))
        reply = asker[:6] + mac + frame[12:arp] + frame[arp : arp + 6] + b"\0\2" + mac + target + asker
        self.send(reply)

    def settle(self):
        """Until the appliance has done with all that was sent: by its own counters, however slow the machine is."""
        end = time.monotonic() + self.LIMIT
        while True:
            self.listen()
            stats = self.stats()
            done = stats["rx"] == self.sent and stats["held"] == 0 and stats["to_ring"] == stats["from_ring"]
            if done:
                select.select([self.link], [], [], self.QUIET)
                before = self.sent
                self.listen()
                if self.sent == before:
                    return stats
            if time.monotonic() > end:
                facts = {key: stats[key] for key in ("rx", "tx", "held", "to_ring", "from_ring")}
                self.sent = stats["rx"]
                raise RuntimeError(f"not at rest {self.LIMIT} s after frame {self.sent}: {facts}")
            time.sleep(0.0005)

    def after(self, act):
        before = self.settle()["drops"]
        self.got = []
        act()
        after = self.settle()["drops"]
        drops = {k: v - before[k] for k, v in after.items() if v != before[k] and k not in OWN}
        got, self.got = self.got, []
        return got, drops

    def exchange(self, frame, flow=None):
        return self.after(lambda: self.send(frame))

    def wait(self, seconds):
        def pass_time():
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                select.select([self.link], [], [], 0.01)
                self.listen()

        return self.after(pass_time)

    def change(self, service, rs, key, value):
        server = service["rs"][rs]
        name = {"service": service["name"], "rs": f"{server['ip']}:{server['port']}"}
        words = {"enabled": "rs.enable", "drain": "rs.drain", "disabled": "rs.disable", "removed": "rs.del"}

        def act():
            if key == "admin":
                self.call(words[value], **name)
            else:
                self.call("rs.set", **name, keys=[[key, str(value)]])
            self.wait_for(0.15)  # Sweeps take 64 records per burst.

        return self.after(act)

    def wait_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            select.select([self.link], [], [], 0.01)
            self.listen()

    def silence(self, station):
        self.dead.add(station)
        self.wait_for(8)  # Until control has asked again and given up.

    def sessions(self, service):
        found = self.items("session.list", service=service["name"])
        return [{**session, "state": session["state"].replace("-", "_")} for session in found]


def child_of_a_test():
    return Memory((sys.stdin, sys.stdout))
