//! What the benchmarks over DPDK ports share. Each is a program of its own, run by `cargo xtask bench NAME`;
//! docs/performance.md says what their figures mean.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "benchmarks: they may fail where they stand")]

pub mod appliance;
pub mod capture;
pub mod clock;
pub mod frames;
pub mod loopback;
pub mod options;
pub mod sandbox;
#[path = "../../datapath/examples/packet/spread.rs"]
pub mod spread;
pub mod testpmd;
pub mod wire;
pub mod world;
