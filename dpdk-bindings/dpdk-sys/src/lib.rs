//! Raw bindings to the installed DPDK, private to the `dpdk` crate.
//!
//! Generated at build time from `csrc/wrapper.h`. Static inline functions of DPDK are reached through compiled wrappers
//! of the same name. Nothing here is safe, documented or stable; use `dpdk`.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    clippy::all,
    clippy::pedantic,
    clippy::cast_possible_truncation,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
