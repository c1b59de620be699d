//! Validated values: each can only be made from text that says it right, so whoever holds one need not check again.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::text::{ValueError, serde_as_text, words};

/// A span of time in milliseconds, written with its unit: `"200ms"`, `"90s"`, `"5m"`, `"1h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Millis(u32);

impl Millis {
    /// `ms` milliseconds.
    #[must_use]
    pub const fn new(ms: u32) -> Self {
        Self(ms)
    }

    /// `s` seconds (at most 49 days; a larger value stops at that).
    #[must_use]
    pub const fn secs(s: u32) -> Self {
        Self(s.saturating_mul(1000))
    }

    /// In milliseconds.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As a standard duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64)
    }
}

/// Units of time, largest first, with their milliseconds.
const UNITS: [(&str, u32); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Millis {
    /// The largest unit that says it without a fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (unit, ms) = UNITS.iter().find(|(_, ms)| self.0.is_multiple_of(*ms)).unwrap_or(&("ms", 1));
        write!(f, "{}{unit}", self.0 / ms)
    }
}

impl FromStr for Millis {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim();
        if number.is_empty() {
            return Err(ValueError::new(format!("\"{text}\" is not a duration"))
                .hint("write a number and a unit, such as \"200ms\", \"90s\", \"5m\" or \"1h\""));
        }
        if unit.is_empty() {
            return Err(ValueError::new(format!("duration \"{text}\" has no unit"))
                .hint(format!("did you mean \"{number}s\" or \"{number}ms\"? units: ms, s, m, h")));
        }
        let Some((_, ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            let known = ["ms", "s", "m", "h"];
            let guess = match unit.to_ascii_lowercase().as_str() {
                "sec" | "secs" | "second" | "seconds" => Some("s"),
                "min" | "mins" | "minute" | "minutes" => Some("m"),
                "hr" | "hour" | "hours" => Some("h"),
                "msec" | "millis" | "milliseconds" => Some("ms"),
                other => known.into_iter().find(|k| *k == other),
            };
            let error = ValueError::new(format!("unknown unit \"{unit}\" in duration \"{text}\""));
            return Err(match guess {
                Some(guess) => error.hint(format!("did you mean \"{number}{guess}\"? units: ms, s, m, h")),
                None => error.hint("units: ms, s, m, h"),
            });
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|n| n.checked_mul(*ms))
            .map(Self)
            .ok_or_else(|| ValueError::new(format!("duration \"{text}\" is too long")).hint("at most 24h"))
    }
}

serde_as_text!(Millis);

/// A name: 1–32 characters of `a-z 0-9 . _ -`, beginning with a letter or digit (it becomes part of paths).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stands for a name that could not be read; equal to no real name.
    pub(crate) fn unreadable() -> Self {
        Self(String::new())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let first = text.chars().next().is_some_and(good);
        let rest = text.chars().all(|c| good(c) || "._-".contains(c));
        if first && rest && text.len() <= 32 {
            return Ok(Self(text.to_owned()));
        }
        let error = ValueError::new(format!("\"{text}\" is not a name"));
        let rule = "1 to 32 of a-z, 0-9, \".\", \"_\", \"-\", beginning with a letter or digit";
        let lower = text.to_ascii_lowercase().replace(' ', "-");
        Err(if lower != text && lower.parse::<Self>().is_ok() {
            error.hint(format!("did you mean \"{lower}\"? {rule}"))
        } else {
            error.hint(rule)
        })
    }
}

serde_as_text!(Name);

/// A network interface name of the kernel: 1–15 bytes, no `/`, blank or control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(String);

impl IfName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IfName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        if (1..=15).contains(&text.len()) && text.chars().all(good) && text != "." && text != ".." {
            return Ok(Self(text.to_owned()));
        }
        Err(ValueError::new(format!("\"{text}\" is not an interface name"))
            .hint("1 to 15 characters without blanks, \"/\" and \":\""))
    }
}

serde_as_text!(IfName);

