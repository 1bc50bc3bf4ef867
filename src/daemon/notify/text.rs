//! The line that `systemctl status` shows.

use std::error::Error;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

/// What the line tells.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::daemon) struct Sketch {
    /// The children, if the Daemon has any.
    pub(in crate::daemon) pool: Option<PoolSketch>,
    /// Which edition of the configuration is in force.
    pub(in crate::daemon) generation: u32,
}

/// What the line tells of the children.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::daemon) struct PoolSketch {
    pub(in crate::daemon) counts: Counts,
    /// Clients that wait, if the system tells.
    pub(in crate::daemon) queue: Option<usize>,
    /// The scoreboard, a letter for each slot.
    pub(in crate::daemon) board: String,
}

/// How many children do what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::daemon) struct Counts {
    pub(in crate::daemon) children: usize,
    pub(in crate::daemon) busy: usize,
    pub(in crate::daemon) idle: usize,
}

/// Returns a status: what the Daemon does, with its children.
pub(in crate::daemon) fn status(phase: &str, sketch: &Sketch) -> String {
    let Sketch { pool, generation } = sketch;
    let Some(PoolSketch { counts, queue, board }) = pool else { return format!("{phase}: gen {generation}") };
    let Counts { children, busy, idle } = counts;
    let noun = if *children == 1 { "child" } else { "children" };
    let queue = queue.map(|queue| format!(", queue {queue}")).unwrap_or_default();
    let board = cut(board);
    format!("{phase}: {children} {noun} ({busy} busy, {idle} idle){queue}, gen {generation}, board [{board}]")
}

/// Returns the scoreboard, or its first slots and dots for the others.
fn cut(board: &str) -> String {
    match board.char_indices().nth(LONGEST_BOARD) {
        Some((end, _)) => format!("{}...", &board[..end]),
        None => board.to_owned(),
    }
}

/// Returns a status with what became of the last change behind it; `verdict` is empty if there was none.
pub(in crate::daemon) fn with_verdict(status: String, verdict: &str) -> String {
    if verdict.is_empty() { status } else { format!("{status}; {verdict}") }
}

/// Returns hour and minute of a time, in UTC.
pub(in crate::daemon) fn minute_of_day(time: SystemTime) -> String {
    let minute = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
    format!("{:02}:{:02} UTC", minute / 60 % 24, minute % 60)
}

/// Returns the errno of an error, or of what lies beneath it.
pub(in crate::daemon) fn errno_of(error: &(dyn Error + 'static)) -> Option<i32> {
    let of_io = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    let of_nix = || error.downcast_ref::<Errno>().map(|errno| *errno as i32);
    of_io.or_else(of_nix).or_else(|| errno_of(error.source()?))
}

/// Makes one line of a text, as the protocol has one value a line.
pub(super) fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// How many slots the line shows. A terminal is seldom wider than two such lines.
const LONGEST_BOARD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error as LenoreError, Exception};

    fn sketch(counts: Counts, queue: Option<usize>, board: &str) -> Sketch {
        Sketch { pool: Some(PoolSketch { counts, queue, board: board.to_owned() }), generation: 7 }
    }

    #[test] // O-SD-11
    fn status_counts_children() {
        let counts = Counts { children: 12, busy: 9, idle: 3 };
        assert_eq!(
            status("ready", &sketch(counts, Some(0), "rrrrrrrrlwww  ")),
            "ready: 12 children (9 busy, 3 idle), queue 0, gen 7, board [rrrrrrrrlwww  ]"
        );
        let counts = Counts { children: 1, busy: 0, idle: 1 };
        assert_eq!(
            status("draining", &sketch(counts, None, "w")),
            "draining: 1 child (0 busy, 1 idle), gen 7, board [w]"
        );
        assert_eq!(status("ready", &Sketch { pool: None, generation: 1 }), "ready: gen 1");
    }

    #[test] // O-ST-17: a datagram has its limits
    fn board_of_a_large_pool_is_cut() {
        let shown = |slots| {
            let line = status("ready", &sketch(Counts::default(), None, &"w".repeat(slots)));
            line.split_once('[').map(|(_, board)| board.to_owned())
        };
        assert_eq!(shown(64), Some("w".repeat(64) + "]"));
        assert_eq!(shown(65), Some("w".repeat(64) + "...]"));
        assert_eq!(shown(4000), shown(65));
    }

    #[test] // O-SD-06
    fn verdict_comes_behind_the_status() {
        assert_eq!(with_verdict("ready".to_owned(), ""), "ready");
        assert_eq!(with_verdict("ready".to_owned(), "reload superseded"), "ready; reload superseded");
    }

    #[test] // O-SD-01
    fn errno_is_that_of_the_cause() {
        let refused = LenoreError::os("open", "/x", Errno::EACCES);
        assert_eq!(errno_of(&refused), Some(Errno::EACCES as i32));
        let state_failed = LenoreError::Exception(Exception::from(refused));
        assert_eq!(errno_of(&state_failed), Some(Errno::EACCES as i32));
        assert_eq!(errno_of(&Errno::EAGAIN), Some(Errno::EAGAIN as i32));
        assert_eq!(errno_of(&io::Error::other("no errno")), None);
        assert_eq!(errno_of(&LenoreError::NoStartState), None);
    }

    #[test]
    fn text_becomes_one_line() {
        assert_eq!(one_line("a\nb\r\n\0c"), "a b c");
    }
}
