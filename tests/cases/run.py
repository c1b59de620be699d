"""Runs the cases: `run.py memory` (as a child of the datapath's test), `run.py tap WORLD INTERFACE SOCKET`,
`run.py toml WORLD` (the services WORLD's appliance must have), `run.py list`. More words choose cases by their names."""
import sys
import tomllib
from collections import Counter
from pathlib import Path

import model
import wires
from model import MASK, TRANSLATING, Binding, Frame, Reference, Wrong, ethernet, station_mac
from steps import ISN, BadCase, Step, echo_packet, error_packet, read_steps, tcp_packet, udp_packet
from model import IP, Raw, raw

HERE = Path(__file__).parent
FAMILIES = ("v4",)  # What the reference knows; cases of others are counted as pending, by name.
MODES = ("fullnat", "nat", "dr", "tunnel")
FAR = "192.0.2.9"
ROUTER = "10.0.0.1"


class World:
    """Facts of the network a case runs in."""

    def __init__(self, facts, port_mac):
        self.facts, self.port_mac = facts, port_mac
        self.vlan, self.laddrs, self.gateway = facts.get("vlan", 0), wires.LADDRS, {}

    def next_hop(self, ip):
        """On our network itself, else a gateway: which of several is bound by the case."""
        if ip.startswith("10.0.0."):
            return ip
        return self.gateway.get(ip, self.facts["gateways"][0])


class Conn:
    """One client's connection: what both ends know, and what was seen of it."""

    def __init__(self, client):
        self.client, self.isn, self.next, self.binding = client, dict(ISN), dict(ISN), None
        self.sent, self.seen = {}, {}

    @property
    def shift(self):
        return self.binding.shift if self.binding else 0


