//! `lenore::testing`: the kernel whose clock a test moves, streams, signals and ends of children that it delivers, and tests in
//! processes of their own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod children;
mod clock;
mod daemon;
mod order;
mod peers;
mod processes;
mod rounds;
mod sequences;
mod wheels;

/// Returns the text with which `what` panics.
#[track_caller]
fn panic_of<T>(what: impl FnOnce() -> T) -> String {
    let Err(payload) = catch_unwind(AssertUnwindSafe(what)) else { panic!("it does not panic") };
    text_of(&*payload)
}

fn text_of(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
