//! Pseudo-terminals.

use nix::errno::Errno;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Uid, fchown};

use super::conduit::Conduit;
use super::streams::{FOR_CHILD, Link, Output, Streams, link};
use crate::error::Error;
use crate::sys::terminal;

/// The size of a terminal, in characters and in pixels. 0 means unknown.
///
/// ```
/// use lenore::wheel::{Conduit, Run, Winsize};
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let size = Winsize::new(24, 80);
/// assert_eq!((size.xpixels, size.ypixels), (720, 384));
///
/// let mut kernel = Kernel::new()?;
/// Session::new(None::<Run>)
///     .state("_start", move |cx| {
///         let stty = Run::program(["stty", "size"]).conduit(Conduit::Pty).winsize(size);
///         *cx.heap() = Some(stty.on_stdout("line").on_close("closed").start(cx)?);
///         Ok(())
///     })
///     .state("line", |cx| {
///         assert_eq!(cx.take::<String>(0)?, "24 80");
///         Ok(())
///     })
///     .state("closed", |cx| *cx.heap() = None)
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: the array in `Winsize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Winsize {
    /// Lines of text.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// The width in pixels.
    pub xpixels: u16,
    /// The height in pixels.
    pub ypixels: u16,
}

impl Winsize {
    /// Returns a size in characters. The size in pixels is 9 for each column and 16 for each row.
    ///
    /// POE: `[rows, columns]`.
    pub fn new(rows: u16, columns: u16) -> Winsize {
        Winsize { rows, columns, xpixels: columns.saturating_mul(9), ypixels: rows.saturating_mul(16) }
    }

    pub(super) fn to_system(self) -> nix::pty::Winsize {
        let Winsize { rows: ws_row, columns: ws_col, xpixels: ws_xpixel, ypixels: ws_ypixel } = self;
        nix::pty::Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel }
    }
}

/// Refuses settings that need a terminal if there is none, and settings that don't fit a terminal.
pub(super) fn check(streams: &Streams) -> Result<(), Error> {
    let refuse = |setting, reason| Err(Error::InvalidSetting { setting, reason });
    let Streams { conduit, winsize, stdin, stdout, stderr } = streams;
    match (conduit, stderr) {
        _ if !conduit.is_terminal() => winsize.map_or(Ok(()), |_| refuse("winsize", "there is no terminal")),
        _ if stdin.is_some() => refuse("stdin", IS_TERMINAL),
        _ if matches!(stdout, Output::To(_)) => refuse("stdout", IS_TERMINAL),
        (Conduit::Pty, Output::To(_)) => refuse("stderr", IS_TERMINAL),
        (Conduit::Pty, Output::Event(_)) => {
            refuse("on_stderr", "standard error is the terminal, and arrives as standard output")
        }
        _ => Ok(()),
    }
}

const IS_TERMINAL: &str = "it is the terminal";

/// Opens a terminal in raw mode. Without a size it gets the size of the terminal on this process's standard input.
pub(super) fn open(size: Option<Winsize>, user: Option<Uid>) -> Result<Link, Error> {
    let fail = |call| move |errno: Errno| Error::os(call, FOR_CHILD, errno);
    let (ours, theirs) = terminal::open_pair().map_err(|(call, errno)| fail(call)(errno))?;
    let mut settings = tcgetattr(&theirs).map_err(fail("tcgetattr"))?;
    cfmakeraw(&mut settings);
    tcsetattr(&theirs, SetArg::TCSANOW, &settings).map_err(fail("tcsetattr"))?;
    let size = size.map(Winsize::to_system).or_else(|| terminal::size(std::io::stdin()).ok());
    size.map_or(Ok(()), |size| terminal::set_size(&ours, size)).map_err(fail("TIOCSWINSZ"))?;
    // As login does, so that the child's user may open the terminal by name. Only root may change the owner.
    if user.is_some() && Uid::effective().is_root() {
        fchown(&theirs, user, None).map_err(fail("fchown"))?;
    }
    link(theirs, ours)
}
