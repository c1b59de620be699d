//! The test rig: an appliance of real processes between real kernels.
//!
//! ```text
//!   client ns            bridge ns                       appliance ns
//!   10.0.0.11 eth0 ───── cli ┐                       ┌── mgmt0 10.0.0.3 (probes)
//!   server ns            br0 ┼── mgmt ───────────────┘
//!   10.0.0.21… eth0 ──── s1… ┤
//!                        tap ┘  kernel end of net_tap0, moved here by [`Rig::plumb`]
//! ```
//!
//! One broadcast domain, one-armed, as in a rack: client, servers, VIP and local addresses are
//! on-link. Everything a rig makes (processes, namespaces, mounts, files, shared memory) is told
//! to a [`janitor`] process first, which removes it when the rig ends in whatever way: by `Drop`,
//! by a signal, by SIGKILL.
//!
//! This crate knows the programs only by `INTERFACE` (options, JSON, files): it links none of
//! their crates, so a change of meaning inside cannot change the test with it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod appliance;
pub mod bench;
pub mod claims;
pub mod clock;
pub mod conf;
pub mod cpu;
pub mod daemon;
pub mod dns;
pub mod drops;
pub mod error;
pub mod forgotten;
pub mod gaps;
pub mod heavy;
pub mod interrupt;
pub mod janitor;
pub mod lbctl;
pub mod load;
pub mod netns;
pub mod rig;
pub mod servers;
pub mod stream;
pub mod supervisor;
pub mod systemd;
pub mod talk;
pub mod v6;
pub mod views;
pub mod wait;

pub use error::{Error, Result};
pub use rig::{Rig, RigSpec};