/// An Ethernet address, written `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(format!("\"{text}\" is not an Ethernet address"))
                .hint("six pairs of hex digits, such as \"02:00:00:00:00:01\"")
        };
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(ValueError::new(format!("{text} is not the address of one station"))
                .hint("the first byte must be even (not multicast) and not all bytes 0"));
        }
        Ok(Self(bytes))
    }
}

serde_as_text!(Mac);

/// An address with its prefix length, `10.0.0.2/24`: of a port (host bits kept), or a block of local addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    /// The address as written, host bits included.
    pub address: IpAddr,
    /// 0–32 or 0–128.
    pub prefix: u8,
}

impl Cidr {
    /// Bits of this family's addresses.
    const fn bits(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The address as a number (IPv4 in the low 32 bits).
    fn number(address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        }
    }

    /// The number as an address of the same family.
    fn back(self, number: u128) -> IpAddr {
        match self.address {
            // The number came from 32 bits and stays within them.
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number & 0xffff_ffff).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }

    /// Ones where the host part lies.
    fn host_mask(self) -> u128 {
        let host = u32::from(self.bits() - self.prefix);
        1u128.checked_shl(host).map_or(u128::MAX, |v| v - 1)
    }

    /// The first address of the block.
    #[must_use]
    pub fn first(self) -> IpAddr {
        self.back(Self::number(self.address) & !self.host_mask())
    }

    /// The last address of the block.
    #[must_use]
    pub fn last(self) -> IpAddr {
        self.back(Self::number(self.address) | self.host_mask())
    }

    /// How many addresses the block holds (saturating for `::/0`).
    #[must_use]
    pub fn count(self) -> u128 {
        self.host_mask().saturating_add(1)
    }

    /// Every address of the block, in order. Blocks of local addresses are small by validation.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let base = Self::number(self.first());
        (0..self.count()).map(move |i| self.back(base + i))
    }

    /// Whether `address` lies in the block.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && (self.first()..=self.last()).contains(&address)
    }

    /// Whether the two blocks share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }

    /// The block written with its first address.
    #[must_use]
    pub fn network(self) -> Self {
        Self { address: self.first(), prefix: self.prefix }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (address, prefix) = text.split_once('/').ok_or_else(|| {
            let error = ValueError::new(format!("\"{text}\" has no prefix length"));
            match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => {
                    error.hint(format!("did you mean \"{text}/24\", or \"{text}/32\" for one address?"))
                }
                Ok(IpAddr::V6(_)) => {
                    error.hint(format!("did you mean \"{text}/64\", or \"{text}/128\" for one address?"))
                }
                Err(_) => error.hint("write address/length, such as \"10.0.0.2/24\""),
            }
        })?;
        let address: IpAddr = parse_ip(address)?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix =
            prefix.parse::<u8>().ok().filter(|p| *p <= max).ok_or_else(|| {
                ValueError::new(format!("prefix length \"{prefix}\" in \"{text}\" is not 0 to {max}"))
            })?;
        Ok(Self { address, prefix })
    }
}

serde_as_text!(Cidr);

/// An IP address; the error says which part is wrong.
pub(crate) fn parse_ip(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| {
        let error = ValueError::new(format!("\"{text}\" is not an IP address"));
        if text.split('.').any(|p| p.parse::<u32>().is_ok_and(|n| n > 255)) {
            error.hint("each of the four numbers is 0 to 255")
        } else if text.parse::<std::net::SocketAddr>().is_ok() {
            error.hint("without the port")
        } else {
            error.hint("names are not resolved; write an address such as \"10.0.0.1\" or \"fd00::1\"")
        }
    })
}

/// An address with a port (`10.0.0.1:80`, `[fd00::1]:80`); the error says which part is wrong.
pub(crate) fn parse_socket(text: &str) -> Result<std::net::SocketAddr, ValueError> {
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(address);
    }
    let error = ValueError::new(format!("\"{text}\" is not an address with a port"));
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = std::net::SocketAddr::new(ip, 80);
        return Err(error.hint(format!("the port is missing: write \"{example}\"")));
    }
    match text.rsplit_once(':') {
        Some((ip, port)) => match parse_ip(ip.trim_matches(['[', ']'])) {
            Ok(_) => Err(error.hint(format!("port \"{port}\" is not 1 to 65535"))),
            Err(why) => Err(error.hint(match why.hint {
                Some(hint) => format!("{}: {hint}", why.message),
                None => why.message,
            })),
        },
        None => Err(error.hint("write address:port, such as \"10.0.0.1:80\" or \"[fd00::1]:80\"")),
    }
}

