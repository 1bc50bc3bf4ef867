//! What keeps sessions alive: values that count for as long as they exist.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use super::sessions::SessionId;

/// One reason for a session to stay alive. Dropping the last hold of a session marks it for the next sweep.
///
/// A hold is a part of the value that is the reason: a waiting event, a source, an alias. So the reason and its count
/// end together, whatever drops them: a stop, a panic, the end of the kernel. Only a [`Lifeline`] makes a hold.
#[must_use = "a hold that is dropped keeps nothing alive"]
pub(crate) struct Hold<K: Kind> {
    life: Rc<Life>,
    kind: PhantomData<K>,
}

/// The part of a session's record that makes the holds. It does not keep the session alive itself.
pub(crate) struct Lifeline(Rc<Life>);

/// What the holds of one session share. The strong count is the number of holds, and one more for the [`Lifeline`].
pub(crate) struct Life {
    /// The session. Once the session was removed, the kernel, which can't be marked.
    id: Cell<SessionId>,
    forks: Cell<u32>,
    postbacks: Cell<u32>,
    /// The holds keep only the session alive, and not the program.
    is_background: Cell<bool>,
    ledger: Rc<Ledger>,
}

/// What the holds of all sessions share.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The sessions that had no hold left at some moment, the latest last. A session may be there more than once.
    marks: RefCell<Vec<SessionId>>,
    /// There are marks that no sweep has seen.
    has_new_marks: Cell<bool>,
    /// How many holds there are of the kinds that are [`AWAITED`](Kind::AWAITED), those on background sessions not counted.
    awaited: Cell<usize>,
    /// How many events wait for background sessions.
    background_events: Cell<usize>,
}

/// What a hold is for.
pub(crate) trait Kind {
    /// Its name in the trace.
    const NAME: &'static str;

    /// A program with such a hold is not idle: something may happen that the kernel can't foresee.
    const AWAITED: bool = false;

    /// The hold is a part of an event that waits in the queue for the session.
    const IS_QUEUED: bool = false;

    /// Where the holds of this kind on one session are counted, if their number matters. Holds that outlive the session
    /// are not counted: [`Lifeline::end`] has emptied the counter.
    fn counter(_: &Life) -> Option<&Cell<u32>> {
        None
    }
}

/// An event to the session, be it posted, an alarm or a signal.
pub(crate) enum EventTo {}
/// An event from the session to another one.
pub(crate) enum EventFrom {}
/// A source that the session owns, or a descriptor that it watches.
pub(crate) enum Handle {}
pub(crate) enum Alias {}
pub(crate) enum Child {}
/// The extra references under one tag.
pub(crate) enum Tag {}
/// A postback or a callback that is not dropped; shown as an extra reference.
pub(crate) enum Postback {}
/// A signal that the session waits for; shown as an extra reference.
pub(crate) enum Signal {}
/// A `sig_child` registration.
pub(crate) enum ChildProcess {}
/// A request for a fork.
pub(crate) enum Fork {}

impl Kind for EventTo {
    const NAME: &'static str = "EventTo";
    const IS_QUEUED: bool = true;
}

impl Kind for EventFrom {
    const NAME: &'static str = "EventFrom";
}

impl Kind for Handle {
    const NAME: &'static str = "Handle";
    const AWAITED: bool = true;
}

impl Kind for Alias {
    const NAME: &'static str = "Alias";
}

impl Kind for Child {
    const NAME: &'static str = "Child";
}

impl Kind for Tag {
    const NAME: &'static str = "Tag";
    const AWAITED: bool = true;
}

impl Kind for Postback {
    const NAME: &'static str = "Postback";
    const AWAITED: bool = true;

    fn counter(life: &Life) -> Option<&Cell<u32>> {
        Some(&life.postbacks)
    }
}

impl Kind for Signal {
    const NAME: &'static str = "Signal";
    const AWAITED: bool = true;
}

impl Kind for ChildProcess {
    const NAME: &'static str = "ChildProcess";
}

impl Kind for Fork {
    const NAME: &'static str = "Fork";

    fn counter(life: &Life) -> Option<&Cell<u32>> {
        Some(&life.forks)
    }
}

