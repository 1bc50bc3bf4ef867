//! The line that `systemctl status` shows.

/// What the line tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::daemon) struct Counts {
    pub(in crate::daemon) children: usize,
    pub(in crate::daemon) busy: usize,
    pub(in crate::daemon) idle: usize,
    /// Clients that wait, if the system tells.
    pub(in crate::daemon) queue: Option<u32>,
}

/// Returns a status: what the Daemon does, with its children.
pub(in crate::daemon) fn status(phase: &str, counts: Option<Counts>) -> String {
    let Some(Counts { children, busy, idle, queue }) = counts else { return phase.to_owned() };
    let noun = if children == 1 { "child" } else { "children" };
    let queue = queue.map(|queue| format!(", queue {queue}")).unwrap_or_default();
    format!("{phase}: {children} {noun} ({busy} busy, {idle} idle){queue}")
}

/// Returns a status with what became of the last change behind it; `verdict` is empty if there was none.
pub(in crate::daemon) fn with_verdict(status: String, verdict: &str) -> String {
    if verdict.is_empty() { status } else { format!("{status}; {verdict}") }
}

/// Makes one line of a text, as the protocol has one value a line.
pub(super) fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // O-SD-11
    fn status_counts_children() {
        let counts = Counts { children: 12, busy: 9, idle: 3, queue: Some(0) };
        assert_eq!(status("ready", Some(counts)), "ready: 12 children (9 busy, 3 idle), queue 0");
        let counts = Counts { children: 1, busy: 0, idle: 1, queue: None };
        assert_eq!(status("draining", Some(counts)), "draining: 1 child (0 busy, 1 idle)");
        assert_eq!(status("ready", None), "ready");
    }

    #[test] // O-SD-06
    fn verdict_comes_behind_the_status() {
        assert_eq!(with_verdict("ready".to_owned(), ""), "ready");
        assert_eq!(with_verdict("ready".to_owned(), "reload superseded"), "ready; reload superseded");
    }

    #[test]
    fn text_becomes_one_line() {
        assert_eq!(one_line("a\nb\r\n\0c"), "a b c");
    }
}
