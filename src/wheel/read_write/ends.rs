//! The two sources of a wheel that reads from one descriptor and writes to another.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::state::State;
use crate::kernel::{AfterFork, Next, Readiness, Source, Turn, Wanted};

/// The descriptor that is read.
pub(super) struct InputEnd(pub(super) Rc<State>);

/// The descriptor that is written to.
pub(super) struct OutputEnd(pub(super) Rc<State>);

impl Source for InputEnd {
    fn fd(&self) -> RawFd {
        self.0.port.raw_fd()
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of_stream(self.0.port.is_watched.get() && self.0.reader.is_wanted(), false)
    }

    /// Without an input event no event can come of it, so it does not keep its session.
    fn keeps_owner(&self) -> bool {
        !self.0.reader.is_idle()
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        let next = if readiness == Readiness::Read { self.0.read_some(cx) } else { Next::Wait };
        if self.0.reader.is_over() { Next::Close } else { next }
    }

    fn short_reads(&self) {
        self.0.reader.note_short_reads();
    }

    fn close(&self) {
        self.0.port.close();
    }

    fn fork(&self) -> AfterFork {
        if self.0.base.after_fork == AfterFork::Keep && self.0.forget_input() {
            AfterFork::Keep
        } else {
            AfterFork::Close
        }
    }

    fn describe(&self) -> String {
        self.0.describe_input()
    }
}

impl Source for OutputEnd {
    fn fd(&self) -> RawFd {
        self.0.output_port().raw_fd()
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(false, self.0.output_port().is_watched.get() && self.0.outbox.is_blocked(), false)
    }

    fn turn(&self, cx: &mut Turn<'_>, readiness: Readiness) -> Next {
        if readiness != Readiness::Write {
            return Next::Wait;
        }
        self.0.outbox.unblock();
        self.flush(cx)
    }

    fn flush(&self, cx: &mut Turn<'_>) -> Next {
        let outbox = &self.0.outbox;
        let next = outbox.write_some(cx, &*self.0);
        let is_closing = self.0.base.closing.get();
        let is_needless = if is_closing { outbox.is_done() } else { outbox.is_over() && !cx.is_flush_due() };
        if is_needless { Next::Close } else { next }
    }

    fn close(&self) {
        self.0.output_port().close();
        self.0.outbox.discard();
    }

    fn fork(&self) -> AfterFork {
        self.0.fork_output()
    }

    fn describe(&self) -> String {
        let base = &self.0.base;
        format!("{} ({}), output{}", base.name, base.id, self.0.describe_output())
    }
}