impl Lifeline {
    pub(crate) fn new(id: SessionId, ledger: &Rc<Ledger>) -> Lifeline {
        let (forks, postbacks, is_background) = (Cell::new(0), Cell::new(0), Cell::new(false));
        Lifeline(Rc::new(Life { id: Cell::new(id), forks, postbacks, is_background, ledger: Rc::clone(ledger) }))
    }

    /// Reuses the lifeline for another session, which saves an allocation. Returns `None` while a hold on the former
    /// session is left.
    pub(crate) fn renew(mut self, id: SessionId) -> Option<Lifeline> {
        let life = Rc::get_mut(&mut self.0)?;
        life.id = Cell::new(id);
        life.is_background = Cell::new(false);
        Some(self)
    }

    /// Makes the holds keep only the session alive, and not the program. To be called before the first hold is made.
    pub(crate) fn make_background(&self) {
        debug_assert_eq!(self.holds(), 0, "what is held already is counted");
        self.0.is_background.set(true);
    }

    fn is_background(&self) -> bool {
        self.0.is_background.get()
    }

    /// Makes one more reason to stay alive.
    #[inline]
    pub(crate) fn hold<K: Kind>(&self) -> Hold<K> {
        let life = Rc::clone(&self.0);
        if let Some(count) = K::counter(&life) {
            count.set(count.get() + 1);
        }
        if K::AWAITED && !life.is_background.get() {
            life.ledger.awaited.set(life.ledger.awaited.get() + 1);
        }
        if K::IS_QUEUED && life.is_background.get() {
            life.ledger.background_events.set(life.ledger.background_events.get() + 1);
        }
        life.trace("held", K::NAME, "in all", Rc::strong_count(&life) - 1);
        Hold { life, kind: PhantomData }
    }

    /// Returns how many holds there are.
    #[inline]
    pub(crate) fn holds(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }

    /// Returns how many holds of one kind there are.
    pub(crate) fn holds_for<K: Kind>(&self) -> u32 {
        K::counter(&self.0).map_or(0, Cell::get)
    }

    /// Notes that the session was removed: it can't be marked, and postbacks that outlive it keep no program from being
    /// idle.
    pub(crate) fn end(&self) {
        let Life { id, postbacks, ledger, .. } = &*self.0;
        id.set(SessionId::KERNEL);
        let postbacks = postbacks.take() as usize;
        if !self.is_background() {
            ledger.awaited.set(ledger.awaited.get() - postbacks);
        }
    }
}

impl<K: Kind> Hold<K> {
    /// Returns the session that it keeps alive, or the kernel if that has been removed.
    #[inline]
    pub(crate) fn id(&self) -> SessionId {
        self.life.id.get()
    }
}

impl<K: Kind> Drop for Hold<K> {
    #[inline]
    fn drop(&mut self) {
        let life = &*self.life;
        let is_counted = K::counter(life).is_none_or(|count| {
            let before = count.get();
            count.set(before.saturating_sub(1));
            before > 0
        });
        if K::AWAITED && is_counted && !life.is_background.get() {
            life.ledger.awaited.set(life.ledger.awaited.get() - 1);
        }
        if K::IS_QUEUED && life.is_background.get() {
            life.ledger.background_events.set(life.ledger.background_events.get() - 1);
        }
        // The count still has this hold, and the lifeline unless the session was removed.
        let count = Rc::strong_count(&self.life);
        life.trace("released", K::NAME, "left", count.saturating_sub(2));
        if count == 2 {
            life.mark();
        }
    }
}

impl Life {
    // Not inlined: otherwise dropping a hold that is not the last would be slower.
    #[cold]
    #[inline(never)]
    fn mark(&self) {
        self.ledger.mark(self.id.get());
    }

    #[inline]
    fn trace(&self, what: &str, kind: &str, unit: &str, count: usize) {
        if log::log_enabled!(target: "lenore::refcounts", log::Level::Trace) {
            self.write_trace(what, kind, unit, count);
        }
    }

    #[cold]
    fn write_trace(&self, what: &str, kind: &str, unit: &str, count: usize) {
        let id = self.id.get();
        if id != SessionId::KERNEL {
            log::trace!(target: "lenore::refcounts", "{id} is {what}: {kind}, {count} {unit}");
        }
    }
}

