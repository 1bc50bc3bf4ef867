//! What connects a child's standard streams to its wheel.

/// What the streams between a child and its [`Run`](super::Run) are made of.
///
/// POE: `Conduit`. Its `"inet"`, which is a pipe there, has no counterpart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conduit {
    /// A pipe for each stream.
    ///
    /// POE: `"pipe"`.
    #[default]
    Pipe,
    /// One socket for standard input and standard output, instead of two pipes. This is for programs that expect to be
    /// started by inetd. Standard error is as with [`Pipe`](Conduit::Pipe).
    ///
    /// The output ends when no process has the socket open any more, for input or output. If a child ends without
    /// reading all of its input, the end of its output is the error `ECONNRESET`. If the wheel uses only one of the two
    /// streams, that stream is a pipe.
    ///
    /// POE: `"socketpair"`.
    SocketPair,
    /// One pseudo-terminal for all three streams, in raw mode. The child gets what the session puts unchanged. The
    /// terminal does not echo it, and no character in it makes a signal. This needs the feature `pty`.
    ///
    /// The child leads a session whose controlling terminal this is. What the child writes to standard error arrives as
    /// standard output. The end of the output is the error `EIO`. It comes when the last process has closed the
    /// terminal. That may be a background process that ignores the `HUP` which the system sends when the child has
    /// ended.
    ///
    /// Shutting standard input down only stops the writing, so the child does not see an end of its input. Dropping the
    /// wheel closes this side of the terminal, and the child gets `HUP`.
    ///
    /// POE: `"pty"`.
    #[cfg(feature = "pty")]
    Pty,
    /// One pseudo-terminal for standard input and standard output. Standard error is as with [`Pipe`](Conduit::Pipe).
    /// This needs the feature `pty`.
    ///
    /// POE: `"pty-pipe"`.
    #[cfg(feature = "pty")]
    PtyPipe,
}

impl Conduit {
    /// Tells whether the child has a terminal.
    pub(super) fn is_terminal(self) -> bool {
        #[cfg(feature = "pty")]
        return matches!(self, Conduit::Pty | Conduit::PtyPipe);
        #[cfg(not(feature = "pty"))]
        return false;
    }
}
