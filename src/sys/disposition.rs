//! The process's signal dispositions, beside what signal-hook does with them.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Gives `signal` its default action, and returns the disposition it had.
pub(crate) fn set_default(signal: Signal) -> nix::Result<SigAction> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: `SIG_DFL` runs no code of this process, so there is no handler that could break its rules.
    unsafe { sigaction(signal, &action) }
}

/// Has `signal` ignored, and returns the disposition it had.
pub(crate) fn ignore(signal: Signal) -> nix::Result<SigAction> {
    let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: `SIG_IGN` runs no code of this process.
    unsafe { sigaction(signal, &action) }
}

/// Puts back a disposition that [`set_default`] or [`ignore`] returned.
pub(crate) fn restore(signal: Signal, action: &SigAction) -> nix::Result<()> {
    // SAFETY: the action was in force in this process before. If it is signal-hook's handler, then the registry that
    // it reads still exists, as it lives as long as the process.
    unsafe { sigaction(signal, action) }.map(drop)
}

/// Gives `signal` its default action if it is ignored; a handler stays, and misses nothing meanwhile.
///
/// A program inherits what its launcher ignored. Of SIGCHLD that is fatal: the statuses of children are lost.
pub(crate) fn stop_ignoring(signal: Signal) -> nix::Result<()> {
    if current(signal)? == libc::SIG_IGN { set_default(signal).map(drop) } else { Ok(()) }
}

/// Looks what becomes of `signal`, and leaves it at that. nix knows no way but to put something else in its place: what
/// comes before the handler is put back would be lost.
fn current(signal: Signal) -> nix::Result<libc::sighandler_t> {
    // SAFETY: a structure of numbers; all zeros are valid.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action nothing is changed; writes to `action`, and to nothing else.
    Errno::result(unsafe { libc::sigaction(signal as libc::c_int, std::ptr::null(), &mut action) })?;
    Ok(action.sa_sigaction)
}

/// Gives every signal that has a handler its default action; what is ignored stays so.
pub(crate) fn reset_handlers() {
    for signal in Signal::iterator() {
        // Two of them can't have a handler, and are refused.
        if let Ok(old) = set_default(signal)
            && matches!(old.handler(), SigHandler::SigIgn)
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
    if current(signal)? == libc::SIG_DFL { ignore(signal).map(drop) } else { Ok(()) }
}
