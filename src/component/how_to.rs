#![doc = include_str!("how_to.md")]
