//! The signals of the system by which children hear what the machine wants.

use nix::sys::signal::Signal as Sig;

use crate::daemon::machine::{Shutdown, Signal, Step};

/// Returns the signal that means this to a child, if TERM means `term` to it.
pub(super) fn system_signal(signal: Signal, term: Shutdown) -> Sig {
    match signal {
        Signal::Hup => Sig::SIGHUP,
        Signal::Int => Sig::SIGINT,
        // The first TERM would let the child finish its requests.
        Signal::Term if term == Shutdown::Graceful => Sig::SIGINT,
        Signal::Term => Sig::SIGTERM,
        Signal::Quit => Sig::SIGQUIT,
        Signal::Cont => Sig::SIGCONT,
        Signal::Kill => Sig::SIGKILL,
    }
}

/// Returns the signal that a rogue child gets.
pub(super) fn signal_of_step(step: Step, term: Shutdown) -> Sig {
    match step {
        Step::Interrupt => Sig::SIGINT,
        Step::Terminate => system_signal(Signal::Term, term),
        Step::Kill => Sig::SIGKILL,
    }
}
