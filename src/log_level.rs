//! The level of all targets, set at run time from outside.

use std::sync::OnceLock;

use log::LevelFilter;

/// Sets one level for all targets in this process, or goes back to what the program has set.
///
/// A [`Logger`](crate::logging::Logger) of this crate can be made to log more and to log less. For any other logger
/// only the maximum level of the `log` crate is set: the logger gets no records above that level, and its own filter
/// still holds for the others.
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
