//! What a worker remembers of each connection: entries of one cache line, an index that never grows and a timer wheel.
//!
//! ```text
//! key --hash--> bucket (one line: tags and ids) --id--> entry (one line) --next/prev--> others that end at about the same time
//! ```
//! Everything is allocated at the start and belongs to one worker. An entry says all there is to know about its connection, so
//! index, wheel and free list can be rebuilt from the entries alone.

pub mod entry;
pub mod index;
pub mod key;
pub mod reply;
pub mod table;
pub mod template;
mod tentative;
mod wheel;

pub use entry::{Entry, EntryId};
pub use key::{Hasher, Key};
pub use reply::{Replies, Way, reply_key};
pub use table::{ConnectionTable, InsertError, NewEntry, TableError};
pub use tentative::Tentative;
