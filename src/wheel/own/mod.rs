#![doc = include_str!("how_to.md")]
//!
//! # The wheel of the example
//!
//! `examples/own_wheel/datagrams.rs`, whole:
//!
#![doc = concat!("```\n", include_str!("../../../examples/own_wheel/datagrams.rs"), "```")]
//!
//! `examples/own_wheel.rs` is a server that uses it.

mod handle;
mod shared;
mod source;

pub use crate::kernel::{AfterFork, Delivery, Wanted};
pub use handle::Wheel;
pub use source::{Next, Source, Turn};
