//! Raw bindings to the installed DPDK (22.11): what `build.rs` allowlists, and the shim. Nothing else.
//!
//! `rte_mbuf`, `rte_mempool` and `rte_ring` are opaque here; their fields are read through the `LB_…`
//! offsets, which the C compiler computes from the installed headers (`shim.h`). The safe face is the crate
//! `dpdk`; no other crate should depend on this one.
#![allow(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation,
    reason = "generated code"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