class Run:
    """One case in one variant, on one wire."""

    def __init__(self, case, wire, facts):
        self.case, self.wire, self.service = case, wire, case["service"]
        self.mode, self.proto = self.service["mode"], self.service["protocol"]
        self.world = World(facts, wire.port_mac)
        self.reference = Reference(self.service, self.world)
        self.conns, self.opened, self.begun = {}, [], 0
        self.silent, self.alone = set(), []
        self.names = {"VIP": wires.VIP, "PORT": wires.PORT, "LOCAL": wires.LADDRS[0], "FAR": FAR}

    def conn(self, label, client=None):
        if label not in self.conns:
            ip = client or self.names.get(self.case.get("client", ""), "10.0.0.11")
            self.conns[label] = Conn((ip, 30000 + len(self.conns)))
        return self.conns[label]

    def all(self):
        for step in read_steps(self.case["steps"]):
            if step.modes and self.mode not in step.modes:
                continue
            self.step = step
            try:
                if step.who:
                    self.packet(step)
                else:
                    self.verb(step)
            except (Wrong, BadCase, RuntimeError) as error:
                raise Wrong(f"at `{step.line}`: {error}") from error

    def verb(self, step):
        verb = getattr(self, "do_" + step.words[0].replace("-", "_"), None)
        if verb is None:
            raise BadCase(f"{step.words[0]!r} is no verb")
        verb(step)

    # Packets.

    def packet(self, step):
        words, link = [], {}
        overrides = {}
        for word in step.words:
            key, sep, text = word.partition("=")
            if sep and key in ("dmac", "smac", "tag"):
                link[key] = text
            elif sep and key in ("to", "from", "sport", "dport"):
                overrides[key] = self.names.get(text, text)
            else:
                words.append(word)
        times = int(words.pop(0)[:-1]) if words[0].endswith("x") and words[0][:-1].isdigit() else 1
        for _ in range(times):
            self.one(step, list(words), link, overrides)

    def one(self, step, words, link, overrides):
        conn = self.conn(step.label)
        side = step.who.rstrip("!")
        if side not in ("c", "s", "rs", "rc"):
            raise BadCase(f"{step.who} is nobody")
        packet, sender = self.build(side, words, conn, overrides)
        frame = ethernet(
            link.get("smac", station_mac(self.world.next_hop(sender))),
            link.get("dmac", self.world.port_mac),
            packet,
            int(link.get("tag", self.world.vlan)),
        )
        if side in "cs":
            conn.sent[side] = frame
        if step.who == "s!":  # Past the appliance, to its client.
            conn.seen["c"] = frame
            return
        flow = (sender, conn.client[1], self.proto) if side == "c" else None
        got, drops = self.wire.exchange(frame, flow)
        self.judge(step, conn, side, frame, got, drops)

    def build(self, side, words, conn, overrides):
        if side in ("rs", "rc"):
            where = "s" if side == "rs" else "c"
            if where not in conn.seen:
                raise BadCase("nothing was seen there that a router could report")
            return error_packet(words, ROUTER, Frame(conn.seen[where]).packet[self.outer(where) :]), ROUTER
        src, dst = self.ends(side, conn)
        src = (overrides.get("from", src[0]), int(overrides.get("sport", src[1])))
        dst = (overrides.get("to", dst[0]), int(overrides.get("dport", dst[1])))
        if words[0] == "udp":
            return udp_packet(words, src, dst), src[0]
        if words[0] == "echo":
            return echo_packet(words, src[0], dst[0]), src[0]
        if words[0].startswith("proto="):
            return raw(IP(src=src[0], dst=dst[0], proto=int(words[0][6:])) / Raw(b"x" * 24)), src[0]
        return tcp_packet(words, conn, side, src, dst), src[0]

    def outer(self, where):
        """What a router within a tunnel's reach sees is the inner packet, behind its end."""
        return 0

    def ends(self, side, conn):
        vip = (self.service["vip"], self.service["port"])
        if side == "c":
            return conn.client, vip
        if self.mode not in TRANSLATING:
            return vip, conn.client
        if conn.binding is None:
            raise BadCase("no server has been seen yet")
        return conn.binding.server, conn.binding.local

    # Verdicts.

    def judge(self, step, conn, side, frame, got, drops):
        if step.expect is None:
            raise BadCase("says nothing of what must come of it")
        wanted, reasons, self.drops = [], Counter(), drops
        for what in step.expect:
            wanted += self.expected(what, conn, side, frame, got, reasons)
        self.compare(got, wanted)
        if dict(reasons) != drops:
            raise Wrong(f"dropped {drops or 'nothing'}, must be {dict(reasons) or 'nothing'}")

    def expected(self, what, conn, side, frame, got, reasons):
        kind, rest = what[0], what[1:]
        if kind == "drop":
            reasons.update(rest)
            return []
        if kind == "rst":
            reasons.update(rest)
            return [model.reset_for(frame)]
        if kind == "echo":
            return [model.echo_reply_for(frame)]
        if kind == "error":
            reasons.update(word for word in rest[1:] if "=" not in word)
            mtu = next((int(word[4:]) for word in rest if word.startswith("mtu=")), 0)
            own = next((self.names.get(word[5:]) for word in rest if word.startswith("from=")), None)
            return [model.error_about(frame, *map(int, rest[0].split("/")), mtu, own)]
        if kind == "s":
            return [self.at_server(rest, conn, side, frame, got)]
        if kind == "c":
            self.gateway(conn.client[0], got)
            if side == "rs":
                out = self.error_to_client(conn, frame, rest)
            else:
                out = self.reference.to_client(frame, conn.binding, conn.client)
                conn.seen["c"] = out
            return [out]
        raise BadCase(f"{kind!r} is nothing that can be expected")

    def error_to_client(self, conn, frame, rest):
        if self.mode != "tunnel":
            return self.reference.error_to_client(frame, conn.sent["c"], conn.client)
        return self.reference.error_of_tunnel(frame, conn.client, [int(n) for n in rest[0].split("/")] if rest else None)

    def gateway(self, ip, got):
        """Which of several gateways an address is behind is the appliance's choice, once."""
        if not ip.startswith("10.0.0.") and ip not in self.world.gateway and len(got) == 1:
            macs = {station_mac(gateway): gateway for gateway in self.world.facts["gateways"]}
            chosen = macs.get(Frame(got[0]).dst)
            Reference.must(chosen is not None, f"{Frame(got[0]).dst} is a gateway")
            Reference.must(chosen not in self.silent, f"gateway {chosen} answers")
            self.world.gateway[ip] = chosen

    def at_server(self, rest, conn, side, frame, got):
        if side == "rc":
            return self.reference.error_to_server(frame, conn.sent["s"], conn.binding)
        if not got:
            raise Wrong(f"nothing came out; dropped {self.drops or 'nothing'}")
        if conn.binding is None or "new" in rest:
            conn.binding = self.reference.bind(frame, got[0], conn.client)
            self.unique(conn)
        if "alone" in rest:  # Scheduled for itself: any server, and no session.
            conn.binding = self.reference.bind(frame, got[0], conn.client)
            self.alone.append(conn.binding.server)
        conn.seen["s"] = self.reference.to_server(frame, conn.binding)
        return conn.seen["s"]

    def unique(self, conn):
        """No two sessions have one reply key."""
        if self.mode != "fullnat":
            return
        same = [c for c in self.conns.values() if c is not conn and c.binding]
        key = (conn.binding.server, conn.binding.local)
        Reference.must(key not in [(c.binding.server, c.binding.local) for c in same], f"{key} is one session's alone")

    @staticmethod
    def compare(got, wanted):
        left = list(got)
        for frame in wanted:
            if frame in left:
                left.remove(frame)
                continue
            raise Wrong(f"{len(got)} frames came out, not this one:\n  must {show(frame)}" + "".join(f"\n  came {show(f)}" for f in got))
        if left:
            raise Wrong("came out, and must not:" + "".join(f"\n  {show(f)}" for f in left))

    # Verbs.

    def line(self, text):
        self.step, outer = Step(text), self.step
        try:
            if not self.step.modes or self.mode in self.step.modes:
                self.packet(self.step)
        except Wrong as error:
            raise Wrong(f"`{text}`: {error}") from error
        self.step = outer

    def do_open(self, step):
        """Handshakes (TCP) or first datagrams, of one connection or of many."""
        count = int(step.words[1]) if len(step.words) > 1 else 1
        many = "clients" in step.words
        for n in range(count):
            label = "1" if count == 1 and not self.conns else f"o{self.begun}"
            client = f"198.18.{self.begun // 250}.{1 + self.begun % 250}" if many else None
            conn = self.conn(label, client)
            self.begun += 1
            self.opened.append(conn)
            if self.proto == "udp":
                self.line(f'c#{label}> udp "first" | s')
                continue
            self.line(f"c#{label}> S mss=1460 | s")
            self.line(f"[fullnat nat] s#{label}> SA mss=1460 | c")
            if self.mode not in TRANSLATING:
                conn.next["s"] = (conn.next["s"] + 1) & MASK
            self.line(f"c#{label}> A | s")

    def do_data(self, step):
        label = step.words[1] if len(step.words) > 1 else "1"
        if self.proto == "udp":
            self.line(f"c#{label}> udp len=101 | s")
            self.line(f"[fullnat nat] s#{label}> udp len=202 | c")
            return
        self.line(f"c#{label}> PA len=101 | s")
        self.line(f"[fullnat nat] s#{label}> A | c")
        self.line(f"[fullnat nat] s#{label}> PA len=202 | c")
        self.line(f"c#{label}> A | s")

    def do_close(self, step):
        self.line("c> FA | s")
        self.line("[fullnat nat] s> A | c")
        self.line("[fullnat nat] s> FA | c")
        self.line("[fullnat nat] c> A | s")

    def do_wait(self, step):
        got, drops = self.wire.wait(float(step.words[1]))
        self.compare(got, [])

    def change(self, step, key, value):
        rs = int(step.words[1]) - 1
        got, drops = self.wire.change(self.service, rs, key, value)
        wanted = []
        for what in step.expect or []:
            label = what[1] if len(what) > 1 else "1"
            wanted += self.resets(self.conns[label])
        self.compare(got, wanted)

    def resets(self, conn):
        """To both ends, with the number each expects (its peer's next)."""
        to_client = model.reset(self.reference.vip, conn.client, conn.next["s"])
        out = [self.reference.link(to_client, conn.client[0])]
        seq = (conn.next["c"] + conn.shift) & MASK
        if self.mode in TRANSLATING:
            packet = model.reset(conn.binding.local, conn.binding.server, seq)
        else:
            packet = model.reset(conn.client, self.reference.vip, conn.next["c"])
            if self.mode == "tunnel":
                packet = self.reference.wrapped(packet, conn.binding, 0)
        return out + [self.reference.link(packet, conn.binding.server[0])]

    def do_drain(self, step):
        self.change(step, "admin", "drain")

    def do_disable(self, step):
        self.change(step, "admin", "disabled")

    def do_enable(self, step):
        self.change(step, "admin", "enabled")

    def do_remove(self, step):
        self.change(step, "admin", "removed")

    def do_weight(self, step):
        self.change(step, "weight", int(step.words[2]))

    def do_silence(self, step):
        """A gateway answers no more. Who was behind it goes by another one, nobody else moves."""
        gone = step.words[1]
        self.wire.silence(gone)
        self.silent.add(gone)
        self.world.gateway = {ip: gateway for ip, gateway in self.world.gateway.items() if gateway != gone}

    def do_gateways(self, step):
        """Clients behind each gateway: `at-least N`."""
        counts = Counter(self.world.gateway.values())
        live = [g for g in self.world.facts["gateways"] if g not in self.silent]
        if any(counts[g] < int(step.words[2]) for g in live) or sum(counts[g] for g in live) != len(self.world.gateway):
            raise Wrong(f"the gateways have {dict(counts)}")

    def do_alone(self, step):
        """Datagrams scheduled for themselves, per server."""
        counts = Counter(ip for ip, _ in self.alone)
        found = [counts[rs["ip"]] for rs in self.service["rs"]]
        wanted = [int(word) for word in step.words[1:]]
        if any(abs(f - w) > self.world.facts["slots"] for f, w in zip(found, wanted)) or sum(found) != sum(wanted):
            raise Wrong(f"the servers got {found}")

    def do_again(self, step):
        """All connections opened say something once more."""
        for label in [label for label, conn in self.conns.items() if conn in self.opened]:
            self.do_data(Step(f"data {label}"))

    def do_forget(self, step):
        """The next connections are counted anew."""
        self.opened = []

    def do_state(self, step):
        wanted, conn = step.words[1], self.conn(step.words[2] if len(step.words) > 2 else "1")
        client = f"{conn.client[0]}:{conn.client[1]}"
        found = [s["state"] for s in self.wire.sessions(self.service) if s["client"] == client]
        if (found or ["none"]) != [wanted]:
            raise Wrong(f"the session is {found or 'gone'}")

    def do_sessions(self, step):
        found = len(self.wire.sessions(self.service))
        if found != int(step.words[1]):
            raise Wrong(f"there are {found} sessions")

    def do_spread(self, step):
        """Sessions opened per server, in the servers' order; `within N`: each may be off by N (0: exact)."""
        words = step.words[1:]
        within = int(words[words.index("within") + 1]) if "within" in words else self.world.facts["slots"]
        wanted = [int(word) for word in words[: words.index("within") if "within" in words else None]]
        counts = Counter(conn.binding.server[0] for conn in self.opened)
        found = [counts[rs["ip"]] if self.distinct() else self.by_port(rs) for rs in self.service["rs"]]
        if sum(found) != sum(wanted) or any(abs(f - w) > within for f, w in zip(found, wanted)):
            raise Wrong(f"the servers got {found}")

    def distinct(self):
        return len({rs["ip"] for rs in self.service["rs"]}) == len(self.service["rs"])

    def by_port(self, rs):
        return sum(conn.binding.server == (rs["ip"], rs["port"]) for conn in self.opened)

    def do_same(self, step):
        """Connections that have one server."""
        servers = {self.conns[label].binding.server for label in step.words[1:]}
        if len(servers) != 1:
            raise Wrong(f"these are {sorted(servers)}")

    def do_one_server(self, step):
        servers = {conn.binding.server for conn in self.opened}
        if len(servers) != 1:
            raise Wrong(f"these are {sorted(servers)}")


