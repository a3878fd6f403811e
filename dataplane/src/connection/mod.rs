//! What a worker remembers of each connection: entries of half a cache line, an index that never grows and a timer wheel.
//!
//! ```text
//! key --hash--> bucket (one line: tags and ids) --id--> entry (half a line), and beside it, each in a table of its own:
//!     its IPv6 addresses; its links in the wheel; its template; its links to other tentative ones
//! ```
//! Everything is allocated at the start and belongs to one worker. Entries and IPv6 addresses say all there is to know about
//! connections, so index, wheel and free list can be rebuilt from them.

pub mod entry;
pub mod index;
pub mod key;
pub mod reply;
pub mod table;
pub mod template;
mod tentative;
mod wheel;

pub use entry::{Entry, EntryId};
pub use key::{Addresses, Hasher, Key};
pub use reply::{Replies, Way, WayWord, reply_key};
pub use table::{ConnectionTable, InsertError, NewEntry, TableError};
pub use tentative::Tentative;
