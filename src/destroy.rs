//! Running the program's own destructors and hooks from inside the library. No caller could handle a panic in them, so
//! the functions here catch and log it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Exception;

/// Drops a value of the program's own.
pub(crate) fn destroy<T>(what: T) {
    shield("something was dropped", || drop(what));
}

/// Drops values of the program's own one by one: if two of them panicked within one drop, the second panic would abort
/// the process.
pub(crate) fn destroy_all<T>(all: impl IntoIterator<Item = T>) {
    all.into_iter().for_each(destroy);
}

/// Runs code of the program's own. If it panics, the log says `while`, then `when`.
pub(crate) fn shield(when: &str, code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        log::error!(target: "lenore::exceptions", "while {when}: {}", Exception::from_panic(payload));
    }
}

/// Drops the payload of a panic. If that drop panics too, the second payload is leaked.
pub(crate) fn destroy_payload(payload: Box<dyn std::any::Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}