def show(frame):
    try:
        return f"{Frame(frame).src}>{Frame(frame).dst} {Frame(frame).ip.summary()} {frame.hex()}"
    except Exception:
        return frame.hex()


# Cases.

DEFAULTS = {"scheduler": "rr", "timeouts": {}, "max_sessions": 0}


def cases():
    """All cases in all their variants, in the order of the files; and those of families the reference does not know yet."""
    known, pending = [], []
    for path in sorted(HERE.glob("*.toml")):
        if path.name in ("worlds.toml", "coverage.toml"):
            continue
        for case in tomllib.loads(path.read_text())["case"]:
            unknown = set(case) - {"name", "why", "covers", "families", "modes", "protocol", "world", "client", "service", "steps"}
            if unknown:
                raise SystemExit(f"{path.name}: case {case.get('name')!r} has unknown keys {sorted(unknown)}")
            for family in case.get("families", ["v4"]):
                for mode in case.get("modes", MODES):
                    name = f"{path.stem}::{case['name']} [{family} {mode} {case['protocol']}]"
                    variant = {**case, "id": name, "file": path.stem, "mode": mode}
                    (known if family in FAMILIES else pending).append(variant)
    for number, variant in enumerate(known):
        variant["service"] = service_of(variant, number)
    return known, pending


