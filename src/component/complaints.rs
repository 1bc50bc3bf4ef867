//! What the log is told of clients that do not behave. A warning for each of them would fill a disk, and hide the first one.

use std::cell::Cell;
use std::time::Duration;

use super::connection::Connection;
use super::listen::Door;
use crate::filter::Filter;
use crate::kernel::{Context, Due, nanos};

/// For how long a listener warns of one client of a kind only.
const PAUSE: Duration = Duration::from_secs(60);

/// When the log was warned of a client of one kind, and of how many it was not warned since.
#[derive(Default)]
pub(super) struct Complaints {
    last: Cell<Option<Due>>,
    untold: Cell<u64>,
}

impl Complaints {
    /// Returns how many were not told since the last one that was, if it is time for another.
    fn tell(&self, now: Due) -> Option<u64> {
        if self.last.get().is_some_and(|last| now < last.saturating_add(nanos(PAUSE))) {
            self.untold.set(self.untold.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.untold.take())
    }
}

/// Warns of what the peer of this connection has done, once in a while for the clients of one listener; of the others, the log is
/// told at the level of debugging.
pub(super) fn complain<F: Filter, H: 'static>(
    cx: &mut Context<'_, Connection<F, H>>,
    of: fn(&Door) -> &Complaints,
    text: &str,
) {
    let now = cx.core().clock.now();
    let (session, heap) = (cx.session().number(), cx.heap());
    let peer = heap.peer_text();
    let Some(door) = &heap.door else {
        log::warn!(target: "lenore::component", "{text}: session={session} peer={peer}");
        return;
    };
    let text = format_args!("{text}: session={session} peer={peer} listener={}", door.address);
    match of(door).tell(now) {
        Some(untold) => log::warn!(target: "lenore::component", "{text} untold={untold}"),
        None => log::debug!(target: "lenore::component", "{text}"),
    }
}
