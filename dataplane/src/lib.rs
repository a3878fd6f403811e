//! What happens to a packet: workers, connection tables, schedulers and the commands that change them.
//!
//! [`worker`] reads top to bottom as the product. Everything here is synchronous, takes time as an argument
//! and never touches a file, a lock or the allocator on the packet path.
#![forbid(unsafe_code)]

pub mod address;
pub mod affinity;
pub mod answer;
pub mod classify;
pub mod command;
mod complaints;
pub mod connection;
pub mod cut;
pub mod defence;
pub mod established;
pub mod exits;
pub mod forward;
pub mod fragment;
pub mod glance;
pub mod handover;
pub mod icmp_error;
pub mod icmp_related;
pub mod lanes;
pub mod limiter;
pub mod link;
pub mod marks;
pub mod masquerade;
pub mod masqueraders;
pub mod orders;
pub mod owners;
pub mod parse;
pub mod passing;
pub mod persist;
pub mod plain;
pub mod recycle;
pub mod reset;
pub mod rewritten;
pub mod routes;
pub mod rules;
pub mod schedule;
pub mod sctp;
pub mod service;
pub mod settings;
mod shortcut;
pub mod sizes;
pub mod stats;
pub mod tally;
pub mod tcp;
pub mod tick;
pub mod track;
pub mod translate;
pub mod tunnel;
pub mod verdict;
pub mod vlan;
pub mod ways;
pub mod worker;