def service_of(case, number):
    """The one service a variant has: VIP port and server port are its own."""
    given = dict(case.get("service", {}))
    direct = case["mode"] not in TRANSLATING
    port = 1000 + number
    servers = given.pop("rs", ["10.0.0.21", "10.0.0.22", "10.0.0.23"])
    weights, rs = given.pop("weights", [1] * len(servers)), []
    for server, weight in zip(servers, weights):
        ip, _, own = server.partition(":")
        rs.append({"ip": ip, "port": port if direct else int(own or 20000 + number), "weight": weight})
    return {
        **DEFAULTS, **given, "name": f"case-{number}", "vip": wires.VIP, "port": port,
        "protocol": case["protocol"], "mode": case["mode"], "rs": rs,
    }


def toml(services):
    """As INTERFACE §4 has them."""
    out = []
    for s in services:
        out.append(f'\n[[service]]\nname = "{s["name"]}"\nvip = "{s["vip"]}:{s["port"]}"\nhealth = {{ type = "none" }}')
        for key in s:
            if key == "timeouts" and s[key]:
                out.append("timeouts = { " + ", ".join(f'{k} = "{v}ms"' for k, v in s[key].items()) + " }")
            elif key == "persistence":
                out.append(f'persistence = "{s[key]}ms"')
            elif key not in ("name", "vip", "port", "rs", "timeouts"):
                value = s[key]
                text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, int) else f'"{value}"'
                out.append(f"{key} = {text}")
        for rs in s["rs"]:
            out.append(f'  [[service.rs]]\n  address = "{rs["ip"]}:{rs["port"]}"\n  weight = {rs["weight"]}')
    return "\n".join(out)


