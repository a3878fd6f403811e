//! Safe layer over DPDK.
//!
//! One [`eal::Eal`] per process starts DPDK; from it come [`mempool::Mempool`]s of frames, [`port::Port`]s with their
//! queues, and worker threads. An [`mbuf::Mbuf`] is one frame, owned: it moves into a burst, a queue or a ring, and is
//! given back to its mempool when dropped. [`net`] gives typed views of the headers in place.
//!
//! This crate is the only place with `unsafe`. No raw pointer, `rte_` type or unsafe function is public. The rule that
//! makes this hold: whatever may reach memory of DPDK keeps the EAL alive by a counted reference, and a frame, which
//! cannot afford one, is counted by its mempool: the EAL is not cleaned up while a frame is out.
//!
//! Source: DPDK Programmer's Guide 22.11.

#![allow(clippy::inline_always, reason = "on the packet path, an accessor of one load must not become a call in another crate")]

pub mod burst;
pub mod clock;
pub mod eal;
mod error;
pub mod hugemem;
pub mod mbuf;
pub mod mempool;
pub mod net;
pub mod numa;
pub mod port;
pub mod prefetch;
pub mod ring;
#[doc(hidden)]
pub mod test_support;
pub mod words;

pub use error::{DpdkError, ErrorKind};
