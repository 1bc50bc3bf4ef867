//! Has the service manager keep the listeners, so that they outlive this process.
//!
//! A program that is started again after a crash then gets them as passed sockets. Clients that have come meanwhile are in their
//! queues.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::daemon::heap::{Cx, Heap, Role};
use crate::daemon::notify::{DEFAULT_NAME, Listening, Step};
use crate::kernel::{Core, SourceKey};
use crate::name::Name;

/// The application listens by now. `left_over` are the names of sockets that were passed and on which nothing listens.
pub(in crate::daemon) fn begin(cx: &mut Cx<'_>, left_over: Vec<String>) {
    let me = cx.session();
    let (heap, core) = cx.parts();
    let Some(store) = heap.role.parent_mut().and_then(|parent| parent.store.as_mut()) else { return };
    core.watch_listeners(me, CHANGED);
    core.let_alarms_pass(me, Name::new(AGAIN));
    let listening = listening(core);
    left_over.into_iter().for_each(|name| store.was_left_over(name, &listening));
    tell(cx);
}

/// Has the manager keep what this process listens on, and nothing else.
///
/// At the end of the service the manager is told nothing. It lets go of all sockets by itself, or keeps them if the unit says so.
pub(in crate::daemon) fn tell(cx: &mut Cx<'_>) {
    let (heap, core) = cx.parts();
    let Heap { role: Role::Parent(parent), .. } = heap else { return };
    let (Some(store), Some(manager)) = (&mut parent.store, &mut parent.manager) else { return };
    if !manager.keeps_sockets() {
        return;
    }
    let listening = listening(core);
    // Each step brings the two closer together.
    while let Some(step) = store.next(&listening) {
        let is_done = match &step {
            Step::Keep(key, name) => {
                core.duplicate_listener(*key).is_ok_and(|fd| manager.keep_socket(name, fd.as_fd()))
            }
            Step::LetGo(name) => manager.let_go_of_sockets(name),
        };
        if !is_done {
            return cx.delay(AGAIN, RETRY, ());
        }
        store.done(step);
    }
}

fn listening(core: &mut Core) -> Vec<Listening<SourceKey>> {
    let findable = core.findable_listeners().into_iter();
    let listening = findable.map(|(key, findable)| Listening {
        key,
        name: findable.name.as_deref().unwrap_or(DEFAULT_NAME).to_owned(),
        is_inherited: findable.is_inherited,
    });
    listening.collect()
}

/// A listener has come or gone.
pub(super) const CHANGED: &str = "listeners_changed";

/// The manager could not be told.
const AGAIN: &str = "keep_listeners";

/// How soon that is tried again.
const RETRY: Duration = Duration::from_millis(200);
