//! What may start the program again after it has ended.

use std::path::Path;

use crate::environment;

/// Returns what looks after this process, as far as can be told; `None` if nothing is known to.
///
/// systemd sets the variables. In a container it is whatever runs the container that may start it again.
pub(in crate::daemon) fn supervisor() -> Option<String> {
    let is_run_by_systemd = std::env::var_os("INVOCATION_ID").is_some_and(|value| !value.is_empty());
    // Taken out of the environment.
    let is_managed = environment::taken().get("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty());
    if is_run_by_systemd || is_managed {
        return Some("systemd".to_owned());
    }
    let is_in_container = std::process::id() == 1 || Path::new("/.dockerenv").exists();
    is_in_container.then(|| "container".to_owned())
}
