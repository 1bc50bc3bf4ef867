//! What tests use.

mod unit;

pub(crate) use unit::{Dice, TempDir, check};
