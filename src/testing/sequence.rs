//! What happens in a program, in the order in which it happens.

use std::cell::RefCell;
use std::fmt::{self, Display, Write};
use std::panic::Location;
use std::rc::Rc;

/// Notes what happens in a program, so that a test can compare it with what it expects. Clones share their notes.
///
/// States and closures hold a clone and [`note`](Sequence::note) what they do. The test holds another, and says after each step what
/// should have been noted, in order.
///
/// ```
/// use lenore::{AsKernel, Session};
/// use lenore::testing::{Sequence, TestKernel};
///
/// let log = Sequence::new();
/// let mut kernel = TestKernel::new();
/// let session = Session::new(log.clone())
///     .state("_start", |cx| cx.heap().note("started"))
///     .state("greet", |cx| {
///         let name: &str = cx.take(0)?;
///         cx.heap().note(format_args!("hello, {name}"));
///         Ok(())
///     })
///     .spawn(&mut kernel)
///     .unwrap();
/// log.expect(["started"]);
///
/// kernel.post(session, "greet", ("Lenore",)).unwrap();
/// kernel.settle();
/// log.expect(["hello, Lenore"]);
/// ```
///
/// POE: nothing like it.
#[derive(Clone, Default)]
pub struct Sequence(Rc<RefCell<Vec<Note>>>);

struct Note {
    text: String,
    /// The statement that has noted it.
    place: &'static Location<'static>,
}

impl Sequence {
    /// Makes an empty sequence.
    pub fn new() -> Sequence {
        Sequence::default()
    }

    /// Notes that something happens: `what` is any text, such as `format_args!("try {number}")`.
    #[track_caller]
    pub fn note(&self, what: impl Display) {
        self.0.borrow_mut().push(Note { text: what.to_string(), place: Location::caller() });
    }

    /// Compares what was noted since the last call with what the test expects, and forgets it.
    ///
    /// # Panics
    ///
    /// When anything is missing, is too much, or is in another order. The text shows both sequences side by side, and
    /// the statement that made the first note that differs.
    #[track_caller]
    pub fn expect<T: AsRef<str>>(&self, expected: impl IntoIterator<Item = T>) {
        let expected: Vec<T> = expected.into_iter().collect();
        let noted = self.0.take();
        let is_same = |place: usize| match (expected.get(place), noted.get(place)) {
            (Some(expected), Some(note)) => expected.as_ref() == note.text,
            _ => false,
        };
        let rows = expected.len().max(noted.len());
        if let Some(first) = (0..rows).find(|row| !is_same(*row)) {
            panic!("{}", difference(&expected, &noted, first));
        }
    }

    /// Does what [`expect`](Sequence::expect) does when nothing should have been noted.
    ///
    /// # Panics
    ///
    /// When anything was noted.
    #[track_caller]
    pub fn expect_nothing(&self) {
        self.expect([""; 0]);
    }

    /// Returns what was noted since the last call, in order, and forgets it.
    pub fn take(&self) -> Vec<String> {
        self.0.take().into_iter().map(|note| note.text).collect()
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.borrow().iter().map(|note| &note.text)).finish()
    }
}

/// Shows both sequences side by side. They differ at `first`.
fn difference<T: AsRef<str>>(expected: &[T], noted: &[Note], first: usize) -> String {
    let mut text = match noted.get(first) {
        Some(note) => format!("note {} is not the expected one ({})", first + 1, note.place),
        None => format!("note {} is missing", first + 1),
    };
    let wanted = |row: usize| expected.get(row).map_or("-".into(), |what| format!("{:?}", what.as_ref()));
    let got = |row: usize| noted.get(row).map_or("-".into(), |note| format!("{:?}", note.text));
    let rows = 0..expected.len().max(noted.len());
    let width = rows.clone().map(|row| wanted(row).chars().count()).max().unwrap_or_default().max("expected".len());
    // Writing to a string can't fail.
    let _ = write!(text, "\n    {:width$}  got", "expected");
    for row in rows {
        let mark = if row == first { "--> " } else { "    " };
        let _ = write!(text, "\n{mark}{:width$}  {}", wanted(row), got(row));
    }
    text
}
