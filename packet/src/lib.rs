//! Packet headers: bytes ⇄ meaning, checksums, options.
//!
//! All fields are big-endian on the wire; here addresses, ports and numbers are plain integers (`u32::from_be_bytes`), so
//! 10.0.0.1 is `0x0a00_0001`. Offsets are bytes from the start of the Ethernet frame unless said otherwise. Nothing
//! allocates, nothing panics on any input, nothing reads past the slice it is given.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arp;
pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod icmp64;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod nat64;
pub mod nd;
pub mod parse;
pub mod plain;
pub mod quote;
pub mod quote6;
pub mod rewrite;
pub mod rewrite6;
pub mod tcp;
pub mod tcp_options;
pub mod tunnel;
pub mod udp;
mod wire;

pub use ethernet::Mac;
pub use ipv6::Ip6;
pub use parse::{ParseError, Parsed, V4, V6, classify};
pub use rewrite::{Rewrite, rewrite_v4};
pub use rewrite6::rewrite_v6;
