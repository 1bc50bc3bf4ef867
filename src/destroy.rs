//! Running what the program has given away: its destructors, and what it wants done at some moment. A panic in that has
//! nobody to go to.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Exception;

/// Drops a value of the program's own.
pub(crate) fn destroy<T>(what: T) {
    shield("something was dropped", || drop(what));
}

/// Drops values of the program's own one by one: of two that panic while one list is dropped, the second aborts the process.
pub(crate) fn destroy_all<T>(all: impl IntoIterator<Item = T>) {
    all.into_iter().for_each(destroy);
}

/// Runs code of the program's own. `when` says for the log when that was.
pub(crate) fn shield(when: &str, code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        log::error!(target: "lenore::exceptions", "while {when}: {}", Exception::from_panic(payload));
    }
}

/// Drops what a panic has thrown, which may panic in its turn. What that throws is not looked at any more.
pub(crate) fn destroy_payload(payload: Box<dyn std::any::Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