/// A closed range of port numbers, `1024-65535`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// Lowest port, at least 1.
    pub first: u16,
    /// Highest port, at least `first`.
    pub last: u16,
}

impl PortRange {
    /// How many ports.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(format!("\"{text}\" is not a range of ports"))
                .hint("write first-last, such as \"1024-65535\"")
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let number = |s: &str| s.trim().parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(ValueError::new(format!("range of ports \"{text}\" ends before it begins"))
                .hint(format!("did you mean \"{last}-{first}\"?")));
        }
        Ok(Self { first, last })
    }
}

serde_as_text!(PortRange);

/// What a port is made of: a DPDK virtual device (`net_tap0,iface=lb1net0`) or a PCI address (`0000:03:00.0`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    /// A vdev string as EAL's `--vdev` takes it.
    Vdev(VdevString),
    /// A PCI address with domain, as EAL's `--allow` takes it.
    Pci(PciAddress),
}

impl Device {
    /// Stands for a device that could not be read; equal to no real one.
    pub(crate) fn unreadable() -> Self {
        Self::Vdev(VdevString(String::new()))
    }

    /// Whether it is a PCI device (EAL then runs without `--no-pci`).
    #[must_use]
    pub const fn is_pci(&self) -> bool {
        matches!(self, Self::Pci(_))
    }

    /// The vdev's driver, `net_tap`; none for PCI.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        match self {
            Self::Vdev(vdev) => Some(vdev.driver()),
            Self::Pci(_) => None,
        }
    }

    /// The device's name within EAL: `net_tap0` or `0000:03:00.0`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Vdev(vdev) => vdev.name(),
            Self::Pci(pci) => &pci.0,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vdev(vdev) => f.write_str(&vdev.0),
            Self::Pci(pci) => f.write_str(&pci.0),
        }
    }
}

impl FromStr for Device {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.starts_with("net_") || text.starts_with("virtio_user") {
            return VdevString::new(text).map(Self::Vdev);
        }
        PciAddress::new(text).map(Self::Pci).ok_or_else(|| {
            ValueError::new(format!("\"{text}\" is neither a DPDK device string nor a PCI address"))
                .hint("such as \"net_tap0,iface=lb1net0\" or \"0000:03:00.0\"")
        })
    }
}

serde_as_text!(Device);

/// A DPDK vdev string: driver with number, then comma-separated arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VdevString(String);

impl VdevString {
    fn new(text: &str) -> Result<Self, ValueError> {
        let vdev = Self(text.to_owned());
        let wrong = |why: &str| ValueError::new(format!("device \"{text}\": {why}"));
        if text.len() > 255 || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(wrong("at most 255 printable characters without blanks"));
        }
        if vdev.name().len() == vdev.driver().len() {
            return Err(wrong("the driver has no number")
                .hint(format!("did you mean \"{}\"?", text.replacen(vdev.name(), &format!("{}0", vdev.name()), 1))));
        }
        if let Some(bad) = text.split(',').skip(1).find(|a| a.split('=').next().is_none_or(str::is_empty)) {
            return Err(wrong(&format!("\"{bad}\" is not an argument")).hint("write name=value after each comma"));
        }
        Ok(vdev)
    }

    /// The whole string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `net_tap0` of `net_tap0,iface=x`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split(',').next().unwrap_or(&self.0)
    }

    /// `net_tap` of `net_tap0,iface=x`.
    #[must_use]
    pub fn driver(&self) -> &str {
        self.name().trim_end_matches(|c: char| c.is_ascii_digit())
    }

    /// The value of an argument, `iface`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.0.split(',').skip(1).find_map(|a| a.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A PCI address with domain: `0000:03:00.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PciAddress(String);

