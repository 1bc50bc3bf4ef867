//! The words and letters of the scoreboard.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// What a child is doing, as its slot on the scoreboard says.
///
/// POE: the letters of `POE::Component::Daemon`'s scoreboard. In POE `.` also marks a slot that was given back. Here such a slot is
/// empty. `k` is new.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Status {
    /// `' '`: the slot is free.
    #[default]
    Empty,
    /// `F`: the parent has taken the slot for a child that it is about to fork.
    Forking,
    /// `f`: the child is running and has taken over its slot.
    Forked,
    /// `.`: the child has got `daemon_child`, and has not reported [`Wait`](Report::Wait) yet. The child gets no requests.
    FirstWait,
    /// `w`: the child waits for a request. The only status that counts as idle.
    Wait,
    /// `r`: the child handles a request.
    Req,
    /// `l`: the child handles a request that it expects to take long.
    Long,
    /// `k`: the child keeps the connection of a client that has no request in hand. The child is not a spare, but it gives up the
    /// connection if another client waits.
    Keep,
    /// `e`: the child is ending.
    Exit,
}

impl Status {
    /// Every status, in the order in which a child goes through them.
    pub const ALL: [Status; 9] = [
        Status::Empty,
        Status::Forking,
        Status::Forked,
        Status::FirstWait,
        Status::Wait,
        Status::Req,
        Status::Long,
        Status::Keep,
        Status::Exit,
    ];

    /// Returns the letter of the status on the scoreboard.
    pub const fn letter(self) -> char {
        match self {
            Status::Empty => ' ',
            Status::Forking => 'F',
            Status::Forked => 'f',
            Status::FirstWait => '.',
            Status::Wait => 'w',
            Status::Req => 'r',
            Status::Long => 'l',
            Status::Keep => 'k',
            Status::Exit => 'e',
        }
    }

    /// Returns whether the child is still on its way to its first request: `F`, `f` or `.`.
    pub const fn is_starting(self) -> bool {
        matches!(self, Status::Forking | Status::Forked | Status::FirstWait)
    }

    /// Returns whether the child has a request in hand: `r` or `l`.
    pub const fn is_busy(self) -> bool {
        matches!(self, Status::Req | Status::Long)
    }

    /// Returns whether the child belongs to a client, with a request in hand or not: `r`, `l` or `k`.
    pub const fn is_taken(self) -> bool {
        matches!(self, Status::Req | Status::Long | Status::Keep)
    }

    /// Returns POE's word for the status. `F` and `f` differ in case only, as in POE.
    const fn word(self) -> &'static str {
        match self {
            Status::Empty => "empty",
            Status::Forking => "FORK",
            Status::Forked => "fork",
            Status::FirstWait => "first",
            Status::Wait => "wait",
            Status::Req => "req",
            Status::Long => "long",
            Status::Keep => "keep",
            Status::Exit => "exit",
        }
    }

    /// Returns the form kept in shared memory: 0 for empty, so that fresh memory is an empty board, else the letter.
    pub(in crate::daemon) const fn to_bits(self) -> u32 {
        match self {
            Status::Empty => 0,
            other => other.letter() as u32,
        }
    }

    /// Reads the form kept in shared memory; `None` for what no `to_bits` wrote, because that memory is not trusted.
    pub(in crate::daemon) fn from_bits(bits: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.to_bits() == bits)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_char(f, self.letter())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    /// Reads a letter or a word: `empty`, `FORK`, `fork`, `first`, `wait`, `req`, `long`, `keep` or `exit`.
    ///
    /// # Errors
    ///
    /// [`UnknownStatus`] for any other text. `done` is such a text: it is a [`Report`], and not a status.
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let mut letters = text.chars();
        let letter = letters.next().filter(|_| letters.next().is_none());
        Self::ALL
            .into_iter()
            .find(|status| letter == Some(status.letter()) || text == status.word())
            .ok_or_else(|| UnknownStatus { word: text.to_owned(), expected: "a letter of \" Ff.wrlke\" or its word" })
    }
}

impl TryFrom<&str> for Status {
    type Error = UnknownStatus;

    fn try_from(text: &str) -> Result<Self, UnknownStatus> {
        text.parse()
    }
}

/// What a program reports to the Daemon with [`Daemon::update_status`](crate::Daemon::update_status).
///
/// POE: the first argument of `update_status`. `keep` is new.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// A request has arrived.
    Req,
    /// A request has arrived that will take long, or the request in hand turns out to take long.
    Long,
    /// The request in hand is finished, and the connection stays open for the client's next request. The child stays with this client
    /// until another client waits for a child. Then the Daemon sends the signal `daemon_release`.
    Keep,
    /// The process is ready for a request.
    Wait,
    /// The request in hand is finished. The slot then says [`Status::Wait`].
    Done,
}

impl Report {
    /// Returns the status that the slot has after the report.
    pub const fn status(self) -> Status {
        match self {
            Report::Req => Status::Req,
            Report::Long => Status::Long,
            Report::Keep => Status::Keep,
            Report::Wait | Report::Done => Status::Wait,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Report::Req => "req",
            Report::Long => "long",
            Report::Keep => "keep",
            Report::Wait => "wait",
            Report::Done => "done",
        })
    }
}

impl FromStr for Report {
    type Err = UnknownStatus;

    /// Reads `req`, `long`, `keep`, `wait` or `done`. As in POE, letters are not accepted.
    ///
    /// # Errors
    ///
    /// [`UnknownStatus`] for any other text.
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        match text {
            "req" => Ok(Report::Req),
            "long" => Ok(Report::Long),
            "keep" => Ok(Report::Keep),
            "wait" => Ok(Report::Wait),
            "done" => Ok(Report::Done),
            _ => Err(UnknownStatus { word: text.to_owned(), expected: "req, long, keep, wait or done" }),
        }
    }
}

impl TryFrom<&str> for Report {
    type Error = UnknownStatus;

    fn try_from(text: &str) -> Result<Self, UnknownStatus> {
        text.parse()
    }
}

/// The error for a text that is not a [`Status`] or not a [`Report`].
///
/// POE: `update_status` ignores an unknown word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UnknownStatus {
    /// The word as it was given.
    word: String,
    /// What would have been accepted.
    expected: &'static str,
}

impl UnknownStatus {
    /// Returns the word as it was given.
    pub fn word(&self) -> &str {
        &self.word
    }
}

impl fmt::Display for UnknownStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown status {:?}, expected {}", self.word, self.expected)
    }
}

impl Error for UnknownStatus {}
