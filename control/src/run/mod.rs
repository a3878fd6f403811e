//! The daemon.

pub mod cpus;
