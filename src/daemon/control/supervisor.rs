//! What may start the program again after it has ended.

use std::path::Path;

use nix::unistd::getppid;

use crate::environment;

/// What is known of how this process was started.
#[derive(Clone, Copy, Debug, Default)]
struct Start<'a> {
    pid: u32,
    parent: i32,
    /// The parent of the process that was started: another one than `parent` if this process has detached, or was started by an upgrade.
    launcher: i32,
    /// systemd's name for this start of a service. What a service starts inherits it, a shell with what is started there too.
    invocation: Option<&'a str>,
    /// The process that systemd has started, by itself.
    exec_pid: Option<&'a str>,
    /// There is a socket of a service manager.
    is_managed: bool,
    /// There is a sign of a container.
    is_in_container: bool,
}

impl Start<'_> {
    /// Returns what looks after the process; `None` if nothing is known to.
    fn supervisor(self) -> Option<&'static str> {
        let is_started = self.exec_pid.is_some_and(|started| started == self.pid.to_string());
        // An old one does not say whom it has started, and what has detached is another process.
        let is_of_systemd = is_started || self.invocation.is_some() && self.parent == 1;
        if self.is_managed || is_of_systemd {
            return Some("systemd");
        }
        // Whatever runs the container does, if the container ends with this process.
        let ends_container = self.pid == 1 || self.is_in_container && self.parent == 1 && self.launcher == 1;
        ends_container.then_some("container")
    }
}

/// Returns what looks after this process, as far as can be told; `None` if nothing is known to.
pub(in crate::daemon) fn supervisor() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (invocation, exec_pid) = (variable("INVOCATION_ID"), variable("SYSTEMD_EXEC_PID"));
    let start = Start {
        pid: std::process::id(),
        parent: getppid().as_raw(),
        launcher: environment::launcher(),
        invocation: invocation.as_deref(),
        exec_pid: exec_pid.as_deref(),
        // Taken out of the environment.
        is_managed: environment::taken().get("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty()),
        is_in_container: Path::new("/.dockerenv").exists(),
    };
    start.supervisor().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_of_systemd_is_told_from_what_is_started_by_hand_inside_one() {
        let by_hand = Start { pid: 70, parent: 60, invocation: Some("x"), ..Start::default() };
        assert_eq!(by_hand.supervisor(), None);
        assert_eq!(Start { exec_pid: Some("50"), ..by_hand }.supervisor(), None);
        assert_eq!(Start { exec_pid: Some("70"), ..by_hand }.supervisor(), Some("systemd"));
        assert_eq!(Start { is_managed: true, ..by_hand }.supervisor(), Some("systemd"));
        assert_eq!(Start { parent: 1, ..by_hand }.supervisor(), Some("systemd"));
        assert_eq!(
            Start { parent: 1, exec_pid: Some("50"), ..by_hand }.supervisor(),
            Some("systemd"),
            "it has detached"
        );
    }

    #[test]
    fn container_starts_again_what_it_ends_with() {
        let inside = Start { pid: 70, parent: 60, is_in_container: true, ..Start::default() };
        assert_eq!(inside.supervisor(), None);
        assert_eq!(Start { parent: 1, launcher: 1, ..inside }.supervisor(), Some("container"));
        assert_eq!(Start { parent: 1, launcher: 60, ..inside }.supervisor(), None, "process 1 has only got it");
        assert_eq!(Start { pid: 1, parent: 0, is_in_container: false, ..inside }.supervisor(), Some("container"));
    }
}
