//! What leads from a child's standard streams to its wheel.

/// What the streams are made of that lead from a child to its [`Run`](super::Run).
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
    /// One socket, for both directions, in place of the pipes of standard input and standard output: for programs that
    /// want to be started as by inetd. Standard error is as with [`Pipe`](Conduit::Pipe).
    ///
    /// Output ends when nobody has the socket open any more, as input or output. A child that ends without having read
    /// all of its input makes the end of its output the error `ECONNRESET`. A wheel with only one of the two streams has
    /// a pipe for it.
    ///
    /// POE: `"socketpair"`.
    SocketPair,
    /// One pseudo-terminal for all three streams, in raw mode: what is put arrives unchanged, is not echoed, and no
    /// character of it makes a signal. With the feature `pty`.
    ///
    /// The child leads a session whose controlling terminal this is. What it writes to standard error arrives as standard
    /// output. The end of the output is the error `EIO`: the last process has closed the terminal, which may be one in the
    /// background that ignores the `HUP` it gets when the child has ended. Shutting standard input down only ends the
    /// writing, and the child finds no end of its input. Dropping the wheel closes the terminal on this side, of which the
    /// child gets `HUP`.
    ///
    /// POE: `"pty"`.
    #[cfg(feature = "pty")]
    Pty,
    /// The same for standard input and standard output; standard error is as with [`Pipe`](Conduit::Pipe). With the
    /// feature `pty`.
    ///
    /// POE: `"pty-pipe"`.
    #[cfg(feature = "pty")]
    PtyPipe,
}

impl Conduit {
    /// The child has a terminal.
    pub(super) fn is_terminal(self) -> bool {
        #[cfg(feature = "pty")]
        return matches!(self, Conduit::Pty | Conduit::PtyPipe);
        #[cfg(not(feature = "pty"))]
        return false;
    }
}
