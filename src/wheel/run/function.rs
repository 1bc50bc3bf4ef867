//! A function of the program that runs in a forked child.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Shared;
use super::streams::Ends;
use crate::args::IntoArgs;
use crate::destroy::destroy;
use crate::error::{Error, Exception};
use crate::kernel::{Errand, Kernel};
use crate::name::Name;
use crate::sys::child::Setup;
use crate::sys::fork::exit_now;
use crate::wheel::Failure;

/// The function that a [`Run::function`](super::Run::function) runs.
pub(super) type Function = Box<dyn FnOnce(&mut Kernel) -> Result<(), Exception>>;

/// What the fork needs.
pub(super) struct FunctionChild {
    pub(super) shared: Rc<Shared>,
    pub(super) function: Function,
    pub(super) ends: Ends,
    pub(super) setup: Setup,
    pub(super) on_exit: Option<Name>,
}

impl Errand for FunctionChild {
    fn is_wanted(&self) -> bool {
        self.shared.open.get()
    }

    fn in_parent(self: Box<Self>, kernel: &mut Kernel, pid: Result<i32, Error>) {
        let FunctionChild { shared, on_exit, function, ends, .. } = *self;
        // The child has them now. If the parent kept its copies of the child's ends open, the pipes would never end.
        destroy(function);
        drop(ends);
        match pid {
            Ok(pid) => shared.begin(&mut kernel.core, pid, on_exit),
            Err(error) => {
                let errno = match &error {
                    Error::Os { source, .. } => source.raw_os_error().unwrap_or(0),
                    _ => Errno::EBUSY as i32,
                };
                let (wheel, subject) = (Some(shared.id), String::new());
                let failure = Failure { operation: "fork", errno, text: error.to_string(), wheel, subject };
                if let (Some(event), true) = (shared.on_error.get(), shared.open.get()) {
                    kernel.dispatch_from_source(shared.owner, event, Some(shared.name), (failure,).into_args());
                }
            }
        }
    }

    fn in_child(self: Box<Self>, kernel: &mut Kernel) -> ! {
        let FunctionChild { function, ends, setup, .. } = *self;
        kernel.core.remove_all_sources();
        // Signals that have arrived in this process since the fork are for the function. Their default actions follow.
        let _ = SigSet::all().thread_set_mask();
        let arrived = kernel.core.signals.delivery.pending();
        kernel.core.signals.delivery.end();
        for signal in arrived.iter().filter_map(|name| format!("SIG{name}").parse::<Signal>().ok()) {
            let _ = raise(signal);
        }
        let ready = install(ends).map_err(|errno| ("dup2", errno)).and_then(|()| setup.apply());
        let status = match ready {
            Ok(()) => run(function, kernel),
            Err((call, errno)) => {
                say(format_args!("{call}: {errno}"));
                errno as i32
            }
        };
        let _ = io::stdout().flush();
        log::logger().flush();
        exit_now(status)
    }
}

/// Runs the function, and returns the status to exit with.
fn run(function: Function, kernel: &mut Kernel) -> i32 {
    match catch_unwind(AssertUnwindSafe(|| function(kernel))) {
        Ok(Ok(())) => 0,
        Ok(Err(exception)) => {
            say(exception);
            EXIT_FAILED
        }
        // The panic hook has printed the message.
        Err(_) => EXIT_FAILED,
    }
}

/// The exit status after a function has failed, as in POE.
const EXIT_FAILED: i32 = 255;

/// Writes a line to standard error, if there is one.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Puts the child's ends of its standard streams in their places.
fn install(ends: Ends) -> nix::Result<()> {
    let [stdin, stdout, stderr] = ends.map(|end| end.map(out_of_the_way).transpose());
    let (stdin, stdout, stderr) = (stdin?, stdout?, stderr?);
    stdin.iter().try_for_each(dup2_stdin)?;
    stdout.iter().try_for_each(dup2_stdout)?;
    stderr.iter().try_for_each(dup2_stderr)
}

/// Moves a descriptor that has the number of a standard stream, so that none is replaced before it was copied.
fn out_of_the_way(fd: OwnedFd) -> nix::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    fd.as_fd().try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}