impl PciAddress {
    /// The address as EAL takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn new(text: &str) -> Option<Self> {
        let full = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.to_owned() };
        let full = full.to_ascii_lowercase();
        let (slot, function) = full.split_once('.')?;
        let mut parts = slot.split(':');
        let hex = |part: Option<&str>, len: usize| {
            part.is_some_and(|p| p.len() == len && p.chars().all(|c| c.is_ascii_hexdigit()))
        };
        let good = hex(parts.next(), 4) && hex(parts.next(), 2) && hex(parts.next(), 2) && parts.next().is_none();
        let function = function.len() == 1 && ("0"..="7").contains(&function);
        (good && function).then(|| Self(full.clone()))
    }
}

words! {
    /// How a worker waits for packets.
    Poll, "poll mode" {
        /// Sleeps after empty polls.
        Adaptive = "adaptive",
        /// Never sleeps.
        Busy = "busy",
    }
}

words! {
    /// What happens when the holder dies unasked.
    OnPrimaryDeath, "reaction" {
        /// Workers forward on; the planned restart waits for an operator or a worker's death.
        Hold = "hold",
        /// The planned restart is made at once.
        Restart = "restart",
    }
}

words! {
    /// Layer-4 protocol of a service.
    Protocol, "protocol" {
        /// RFC 9293.
        Tcp = "tcp",
        /// RFC 768.
        Udp = "udp",
    }
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

words! {
    /// How packets reach the real server.
    Mode, "mode" {
        /// Both addresses are rewritten; replies come back by the local address.
        FullNat = "fullnat",
        /// Only the destination is rewritten; the server's gateway is the appliance.
        Nat = "nat",
        /// Only the next hop changes; the server holds the VIP.
        Dr = "dr",
        /// The packet is wrapped; the server holds the VIP and unwraps.
        Tunnel = "tunnel",
    }
}

words! {
    /// Wrapping of the tunnel mode.
    Tunnel, "tunnel kind" {
        /// IP in IP (RFC 2003).
        Ipip = "ipip",
        /// Generic UDP Encapsulation.
        Gue = "gue",
    }
}

words! {
    /// Which server takes a new session.
    Scheduler, "scheduler" {
        /// Each in turn.
        Rr = "rr",
        /// Each in turn by weight, smooth.
        Wrr = "wrr",
        /// Fewest sessions.
        Lc = "lc",
        /// Fewest sessions per weight.
        Wlc = "wlc",
        /// By the client's address.
        SourceIp = "source-ip",
        /// By the client's address and port.
        SourceIpPort = "source-ip-port",
        /// Consistent hashing by a Maglev table.
        Maglev = "maglev",
    }
}

words! {
    /// How the server learns the client's address.
    ClientAddress, "way to tell the client's address" {
        /// It does not.
        None = "none",
        /// TCP option.
        Toa = "toa",
        /// PROXY protocol version 2.
        ProxyV2 = "proxy-v2",
        /// UDP option.
        Uoa = "uoa",
    }
}

words! {
    /// Whether a pool that goes down at once is believed only after three intervals.
    Panic, "panic rule" {
        /// The rule holds.
        On = "on",
        /// Every result is believed at once.
        Off = "off",
    }
}

words! {
    /// What a check does.
    HealthKind, "check type" {
        /// A TCP connection is accepted.
        Tcp = "tcp",
        /// An HTTP request is answered with an expected status.
        Http = "http",
        /// The same over TLS.
        Https = "https",
        /// A datagram is answered as expected.
        Udp = "udp",
        /// A DNS query is answered.
        Dns = "dns",
        /// An ICMP echo is answered.
        Ping = "ping",
        /// No check: the server counts as up.
        None = "none",
    }
}

words! {
    /// What the operator wants of a server.
    Admin, "admin state" {
        /// Takes sessions.
        Enabled = "enabled",
        /// Takes no new sessions, keeps the old ones.
        Drain = "drain",
        /// Takes no sessions; the old ones are ended.
        Disabled = "disabled",
    }
}