def uncovered(known):
    """What coverage.toml asks for and neither a case nor a test that is there shows."""
    wanted = tomllib.loads((HERE / "coverage.toml").read_text())
    shown = {name for case in known for name in case.get("covers", [])}
    missing = [f"{name} is covered by no case" for name in wanted["by_case"] if name not in shown]
    for name, (path, text) in wanted["elsewhere"].items():
        file = HERE.parent.parent / path
        if not file.exists() or text not in file.read_text():
            missing.append(f"{name}: there is no {text!r} in {path}")
    return missing


def run_all(wire, chosen, report):
    facts = tomllib.loads((HERE / "worlds.toml").read_text())
    failed = 0
    for case in chosen:
        world = {"vlan": 0, **facts[case.get("world", "plain")]}
        try:
            wire.begin(world, case["service"])
            Run(case, wire, world).all()
        except (Wrong, BadCase, RuntimeError) as error:
            failed += 1
            report(f"FAILED {case['id']}: {error}\n  {case.get('why', '')}")
    return failed


def main():
    what, *words = sys.argv[1:] or ["list"]
    known, pending = cases()
    if what == "list":
        print("\n".join(case["id"] for case in known))
        print(f"{len(known)} variants of cases; pending: {len(pending)}")
        return 0
    if what in ("toml", "tap"):
        world = words.pop(0)
        known = [case for case in known if case.get("world", "plain") == world]
    if what == "toml":
        print(toml([case["service"] for case in known]))
        return 0
    wire = wires.child_of_a_test() if what == "memory" else wires.Tap(words.pop(0), words.pop(0))
    chosen = [case for case in known if not words or any(word in case["id"] for word in words)]
    report = (lambda text: wire.call(op="report", text=text)) if what == "memory" else print
    failed = run_all(wire, chosen, report)
    for text in uncovered(known) if what == "memory" else []:
        failed += 1
        report(f"FAILED {text}")
    report(f"{len(chosen) - failed} variants of cases passed {wire.name}, {failed} failed; pending: {len(pending)}")
    for name in [case["id"] for case in pending]:
        report(f"pending: {name}")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
