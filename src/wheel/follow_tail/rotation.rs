//! Rotation: the files that have got the name while the wheel still reads an older one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::Metadata;
use std::time::Duration;

use super::file::{Followed, Regular, identity};
use crate::kernel::{Due, nanos};

/// The files that are read next, oldest first.
#[derive(Default)]
pub(super) struct Successors {
    files: RefCell<VecDeque<Followed>>,
    /// When the wheel leaves the current file for the first of them. `None` while there are none.
    due: Cell<Option<Due>>,
}

/// Whether the wheel leaves the current file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The wheel stays. No other file has the name, or the next one is empty.
    Stay,
    /// The wheel stays until this time, and then reads the file once more.
    Linger(Due),
    Leave,
}

impl Successors {
    /// Tells whether the newest of them is the file that `about` describes.
    pub(super) fn end_with(&self, about: &Metadata) -> bool {
        match self.files.borrow().back() {
            Some(Followed::Regular(file)) => file.identity() == identity(about),
            Some(Followed::Stream { .. }) | None => false,
        }
    }

    pub(super) fn push(&self, file: Followed) {
        self.files.borrow_mut().push_back(file);
    }

    /// Takes the file that is read next.
    pub(super) fn pop(&self) -> Option<Followed> {
        self.due.set(None);
        self.files.borrow_mut().pop_front()
    }

    /// Forgets them, because the name leads to the current file.
    pub(super) fn clear(&self) {
        self.due.set(None);
        self.files.take();
    }

    /// Decides whether the wheel leaves the current file, in which nothing is left to read.
    pub(super) fn turn(&self, now: Due, wait: Duration) -> Decision {
        let files = self.files.borrow();
        let Some(next) = files.front() else { return Decision::Stay };
        match self.due.get() {
            // After a second rotation the wheel no longer waits for writers of the current file.
            Some(due) if now >= due || files.len() > 1 => Decision::Leave,
            Some(due) => Decision::Linger(due),
            // As far as the wheel can see, no program has opened the new file to write to it.
            None if wait > Duration::ZERO && files.len() == 1 && is_empty(next) => Decision::Stay,
            None => {
                let due = now.saturating_add(nanos(wait));
                self.due.set(Some(due));
                Decision::Linger(due)
            }
        }
    }

    /// Returns when the wheel leaves the current file.
    pub(super) fn due(&self) -> Option<Due> {
        self.due.get()
    }

    /// Calls `look` with the file that is read next.
    pub(super) fn with_next<T>(&self, look: impl FnOnce(Option<&Regular>) -> T) -> T {
        match self.files.borrow().front() {
            Some(Followed::Regular(file)) => look(Some(file)),
            Some(Followed::Stream { .. }) | None => look(None),
        }
    }
}

fn is_empty(file: &Followed) -> bool {
    match file {
        Followed::Regular(file) => file.length().is_ok_and(|length| length == 0),
        Followed::Stream { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempDir;

    /// A file named `log` in a directory of its own.
    fn file(text: &str) -> (TempDir, Followed) {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        std::fs::write(&path, text).unwrap();
        (dir, Followed::open(&path).unwrap())
    }

    #[test] // K-FT-20
    fn a_successor_waits_for_content_and_time() {
        let wait = Duration::from_nanos(10);
        let next = Successors::default();
        assert_eq!(next.turn(0, wait), Decision::Stay);
        let (dir, empty) = file("");
        next.push(empty);
        assert_eq!(next.turn(100, wait), Decision::Stay);
        std::fs::write(dir.path().join("log"), "x").unwrap();
        assert_eq!(
            [200, 209, 210].map(|now| next.turn(now, wait)),
            [Decision::Linger(210), Decision::Linger(210), Decision::Leave]
        );
        assert!(next.pop().is_some() && next.due().is_none());
        assert_eq!(next.turn(300, wait), Decision::Stay);
    }

    #[test] // K-FT-20: at once, but after another look at the old file
    fn a_third_file_and_a_wait_of_zero_end_the_wait() {
        let next = Successors::default();
        next.push(file("").1);
        assert_eq!([5, 5].map(|now| next.turn(now, Duration::ZERO)), [Decision::Linger(5), Decision::Leave]);
        next.clear();
        next.push(file("").1);
        next.push(file("x").1);
        assert!(matches!(next.turn(5, Duration::MAX), Decision::Linger(_)));
        assert_eq!(next.turn(5, Duration::MAX), Decision::Leave);
    }
}
