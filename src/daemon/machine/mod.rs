//! How many children to fork and to retire: pure functions of counts and limits.
//!
//! Nothing here reads a clock, a scoreboard or a setting, and what remembers anything is told the time.
//! The Daemon counts, asks, and carries out what it can; asking again right after gives nothing more to do.

mod bucket;
mod budget;
mod crash_loop;
mod demand;
mod growth;
mod intake;
mod rogue;
mod run_time;
mod spares;
mod status;
mod waiting;

pub use bucket::TokenBucket;
pub use budget::Budget;
pub use crash_loop::{CrashLoop, STAYED_UP};
pub use demand::{Held, Hold, Reckoning, ServiceTime, StartTime, default_hold, may_retire};
pub use growth::Growth;
pub use intake::{Demand, Intake, Notice, postfork};
pub use rogue::{Escalation, Meter, Rogue, Rules, Sight, Step, judge};
pub use run_time::{Grace, RunClock, Stint};
pub use spares::{Counts, Limits, Phase, Thresholds, prefork, share};
pub use status::{Report, Status, UnknownStatus};
pub use waiting::{Hearing, Overload, OverloadNews, Unheard};

#[cfg(test)]
mod tests;
