//! What unit tests use in place of crates: every example compiles what the root package depends on for its tests.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use std::{env, fs, process, thread};

/// Draws 256 cases and hands each to `property`, which panics if it does not hold.
///
/// A failure names the seed of its case. With this seed in `LENORE_SEED` a run begins with the same case.
pub fn check(mut property: impl FnMut(&mut Dice)) {
    let given = env::var("LENORE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64));
    for seed in (0..256).map(|case| first.wrapping_add(case)) {
        let _seed = NamedOnPanic(seed);
        property(&mut Dice(seed));
    }
}

struct NamedOnPanic(u64);

impl Drop for NamedOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to see this case again: LENORE_SEED={}", self.0);
        }
    }
}

/// Draws the same for the same seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A number in `range`, which is not empty.
    pub fn number(&mut self, range: Range<u32>) -> u32 {
        let span = u64::from(range.end - range.start);
        range.start + u32::try_from(self.below(span)).expect("less than the span of the range")
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// What `draw` gives, or nothing: one is as likely as the other.
    pub fn maybe<T>(&mut self, draw: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| draw(self))
    }

    /// Up to `longest` of what `draw` gives; short lists are more likely, as what fails with one is easier to read.
    pub fn list<T>(&mut self, longest: u64, mut draw: impl FnMut(&mut Dice) -> T) -> Vec<T> {
        let limit = self.below(longest) + 1;
        (0..=self.below(limit)).map(|_| draw(self)).collect()
    }
}

/// A new directory, which is removed with all that is in it.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes the directory.
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lenore-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again() {
        let draw = |seed| Dice(seed).list(50, |dice| (dice.number(3..9), dice.maybe(|dice| dice.pick(&["a", "b"]))));
        assert_eq!(draw(7), draw(7));
        assert!((0..50).any(|seed| draw(seed) != draw(7)));
        check(|dice| {
            let list = dice.list(5, |dice| dice.number(3..9));
            assert!((1..=5).contains(&list.len()) && list.iter().all(|number| (3..9).contains(number)));
        });
    }

    #[test]
    fn a_directory_is_removed_with_what_is_in_it() {
        let dir = TempDir::new();
        let path = dir.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        drop(dir);
        assert!(!path.exists());
    }
}
