//! Where everything that is left to chance comes from.

/// Draws numbers: the same for the same seed, or each possible row of them in turn.
#[derive(Clone, Debug)]
pub struct Dice(Source);

#[derive(Clone, Debug)]
enum Source {
    /// SplitMix64.
    Seed(u64),
    /// What to draw, and how many values each had to choose from.
    Row { drawn: Vec<(u32, u32)>, place: usize },
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Source::Seed(seed))
    }

    /// Makes dice that begin with the first of all rows, see [`next_row`](Dice::next_row).
    pub fn of_all_rows() -> Dice {
        Dice(Source::Row { drawn: Vec::new(), place: 0 })
    }

    /// Goes on to the next row of numbers. Returns false after the last one. What is drawn must depend on nothing but what was
    /// drawn before.
    pub fn next_row(&mut self) -> bool {
        let Source::Row { drawn, place } = &mut self.0 else { return false };
        drawn.truncate(*place);
        *place = 0;
        while let Some((value, limit)) = drawn.pop() {
            if value + 1 < limit {
                drawn.push((value + 1, limit));
                return true;
            }
        }
        false
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u32) -> u32 {
        match &mut self.0 {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((mixed ^ (mixed >> 31)) % u64::from(limit)) as u32
            }
            Source::Row { drawn, place } => {
                if *place == drawn.len() {
                    drawn.push((0, limit));
                }
                *place += 1;
                drawn[*place - 1].0
            }
        }
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high - low + 1)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    /// Puts them in any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for place in (1..list.len()).rev() {
            list.swap(place, self.below(place as u32 + 1) as usize);
        }
    }
}
