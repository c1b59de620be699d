//! Validated values: each can only be made from text that says it right, so whoever holds one need not check again.

mod address;
mod device;
mod names;
mod time;
mod words;

pub use address::{Cidr, PortRange};
pub(crate) use address::{parse_ip, parse_socket};
pub use device::{Device, PciAddress, VdevString};
pub use names::{IfName, Mac, Name};
pub use time::Millis;
pub use words::{Admin, ClientAddress, HealthKind, Mode, OnPrimaryDeath, Panic, Poll, Protocol, Scheduler, Tunnel};
