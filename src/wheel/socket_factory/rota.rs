//! Listeners of one session that take turns.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use crate::kernel::Source;

/// Listeners from which one session accepts one connection at a time.
///
/// If a session paused all of them after each connection, it would always accept from the listener that the kernel asks
/// first. So the listeners take turns. The next connection is for the listener after the one that has just accepted, or
/// for the first listener after it that has a client. The others give way.
#[derive(Default)]
pub(crate) struct Rota {
    /// The listeners in the order in which they have joined, which is the order of their places.
    members: RefCell<Vec<Member>>,
    /// The place that the next listener gets.
    next_place: Cell<u64>,
    /// The place of the listener that has accepted the latest connection.
    last: Cell<Option<u64>>,
}

struct Member {
    place: u64,
    listener: Weak<dyn Source>,
    /// How often it has given way since the latest connection.
    passes: Cell<u32>,
}

impl Rota {
    /// Adds a listener, and returns its place, which no other listener ever gets. Listeners that were closed and dropped leave.
    pub(super) fn join(&self, listener: &Rc<impl Source + 'static>) -> u64 {
        let place = self.next_place.get();
        self.next_place.set(place + 1);
        let mut members = self.members.borrow_mut();
        members.retain(|member| member.listener.strong_count() > 0);
        let listener = Rc::downgrade(listener);
        members.push(Member { place, listener, passes: Cell::new(0) });
        place
    }

    /// Tells whether the listener leaves this turn to another one that comes before it in the round and has a client.
    pub(super) fn gives_way(&self, place: u64) -> bool {
        let Some(last) = self.last.get() else { return false };
        let rank = |place: u64| (place <= last, place);
        let members = self.members.borrow();
        let Some(own) = members.iter().find(|member| member.place == place) else { return false };
        if own.passes.get() >= PASSES {
            return false;
        }
        let another_waits = members.iter().any(|member| rank(member.place) < rank(place) && member.has_client());
        if another_waits {
            own.passes.set(own.passes.get() + 1);
        }
        another_waits
    }

    /// Notes that the listener has accepted a connection.
    pub(super) fn accepted(&self, place: u64) {
        self.last.set(Some(place));
        self.members.borrow().iter().for_each(|member| member.passes.set(0));
    }
}

impl Member {
    /// Tells whether it could accept a client now.
    fn has_client(&self) -> bool {
        self.listener.upgrade().is_some_and(|listener| listener.wanted().is_some() && listener.has_client())
    }
}

/// How often a listener gives way in a row. The poller may report the other listener only with its next answer, and
/// another process may accept that client first.
const PASSES: u32 = 2;

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;

    use super::*;
    use crate::kernel::{AfterFork, Next, Readiness, Turn, Wanted};

    /// A listener, with or without a client.
    struct Stub(Cell<bool>);

    impl Source for Stub {
        fn fd(&self) -> RawFd {
            -1
        }

        fn wanted(&self) -> Option<Wanted> {
            Some(Wanted::ACCEPT)
        }

        fn turn(&self, _: &mut Turn<'_>, _: Readiness) -> Next {
            Next::Wait
        }

        fn has_client(&self) -> bool {
            self.0.get()
        }

        fn close(&self) {}

        fn fork(&self) -> AfterFork {
            AfterFork::Keep
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    fn joined<const COUNT: usize>(rota: &Rota) -> [(u64, Rc<Stub>); COUNT] {
        std::array::from_fn(|_| {
            let stub = Rc::new(Stub(Cell::new(true)));
            (rota.join(&stub), stub)
        })
    }

    /// Gives turns in the order of `asked` until a listener accepts, and returns that one.
    fn accept(rota: &Rota, asked: &[u64]) -> u64 {
        let place =
            *asked.iter().cycle().find(|place| !rota.gives_way(**place)).expect("a listener gives way a few times");
        rota.accepted(place);
        place
    }

    #[test]
    fn listeners_that_all_have_clients_accept_in_turn() {
        let rota = Rota::default();
        let members = joined::<3>(&rota);
        for asked in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            rota.accepted(2);
            let order: Vec<u64> = (0..6).map(|_| accept(&rota, &asked)).collect();
            assert_eq!(order, [0, 1, 2, 0, 1, 2], "asked in the order {asked:?}");
        }
        drop(members);
    }

    #[test]
    fn listener_without_clients_is_passed_over() {
        let rota = Rota::default();
        let members = joined::<3>(&rota);
        members[1].1.0.set(false);
        rota.accepted(0);
        assert_eq!(accept(&rota, &[0, 2]), 2);
        assert_eq!(accept(&rota, &[0, 2]), 0);
    }

    #[test] // its client may be another process's by now
    fn listener_gives_way_twice_at_most() {
        let rota = Rota::default();
        let _members = joined::<2>(&rota);
        rota.accepted(0);
        assert_eq!([(); 3].map(|()| rota.gives_way(0)), [true, true, false]);
    }

    #[test]
    fn rota_forgets_listeners_that_are_gone() {
        let rota = Rota::default();
        for _ in 0..100 {
            joined::<1>(&rota);
        }
        let [(place, _member)] = joined::<1>(&rota);
        assert_eq!((place, rota.members.borrow().len()), (100, 1));
    }
}
