//! The daemon: what `baton run` does, from the configuration to the last line of the log.

pub mod cpus;
mod error;
mod locks;
mod logging;
mod pci;
mod plan;
mod preflight;

pub use error::StartError;