impl Ledger {
    /// Marks a session that may have no hold left. The sweep looks whether it has.
    #[inline]
    pub(crate) fn mark(&self, id: SessionId) {
        if id != SessionId::KERNEL {
            self.marks.borrow_mut().push(id);
            self.has_new_marks.set(true);
        }
    }

    /// Takes the latest mark.
    pub(crate) fn take_mark(&self) -> Option<SessionId> {
        self.marks.borrow_mut().pop()
    }

    /// Tells whether a sweep would look at any session.
    #[inline]
    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.borrow().is_empty()
    }

    /// Tells whether a session was marked since the last sweep.
    pub(crate) fn has_new_marks(&self) -> bool {
        self.has_new_marks.get()
    }

    /// Notes that the marks that are left are for the sweep of an outer slice.
    pub(crate) fn sweep_is_over(&self) {
        self.has_new_marks.set(false);
    }

    /// Tells whether there are holds of the kinds that keep a program from being idle.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.get() > 0
    }

    /// Returns how many of the events in the queue are for background sessions.
    pub(crate) fn background_events(&self) -> usize {
        self.background_events.get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sessions::Sessions;
    use super::*;

    fn take_marks(ledger: &Ledger) -> Vec<SessionId> {
        std::iter::from_fn(|| ledger.take_mark()).collect()
    }

    #[test] // and those of which IDLE waits count, whichever sessions they are on, until they are dropped
    fn the_last_hold_marks_its_session() {
        let mut sessions = Sessions::new();
        let id = sessions.create(SessionId::KERNEL, "()").expect("there are few sessions");
        let (alias, handle): (Option<Hold<Alias>>, Option<Hold<Handle>>) = (sessions.hold(id), sessions.hold(id));
        let kernels: Option<Hold<Handle>> = sessions.hold(SessionId::KERNEL);
        drop(handle);
        assert!(sessions.is_held(id) && sessions.ledger.is_awaited() && !sessions.ledger.has_marks());
        drop(kernels);
        assert!(!sessions.ledger.is_awaited() && !sessions.ledger.has_marks(), "the kernel is never marked");
        drop(alias);
        assert!(!sessions.is_held(id) && sessions.ledger.has_new_marks());
        assert_eq!(take_marks(&sessions.ledger), [id]);
    }

    #[test] // the next session in its slot is neither marked by them nor held
    fn holds_on_a_removed_session_are_nobodys() {
        let mut sessions = Sessions::new();
        let create = |sessions: &mut Sessions| sessions.create(SessionId::KERNEL, "()").expect("few sessions");
        let first = create(&mut sessions);
        let late: Vec<Hold<Postback>> = (0..3).filter_map(|_| sessions.hold(first)).collect();
        let record = sessions.remove(first).expect("it lives");
        sessions.recycle(record.life);
        sessions.free_slot(first.slot());
        let second = create(&mut sessions);
        assert_eq!(second.slot(), first.slot());
        assert!(!sessions.ledger.is_awaited() && !sessions.is_held(second));
        let handle: Option<Hold<Handle>> = sessions.hold(second);
        assert!(late.iter().all(|hold| hold.id() == SessionId::KERNEL));
        assert!(sessions.hold::<Alias>(first).is_none(), "what has stopped is not held");
        drop(late);
        assert!(sessions.ledger.is_awaited() && sessions.is_held(second));
        assert_eq!(take_marks(&sessions.ledger), []);
        drop(handle);
        assert!(!sessions.ledger.is_awaited());
        assert_eq!(take_marks(&sessions.ledger), [second]);
    }

    #[test]
    fn what_a_removed_session_has_left_serves_the_next_one() {
        let ledger = Rc::default();
        let mut sessions = Sessions::new();
        let id = sessions.create(SessionId::KERNEL, "()").expect("there are few sessions");
        let life = Lifeline::new(SessionId::KERNEL, &ledger).renew(id).expect("nothing holds the former one");
        let hold = life.hold::<Fork>();
        assert_eq!((hold.id(), life.holds(), life.holds_for::<Fork>()), (id, 1, 1));
        assert!(life.renew(id).is_none(), "the former one is held");
    }
}
