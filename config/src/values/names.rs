//! Names: of what is configured, of interfaces, of stations.

use std::fmt;
use std::str::FromStr;

use crate::text::{ValueError, serde_as_text};

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
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(wrong)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_paths() {
        for text in ["lb1", "0", "a.b_c-d", &"x".repeat(32)] {
            assert!(text.parse::<Name>().is_ok(), "{text}");
        }
        for text in ["", "..", "-a", "a/b", "A", "a b", "é", &"x".repeat(33)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert!("Web 1".parse::<Name>().unwrap_err().hint.unwrap().contains("\"web-1\""));
        assert!("sixteen-bytes-xx".parse::<IfName>().is_err() && "eth0".parse::<IfName>().is_ok());
    }

    #[test]
    fn macs_are_of_one_station() {
        assert_eq!("02:00:00:00:0A:ff".parse::<Mac>().unwrap().to_string(), "02:00:00:00:0a:ff");
        for text in
            ["01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:01:02", "+2:00:00:00:00:01"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
