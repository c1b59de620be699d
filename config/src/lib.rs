//! The configuration: TOML with places → validated values → model, with everything wrong listed at once.
//!
//! Shared by `lb-primary`, `lb-worker`, `lb-healthcheck` and `lbctl`, so that `config check` and the daemons run the
//! same code. Keys and meaning: INTERFACE §4.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod check;
pub mod codes;
mod derived;
mod diag;
mod diff;
mod edit;
mod export;
mod facts;
mod keys;
pub mod limits;
mod load;
mod model;
mod parse;
mod parse_service;
mod release;
mod text;
mod values;
mod walk;

pub use check::validate;
pub use derived::{HUGE_PAGE, HugepagesNeeded, SlotHome, TableSizes, fnv128, hugepages_needed};
pub use diag::{Diagnostic, Level, Related, Report};
pub use diff::{Change, diff};
pub use edit::{Edit, Services, Shares, Touched, Words};
pub use export::export;
pub use facts::{AllFacts, Facts, SystemFacts};
pub use load::{Loaded, digest, load, load_node, load_text};
pub use model::{Config, Health, Healthcheck, Laddr, Limits, Node, Port, Primary, RealServer, Service, Timeouts, Zone};
pub use text::{ValueError, nearest};
pub use values::{
    Admin, Cidr, ClientAddress, Device, HealthKind, IfName, Mac, Millis, Mode, Name, OnPrimaryDeath, Panic, PciAddress,
    Poll, PortRange, Protocol, Scheduler, Tunnel, VdevString,
};
