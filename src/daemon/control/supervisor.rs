//! What may start the program again after it has ended.

use std::path::Path;

/// Returns what looks after this process, as far as can be told; `None` if nothing is known to.
///
/// systemd sets the variables. In a container it is whatever runs the container that may start it again.
pub(in crate::daemon) fn supervisor() -> Option<String> {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("INVOCATION_ID") || is_set("NOTIFY_SOCKET") {
        return Some("systemd".to_owned());
    }
    let is_in_container = std::process::id() == 1 || Path::new("/.dockerenv").exists();
    is_in_container.then(|| "container".to_owned())
}
