//! The end of a process that has nothing to do after its last session. It leaves at once: the system frees memory, closes
//! files and forgets handlers by itself.

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
    /// Standard output, standard error and the log are flushed, and what the program has registered to be flushed before a
    /// fork. The exit code is 0 without a `failure`.
    pub(super) fn exit_if_it_is_to(&mut self, failure: Option<&Error>) {
        // A state runs the loop: it is to return first. A process that the program has forked by itself, and that the kernel
        // has not been told of, is another.
        let is_over = self.core.depth == 0 && self.core.is_here();
        if self.core.after_run == AfterRun::Return || !is_over {
            return;
        }
        // A panic in a logger must not take this process back into the program.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if let Some(error) = failure
                && !log::log_enabled!(target: "lenore::exceptions", log::Level::Error)
            {
                // Nobody has been told: `main`, which would say it, gets nothing.
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            self.flush_everything();
        }));
        exit_now(if failure.is_some() { EXIT_FAILED } else { 0 });
    }
}

/// The exit code after a failure that nobody has handled: that of a `main` that returns an error.
const EXIT_FAILED: i32 = 1;
