//! The C ABI that `hanmo_bridge.h` documents. Every entry point runs inside [`guard`], so a panic in
//! any crate below ends as an error string and never unwinds into C++.

mod boundary;
mod checkpoint;
