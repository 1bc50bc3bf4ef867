//! The standard error of a child that is on trial. The parent reads it, so that it can tell an operator the last words of a child
//! that has failed. When the trial is over, the child has its own standard error again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::dup2_stderr;

use crate::daemon::child::role::Words;
use crate::daemon::heap::Cx;
use crate::kernel::Handle;

/// Begins to write to the parent. If that is not possible, standard error stays what it is.
pub(super) fn begin(cx: &mut Cx<'_>, (stderr, notice): (OwnedFd, OwnedFd)) {
    let Ok(own) = io::stderr().as_fd().try_clone_to_owned() else { return };
    if dup2_stderr(&stderr).is_err() {
        return;
    }
    let notice = Handle::new(notice);
    // Weakly: a child ends when its own sessions do.
    let _ = cx.select_read_weak(&notice, "words_over", ());
    if let Some(child) = cx.heap().role.child_mut() {
        child.words = Some(Words { own, notice });
    }
}

/// The parent does not want to know any more, or is gone.
pub(in crate::daemon) fn end(cx: &mut Cx<'_>) {
    if let Some(words) = cx.heap().role.child_mut().and_then(|child| child.words.take()) {
        let _ = dup2_stderr(&words.own);
        cx.select_read_clear(&words.notice);
    }
}

/// Standard error goes to the log file, which was opened again: that is where it belongs.
pub(in crate::daemon) fn replaced(cx: &mut Cx<'_>) {
    if let Some(words) = cx.heap().role.child_mut().and_then(|child| child.words.take()) {
        cx.select_read_clear(&words.notice);
    }
}
