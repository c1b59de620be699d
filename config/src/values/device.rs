//! What a port is made of: DPDK devices.

use std::fmt;
use std::str::FromStr;

use crate::text::{ValueError, serde_as_text};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_vdevs_or_pci() {
        let tap: Device = "net_tap0,iface=lb1net0".parse().unwrap();
        assert_eq!((tap.driver(), tap.name(), tap.is_pci()), (Some("net_tap"), "net_tap0", false));
        let Device::Vdev(vdev) = &tap else { panic!("a vdev") };
        assert_eq!((vdev.argument("iface"), vdev.argument("if")), (Some("lb1net0"), None));
        let pci: Device = "03:00.0".parse().unwrap();
        assert_eq!((pci.to_string().as_str(), pci.is_pci()), ("0000:03:00.0", true));
        for text in ["net_tap", "net_tap0,", "net_tap0 x", "eth0", "0000:03:00.8", "000g:03:00.0", ""] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
        assert!("net_tap,iface=x".parse::<Device>().unwrap_err().hint.unwrap().contains("net_tap0,iface=x"));
    }
}
