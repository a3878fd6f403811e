//! baton.toml.
