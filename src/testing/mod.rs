#![cfg_attr(feature = "testing", doc = include_str!("guide.md"))]

#[cfg(feature = "testing")]
mod kernel;
#[cfg(feature = "testing")]
mod peer;
#[cfg(feature = "testing")]
mod process;
#[cfg(feature = "testing")]
mod sequence;
#[cfg(feature = "testing")]
mod supervisor;
#[cfg(test)]
mod unit;

#[cfg(feature = "testing")]
pub use kernel::TestKernel;
#[cfg(feature = "testing")]
pub use peer::{Peer, pair};
#[cfg(feature = "testing")]
pub use process::{in_process, in_process_within};
#[cfg(feature = "testing")]
pub use sequence::Sequence;

#[cfg(test)]
pub(crate) use unit::{Dice, TempDir, check};
