//! What has happened, as one number, and as text if somebody wants to read it.

use std::fmt::{self, Write};

use crate::daemon::machine::{Effect, Input};

/// Every step, hashed (FNV-1a), or written down.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    kind: Kind,
}

#[derive(Clone, Debug, Default)]
enum Kind {
    /// Nothing: fast.
    #[default]
    Off,
    /// All that is told and wanted.
    Hashed,
    Written(String),
}

impl Default for Trace {
    fn default() -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, kind: Kind::Off }
    }
}

impl Trace {
    /// Makes one that hashes everything.
    pub fn hashed() -> Trace {
        Trace { kind: Kind::Hashed, ..Trace::default() }
    }

    /// Makes one that writes everything down.
    pub fn written() -> Trace {
        Trace { kind: Kind::Written(String::new()), ..Trace::default() }
    }

    pub fn step(&mut self, now: u64, input: &Input, effects: &[Effect]) {
        match &mut self.kind {
            Kind::Off => {}
            Kind::Hashed => {
                let _ = write!(self, "{now}{input:?}{effects:?}");
            }
            Kind::Written(text) => {
                let _ = writeln!(text, "{:>12.6}  {input:?}", now as f64 / 1e6);
                for effect in effects {
                    let _ = writeln!(text, "                  {effect:?}");
                }
            }
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn text(&self) -> &str {
        match &self.kind {
            Kind::Written(text) => text,
            _ => "",
        }
    }
}

impl Write for Trace {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}
