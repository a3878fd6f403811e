//! The director's control plane: daemon, REST API, the kernel beside us, and the command line.
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod codes;
pub mod config;
pub mod director;
pub mod events;
pub mod health;
pub mod import;
pub mod kernel;
pub mod model;
pub mod run;
