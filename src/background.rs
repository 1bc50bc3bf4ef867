#![doc = include_str!("background.md")]
