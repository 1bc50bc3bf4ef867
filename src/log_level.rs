//! The level of all targets, set at run time from outside.

use std::sync::OnceLock;

use log::LevelFilter;

/// Sets one level for all targets in this process, or goes back to what the program has set.
///
/// A [`Logger`](crate::logging::Logger) of this crate can be made to log more or less. Any other logger can only be
/// made to log less, by the `log` crate: it gets no records above the level, and its own filter still holds.
pub(crate) fn set(level: Option<LevelFilter>) {
    #[cfg(feature = "logging")]
    if crate::logging::set_override(level) {
        return;
    }
    let own = *BEFORE.get_or_init(log::max_level);
    log::set_max_level(level.unwrap_or(own));
}

/// What the program had set before the level was first set here.
static BEFORE: OnceLock<LevelFilter> = OnceLock::new();
