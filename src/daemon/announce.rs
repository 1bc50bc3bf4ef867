//! What a Daemon tells the sessions of its process.

use crate::args::IntoArgs;
use crate::daemon::handle::Daemon;
use crate::error::Result;
use crate::kernel::{Context, SessionId};

/// Posts a signal to every session.
pub(in crate::daemon) fn broadcast<H: 'static>(cx: &mut Context<'_, H>, signal: &str) {
    let me = Daemon(cx.session());
    // The kernel is always there to be the destination.
    let _ = cx.signal(SessionId::KERNEL, signal, ((), me));
}

/// Sends a signal to every session at once.
///
/// `about` becomes ARG1 and what follows it. The Daemon itself comes last, as ARG2: where there is nothing to be said, `()`
/// keeps its place.
pub(in crate::daemon) fn announce<H: 'static>(cx: &mut Context<'_, H>, signal: &str, about: impl IntoArgs) -> Result {
    let me = Daemon(cx.session());
    let about = about.into_args();
    let about = if about.is_empty() { ((),).into_args() } else { about };
    Ok(cx.signal_now(SessionId::KERNEL, signal, about.chain((me,).into_args()))?)
}
