//! Decisions that nobody knows before, and that can be taken again.

use std::time::SystemTime;

/// Random enough for the weather, and the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    /// With the seed in the environment variable `name`, or with another one each time.
    pub fn from_env(name: &str) -> Dice {
        let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64);
        Dice(std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or_else(now))
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
