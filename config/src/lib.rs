//! The configuration: TOML with places → validated values → model, with everything wrong listed at once.
//!
//! Shared by `lb-primary`, `lb-worker`, `lb-healthcheck` and `lbctl`, so that `config check` and the daemons run the
//! same code. Keys and meaning: INTERFACE §4.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod derived;
mod model;
mod text;
mod values;

pub use derived::{HUGE_PAGE, HugepagesNeeded, SlotHome, TableSizes, fnv128, hugepages_needed};
pub use model::{Config, Health, Healthcheck, Laddr, Limits, Node, Port, Primary, RealServer, Service, Timeouts, Zone};
pub use text::{ValueError, nearest};
pub use values::{
    Admin, Cidr, ClientAddress, Device, HealthKind, IfName, Mac, Millis, Mode, Name, OnPrimaryDeath, Panic, PciAddress,
    Poll, PortRange, Protocol, Scheduler, Tunnel, VdevString,
};
