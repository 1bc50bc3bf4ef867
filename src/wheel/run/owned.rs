//! The part of a `Run` that is dropped with it, and what the drop does to the process.

use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::OnDrop;
use super::reader::Reader;
use super::shared::Shared;
use super::writer::Writer;
use crate::kernel::Process;

/// All of a `Run` except the filters. Dropping it closes the streams.
pub(super) struct Owned {
    pub(super) shared: Rc<Shared>,
    /// `None` if the stream is not a pipe.
    pub(super) stdin: Option<Rc<Writer>>,
    pub(super) stdout: Option<Rc<Reader>>,
    pub(super) stderr: Option<Rc<Reader>>,
    pub(super) on_drop: OnDrop,
    /// The child leads a process group.
    pub(super) leads_group: bool,
}

impl Owned {
    pub(super) fn signal_group(&self, process: &Process, signal: Signal) -> nix::Result<()> {
        if !self.leads_group {
            return Err(Errno::EPERM);
        }
        match process.kill_group(signal) {
            // A function's child may not have made its group yet. It has started no other process then.
            Err(Errno::ESRCH) => process.kill(signal),
            sent => sent,
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.shared.open.set(false);
        self.stdin.iter().for_each(|stdin| stdin.shut_down());
        self.stdout.iter().for_each(|stdout| stdout.shut_down());
        self.stderr.iter().for_each(|stderr| stderr.shut_down());
        let (signal, waits) = match self.on_drop {
            OnDrop::Leave => return,
            OnDrop::Terminate => (Signal::SIGTERM, false),
            OnDrop::Kill => (Signal::SIGKILL, false),
            OnDrop::KillAndWait => (Signal::SIGKILL, true),
        };
        let process = self.shared.process.borrow();
        let Some(process) = &*process else { return };
        let sent = self.signal_group(process, signal).or_else(|_| process.kill(signal));
        match sent {
            Ok(()) if waits => {
                if process.wait(KILL_LIMIT) == Ok(false) {
                    let (process, limit) = (self.shared.describe_process(), KILL_LIMIT.as_secs());
                    log::warn!(target: "lenore::wheels", "{process} has not ended after KILL, and is reaped when it does: limit_s={limit}");
                }
            }
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                log::warn!(target: "lenore::wheels", "can't send {signal} to {}: {errno}", self.shared.describe_process());
            }
        }
    }
}

/// How long a drop waits for a process that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);
