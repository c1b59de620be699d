"""The language of a case's steps (README.md), read and made into packets."""
import re
import shlex

from model import MASK, Raw, TCP, UDP, ICMP, IP, raw

ISN = {"c": 0xFFFFFF00, "s": 0xFFFFF800}  # Both wrap within a case.
FLAGS = re.compile(r"^(-|[FSRPAU]+)$")


class BadCase(Exception):
    """A case that cannot be read."""


class Step:
    """A line: who sends what, or a verb; and what must come of it."""

    def __init__(self, line):
        self.line = line
        text, *expect = line.split("|")
        self.modes = None
        found = re.match(r"\s*\[([a-z ]+)\]\s*(.*)", text)
        if found:
            self.modes, text = found.group(1).split(), found.group(2)
        self.words = shlex.split(text)
        self.expect = [shlex.split(part) for part in expect[0].split("&")] if expect else None
        self.who = None
        if self.words and self.words[0].endswith((">", "!")):
            who, _, label = self.words.pop(0).rstrip(">").partition("#")
            self.who, self.label = who, label or "1"


def read_steps(text):
    lines = (line.split("//")[0].strip() for line in text.splitlines())
    return [Step(line) for line in lines if line]


def value(text, conn):
    """`C+1+len`: numbers with the initial ones of client and server."""
    names = {"C": conn.isn["c"], "S": conn.isn["s"], "M": 1 << 28}
    if not re.fullmatch(r"[CSM0-9x a-f+*-]+", text):
        raise BadCase(f"{text!r} is no number")
    return eval(text, {"__builtins__": {}}, names) & MASK  # noqa: S307 (digits, C, S, M and + - * alone)


def split(words):
    """Bare words and key=value pairs of a packet."""
    bare, keys = [], {}
    for word in words:
        key, sep, text = word.partition("=")
        if sep and re.fullmatch(r"[a-z_0-9]+", key):
            keys[key] = text
        else:
            bare.append(word)
    return bare, keys


def ip_fields(keys, bare):
    fields = {"ttl": int(keys.pop("ttl", 64)), "tos": int(keys.pop("tos", "0"), 0), "id": int(keys.pop("id", "1"), 0)}
    flags = [flag for flag, word in (("DF", "df"), ("MF", "mf")) if word in bare]
    if flags:
        fields["flags"] = "+".join(flags)
    if "frag" in keys:
        fields["frag"] = int(keys.pop("frag"))
    if "ipopt" in keys:
        # Router alert, then no-operations: as many words as asked for.
        from scapy.layers.inet import IPOption

        fields["options"] = [IPOption(b"\x94\x04\0\0" + b"\1" * (4 * int(keys.pop("ipopt")) - 4))]
    return fields


def payload_of(bare, keys):
    texts = [word for word in bare if word not in ("df", "mf", "nosum", "badsum", "badip")]
    if "len" in keys:
        length = int(keys.pop("len"))
        return bytes((7 * n + 1) & 0xFF for n in range(length))
    return texts[0].encode() if texts else b""


def tcp_options(keys, conn, shift):
    options = []
    if "mss" in keys:
        options.append(("MSS", int(keys.pop("mss"))))
    if "sackok" in keys:
        keys.pop("sackok")
        options.append(("SAckOK", b""))
    if "ts" in keys:
        options += [("NOP", None)] * int(keys.pop("pad", 0))
        options.append(("Timestamp", tuple(int(n) for n in keys.pop("ts").split(":"))))
    if "ws" in keys:
        options.append(("WScale", int(keys.pop("ws"))))
    if "sack" in keys:
        edges = [value(e, conn) for block in keys.pop("sack").split(",") for e in block.split("..")]
        options += [("NOP", None)] * int(keys.pop("pad", 0))
        options.append(("SAck", tuple((edge + shift) & MASK for edge in edges)))
    if "opt" in keys:
        options += [(int(kind), bytes.fromhex(text)) for kind, _, text in [keys.pop("opt").partition(":")]]
    return options


def spoiled(packet, bare):
    """Wrong on purpose: a checksum one off."""
    packet = bytearray(packet)
    at = (packet[0] & 15) * 4
    if "badip" in bare:
        packet[11] ^= 1
    if "badsum" in bare:
        packet[at + (17 if packet[9] == 6 else 7)] ^= 1
    return bytes(packet)


def tcp_packet(words, conn, side, src, dst):
    """A segment in its sender's own numbers (`C` and `S` are what each end says itself); a server's acknowledgement
    carries the shift, because that is what the server has seen."""
    bare, keys = split(words)
    flags = bare.pop(0)
    flags = "" if flags == "-" else flags
    peer = "s" if side == "c" else "c"
    shift = conn.shift if side == "s" else 0
    ip = ip_fields(keys, bare)
    given = "seq" in keys
    seq = value(keys.pop("seq"), conn) if given else conn.next[side]
    ack = value(keys.pop("ack"), conn) if "ack" in keys else conn.next[peer]
    options = tcp_options(keys, conn, shift)
    fields = {"window": int(keys.pop("win", 64000))}
    if "A" in flags:
        fields["ack"] = (ack + shift) & MASK
    if "urp" in keys:
        fields["urgptr"] = int(keys.pop("urp"))
    data = payload_of(bare, keys)
    if keys:
        raise BadCase(f"unknown: {', '.join(keys)}")
    if not given:
        conn.next[side] = (seq + len(data) + ("S" in flags) + ("F" in flags)) & MASK
    segment = TCP(sport=src[1], dport=dst[1], seq=seq, flags=flags, options=options, **fields)
    return spoiled(raw(IP(src=src[0], dst=dst[0], **ip) / segment / Raw(data)), bare)


def udp_packet(words, src, dst):
    bare, keys = split(words[1:])
    ip = ip_fields(keys, bare)
    data = payload_of(bare, keys)
    if keys:
        raise BadCase(f"unknown: {', '.join(keys)}")
    fields = {"chksum": 0} if "nosum" in bare else {}
    return spoiled(raw(IP(src=src[0], dst=dst[0], **ip) / UDP(sport=src[1], dport=dst[1], **fields) / Raw(data)), bare)


def echo_packet(words, src, dst):
    bare, keys = split(words[1:])
    ip = ip_fields(keys, bare)
    data = payload_of(bare, keys)
    return raw(IP(src=src, dst=dst, **ip) / ICMP(type=8, id=7, seq=1) / Raw(data))


def error_packet(words, reporter, about):
    """`error 3/4 mtu=1280 quote=28`: a router's, about the packet `about` (bytes)."""
    bare, keys = split(words[1:])
    kind, code = map(int, bare[0].split("/"))
    packet = about[: int(keys.pop("quote", 548))]
    fields = {"unused": 0}
    if kind == 3 and code == 4:
        fields = {"nexthopmtu": int(keys.pop("mtu", 0))}
    if "seq" in keys:
        by = int(keys.pop("seq"), 0)
        at = (packet[0] & 15) * 4 + 4
        number = (int.from_bytes(packet[at : at + 4], "big") + by) & MASK
        packet = packet[:at] + number.to_bytes(4, "big") + packet[at + 4 :]
    message = ICMP(type=kind, code=code, **{k: v for k, v in fields.items() if k != "unused"})
    out = raw(IP(src=reporter, dst=".".join(map(str, packet[12:16])), tos=0xC0, id=9) / message / Raw(packet))
    if "badsum" in bare:
        at = (out[0] & 15) * 4
        out = out[: at + 3] + bytes([out[at + 3] ^ 1]) + out[at + 4 :]
    return out
