//! Where wheels and postbacks leave requests for the kernel.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::Location;
use std::time::Instant;

use super::holds::{Hold, Postback};
use super::sessions::SessionId;
use super::source::SourceKey;
use crate::args::Args;
use crate::destroy::{destroy, destroy_all};
use crate::name::Name;

/// Where wheels and postbacks leave requests. They can't call the kernel, because they are used while the heap that
/// holds them is borrowed.
#[derive(Default)]
pub(crate) struct Mailbox {
    touched: RefCell<Touched>,
    /// Something is in `touched`.
    has_touched: Cell<bool>,
    /// There is a [`Touch::Drop`] among it.
    has_drops: Cell<bool>,
    /// The events that postbacks have posted, and the holds of dropped postbacks. Such a hold lasts until the events
    /// that its postback posted are in the queue.
    pub(super) postings: RefCell<Vec<Posting>>,
    pub(super) released: RefCell<Vec<Hold<Postback>>>,
    /// One of the last two has something in it.
    pub(super) has_postings: Cell<bool>,
    /// The kernel is gone.
    is_closed: Cell<bool>,
}

/// What a wheel asks the kernel to do with its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    /// The wheel was dropped: close the source before the next event.
    Drop = 1,
    /// Something was put: flush the source once the running state has returned.
    Flush = 2,
    /// Give the source a turn that no readiness will announce.
    Wake = 4,
    /// The source wants other readiness than before, or keeps its owner alive in another way.
    Change = 8,
}

/// What was asked for one source since the kernel last looked.
#[derive(Clone, Copy, Default)]
pub(super) struct Touches(u8);

impl Touches {
    #[inline]
    pub(super) fn has(self, touch: Touch) -> bool {
        self.0 & touch as u8 != 0
    }

    #[inline]
    pub(super) fn is_flush_alone(self) -> bool {
        self.0 == Touch::Flush as u8
    }
}

#[derive(Default)]
struct Touched {
    /// The sources that were touched, in the order of their first touch.
    list: VecDeque<SourceKey>,
    /// By the source's place in the table.
    places: Vec<Place>,
}

/// The generation of the source that has the place, and in the lowest bits what was asked for it.
#[derive(Clone, Copy, Default)]
struct Place(u64);

impl Place {
    fn of(key: SourceKey) -> Place {
        Place(key.generation() << TOUCH_BITS)
    }

    #[inline]
    fn generation(self) -> u64 {
        self.0 >> TOUCH_BITS
    }

    #[inline]
    fn touches(self) -> Touches {
        Touches(self.0 as u8 & ((1 << TOUCH_BITS) - 1))
    }

    #[inline]
    fn add(&mut self, touch: Touch) {
        self.0 |= touch as u64;
    }

    #[inline]
    fn take(&mut self) -> Touches {
        let touches = self.touches();
        self.0 &= !((1 << TOUCH_BITS) - 1);
        touches
    }
}

/// How many kinds of [`Touch`] there are.
const TOUCH_BITS: u32 = 4;

/// An event from a postback, on its way to the queue.
pub(crate) struct Posting {
    pub(super) dest: SessionId,
    pub(super) event: Name,
    pub(super) args: Args,
    pub(super) location: &'static Location<'static>,
    /// When it was posted: its place is behind the alarms that were due by then.
    pub(super) at: Instant,
}

impl Mailbox {
    /// Makes room for a source that is added.
    pub(super) fn admit(&self, key: SourceKey) {
        let places = &mut self.touched.borrow_mut().places;
        let place = key.index();
        if place >= places.len() {
            places.resize(place + 1, Place::default());
        }
        places[place] = Place::of(key);
    }

    pub(crate) fn flush(&self, key: SourceKey) {
        self.touch(key, Touch::Flush);
    }

    pub(crate) fn dropped(&self, key: SourceKey) {
        self.touch(key, Touch::Drop);
        self.has_drops.set(self.has_touched.get());
    }

    pub(crate) fn changed(&self, key: SourceKey) {
        self.touch(key, Touch::Change);
    }

    pub(crate) fn woken(&self, key: SourceKey) {
        self.touch(key, Touch::Wake);
    }

    /// Notes what is asked for a source. For a source that is gone this does nothing.
    fn touch(&self, key: SourceKey, touch: Touch) {
        let Touched { list, places } = &mut *self.touched.borrow_mut();
        let place = places.get_mut(key.index()).filter(|place| place.generation() == key.generation());
        let Some(place) = place else { return };
        if place.touches().0 == 0 {
            list.push_back(key);
            self.has_touched.set(true);
        }
        place.add(touch);
    }

    /// Tells whether a source has asked for this since the kernel last looked.
    pub(super) fn has(&self, key: SourceKey, touch: Touch) -> bool {
        let places = &self.touched.borrow().places;
        let is_it = |place: &Place| place.generation() == key.generation() && place.touches().has(touch);
        places.get(key.index()).is_some_and(is_it)
    }

    #[inline]
    pub(super) fn has_touched(&self) -> bool {
        self.has_touched.get()
    }

    #[inline]
    pub(super) fn has_drops(&self) -> bool {
        self.has_drops.get()
    }

    /// Returns how many sources were touched.
    pub(super) fn touched(&self) -> usize {
        self.touched.borrow().list.len()
    }

    /// Takes the source that was touched first, with all that was asked for it.
    #[inline]
    pub(super) fn take_first(&self) -> Option<(SourceKey, Touches)> {
        let Touched { list, places } = &mut *self.touched.borrow_mut();
        let key = list.pop_front()?;
        if list.is_empty() {
            self.has_touched.set(false);
            self.has_drops.set(false);
        }
        // Another source may have its place by now.
        let place = places.get_mut(key.index()).filter(|place| place.generation() == key.generation());
        Some((key, place.map(Place::take).unwrap_or_default()))
    }

    /// Forgets what was asked. Returns the sources that were dropped.
    pub(super) fn forget_touches(&self) -> Vec<SourceKey> {
        self.has_touched.set(false);
        self.has_drops.set(false);
        let Touched { list, places } = &mut *self.touched.borrow_mut();
        list.clear();
        let mut dropped = Vec::new();
        for (index, place) in places.iter_mut().enumerate() {
            if place.take().has(Touch::Drop) {
                dropped.extend(SourceKey::new(index, place.generation()));
            }
        }
        dropped
    }

    /// Drops the events of postbacks, now and later. An event whose arguments hold a postback would otherwise keep the
    /// mailbox, and so itself, alive for ever.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        destroy_all(self.postings.take());
    }

    pub(super) fn posted(&self, posting: Posting) {
        if self.is_closed.get() {
            return destroy(posting);
        }
        self.postings.borrow_mut().push(posting);
        self.has_postings.set(true);
    }

    pub(super) fn released(&self, hold: Hold<Postback>) {
        self.released.borrow_mut().push(hold);
        self.has_postings.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_source_leaves_no_word_for_a_later_one_in_its_place() {
        let mailbox = Mailbox::default();
        let closed = SourceKey::new(0, 1).expect("a small key");
        // Generations began anew after 2^31 once.
        for generation in [2, (1 << 31) + 1, (1 << 32) + 1, (1 << 40) - 1] {
            let key = SourceKey::new(0, generation).expect("a key");
            mailbox.admit(key);
            mailbox.dropped(closed);
            assert!(!mailbox.has_drops());
            mailbox.flush(key);
            assert_eq!(
                mailbox.take_first().map(|(first, touches)| (first, touches.is_flush_alone())),
                Some((key, true))
            );
        }
        assert_eq!(SourceKey::new(0, 1 << 40), None, "what comes after the last generation is refused");
    }
}
