//! IP addresses, blocks of them, and ranges of ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::text::{ValueError, serde_as_text};

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

    /// The prefix's length as if the address was IPv6: an IPv4 /24 is 120.
    #[must_use]
    pub const fn prefix_as_v6(self) -> u8 {
        self.prefix + (128 - self.bits())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_know_their_ends() {
        let net = cidr("10.0.0.130/24");
        assert_eq!((net.first().to_string(), net.last().to_string()), ("10.0.0.0".into(), "10.0.0.255".into()));
        assert_eq!((net.count(), net.network().to_string()), (256, "10.0.0.0/24".into()));
        assert_eq!(cidr("10.0.0.128/30").addresses().count(), 4);
        assert_eq!(cidr("0.0.0.0/0").last().to_string(), "255.255.255.255");
        assert_eq!((cidr("::/0").count(), cidr("fd00::1/128").count()), (u128::MAX, 1));
        assert!(net.overlaps(cidr("10.0.0.4/30")) && !net.overlaps(cidr("10.0.1.0/30")));
        assert!(!cidr("0.0.0.0/0").contains("::1".parse().unwrap()));
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/", "x/8", "fd00::/129"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_say_which_part_is_wrong() {
        let hint = |text: &str| parse_socket(text).unwrap_err().hint.unwrap();
        assert!(hint("10.0.0.1").contains("\"10.0.0.1:80\""));
        assert!(hint("fd00::1").contains("\"[fd00::1]:80\""));
        assert!(hint("10.0.0.1:70000").contains("port \"70000\""));
        assert!(hint("web.example:80").contains("names are not resolved"));
        assert!(hint("10.0.0.256:80").contains("0 to 255"));
        assert!(hint("nothing").contains("address:port"));
    }

    #[test]
    fn ranges_go_up() {
        assert_eq!("1024-65535".parse::<PortRange>().unwrap().count(), 64_512);
        for text in ["5-4", "0-5", "1", "1-70000", "a-b"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
