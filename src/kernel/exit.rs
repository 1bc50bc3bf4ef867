//! The end of a process that has nothing to do after its last session. It exits at once: the system frees the memory,
//! closes the files and forgets the handlers.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Kernel;
use crate::error::Error;
use crate::sys::fork::exit_now;

/// What a forked process does when its last session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterRun {
    /// [`Kernel::run`] returns, and the program goes on.
    Return,
    /// It exits.
    Exit,
}

impl Kernel {
    /// Ends this process if it was forked to end after its run.
    ///
    /// Flushes standard output, standard error and the log, and runs the functions that the program has registered with
    /// [`flush_before_fork`](Kernel::flush_before_fork). The exit code is 0 without a `failure`, and 1 with one.
    pub(super) fn exit_if_it_is_to(&mut self, failure: Option<&Error>) {
        // If a state runs the loop, the state has to return first. A process that the program has forked by itself, and
        // of which the kernel has not been told, must not exit here.
        let is_over = self.core.depth == 0 && self.core.is_here();
        if self.core.after_run == AfterRun::Return || !is_over {
            return;
        }
        // A panic in a logger must not take this process back into the program.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if let Some(error) = failure
                && !log::log_enabled!(target: "lenore::exceptions", log::Level::Error)
            {
                // The log does not have the error, and `main`, which would print it, does not get it.
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            self.flush_everything();
        }));
        exit_now(if failure.is_some() { EXIT_FAILED } else { 0 });
    }
}

/// The exit code after a failure that no session has handled. A `main` that returns an error has the same.
const EXIT_FAILED: i32 = 1;
