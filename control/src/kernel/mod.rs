//! The kernel beside us.
