//! The desired state and what the workers make of it.
