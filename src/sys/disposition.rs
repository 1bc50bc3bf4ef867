//! The process's signal dispositions, beside what signal-hook does with them.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

/// What the system does with a signal: as it was found, so that putting it back loses nothing. (nix has a type for new ones
/// alone.)
#[derive(Clone, Copy)]
pub(crate) struct Disposition(libc::sigaction);

impl Disposition {
    /// Makes one of `SIG_DFL` or `SIG_IGN`.
    fn plain(what: libc::sighandler_t) -> Disposition {
        // SAFETY: a structure of numbers; all zeros are valid, and mean no flags and an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = what;
        Disposition(action)
    }

    fn is_default(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_DFL
    }

    pub(crate) fn is_ignored(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_IGN
    }
}

/// Looks what becomes of `signal`, and leaves it at that. nix knows no way but to put something else in its place: what
/// comes before the handler is put back would be lost.
pub(crate) fn current(signal: Signal) -> nix::Result<Disposition> {
    change(signal, None)
}

/// Gives `signal` its default action, and returns the disposition it had.
pub(crate) fn set_default(signal: Signal) -> nix::Result<Disposition> {
    change(signal, Some(&Disposition::plain(libc::SIG_DFL)))
}

/// Has `signal` ignored, and returns the disposition it had.
pub(crate) fn ignore(signal: Signal) -> nix::Result<Disposition> {
    change(signal, Some(&Disposition::plain(libc::SIG_IGN)))
}

/// Puts back a disposition that this module has returned, and returns the one that it takes the place of.
pub(crate) fn restore(signal: Signal, former: &Disposition) -> nix::Result<Disposition> {
    change(signal, Some(former))
}

fn change(signal: Signal, to: Option<&Disposition>) -> nix::Result<Disposition> {
    let to = to.map_or(std::ptr::null(), |to| &raw const to.0);
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut from: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `from` is written, `to` is null or outlives the call. `to` runs no code of this process, or was in force in it
    // before: if it is signal-hook's handler, then the registry that it reads still exists, as it lives as long as the process;
    // if it is the program's own, then the program had put it there.
    Errno::result(unsafe { libc::sigaction(signal as libc::c_int, to, &mut from) })?;
    Ok(Disposition(from))
}

/// Gives `signal` its default action if it is ignored; a handler stays, and misses nothing meanwhile.
///
/// A program inherits what its launcher ignored. Of SIGCHLD that is fatal: the statuses of children are lost.
pub(crate) fn stop_ignoring(signal: Signal) -> nix::Result<()> {
    if current(signal)?.is_ignored() { set_default(signal).map(drop) } else { Ok(()) }
}

/// Gives every signal that has a handler its default action; what is ignored stays so.
pub(crate) fn reset_handlers() {
    for signal in Signal::iterator() {
        // Two of them can't have a handler, and are refused.
        if let Ok(old) = set_default(signal)
            && old.is_ignored()
        {
            let _ = restore(signal, &old);
        }
    }
}

/// Makes a write to a closed pipe or socket an error instead of a death, unless the program has arranged otherwise.
pub(crate) fn ignore_sigpipe() -> nix::Result<()> {
    ignore_unless_arranged(Signal::SIGPIPE)
}

/// The same for a write to a file that may not become any larger.
pub(crate) fn ignore_sigxfsz() -> nix::Result<()> {
    ignore_unless_arranged(Signal::SIGXFSZ)
}

fn ignore_unless_arranged(signal: Signal) -> nix::Result<()> {
    if current(signal)?.is_default() { ignore(signal).map(drop) } else { Ok(()) }
}
