//! Wheels of the program's own: a type that implements [`Source`], and the [`Wheel`] that the program keeps.

mod handle;
mod shared;
mod source;

pub use crate::kernel::{AfterFork, Delivery, Wanted};
pub use handle::Wheel;
pub use source::{Next, Source, Turn};
