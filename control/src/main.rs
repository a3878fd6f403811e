//! `baton`: the director.
fn main() {}
