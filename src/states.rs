//! The table of a session's states.

use std::rc::Rc;

use crate::destroy::destroy;
use crate::name::Name;
use crate::reply::Reply;
use crate::session::Handler;

/// States by name. Sessions of one kind share a table. A session that changes its states changes a copy.
///
/// Sorted by the address of the name, so that a search reads nothing but this table.
#[derive(Clone)]
pub(crate) struct States(Rc<[(Name, Handler)]>);

impl States {
    /// Makes a table. Of states with one name the last one counts.
    pub(crate) fn new(mut states: Vec<(Name, Handler)>) -> States {
        states.sort_by_key(|(name, _)| name.address());
        states.dedup_by(|later, earlier| {
            let is_same = later.0 == earlier.0;
            if is_same {
                destroy(std::mem::replace(&mut earlier.1, later.1.clone()));
            }
            is_same
        });
        States(states.into())
    }

    #[inline]
    pub(crate) fn find(&self, name: Name) -> Option<&Handler> {
        // A processor guesses its way through a short table, but has to wait for each step of a binary search.
        if self.0.len() <= SHORT_TABLE {
            return self.0.iter().find(|(state, _)| *state == name).map(|(_, handler)| handler);
        }
        self.place(name).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn insert(&mut self, name: Name, handler: Handler) {
        let place = self.place(name);
        if let (Ok(place), Some(states)) = (place, Rc::get_mut(&mut self.0)) {
            states[place].1 = handler;
            return;
        }
        let mut states = self.0.to_vec();
        match place {
            Ok(place) => states[place].1 = handler,
            Err(place) => states.insert(place, (name, handler)),
        }
        self.0 = states.into();
    }

    pub(crate) fn remove(&mut self, name: Name) {
        if let Ok(place) = self.place(name) {
            let mut states = self.0.to_vec();
            states.remove(place);
            self.0 = states.into();
        }
    }

    fn place(&self, name: Name) -> Result<usize, usize> {
        self.0.binary_search_by_key(&name.address(), |(state, _)| state.address())
    }

    /// Drops the table. The last session that shares it drops its states one by one: if two of them panicked within one
    /// drop, the second panic would abort the process.
    pub(crate) fn destroy(mut self) {
        self.destroy_states();
        drop(self.0);
    }

    /// Does what [`destroy`](States::destroy) does in a process that is about to exit, and leaves the memory to the
    /// system.
    pub(crate) fn abandon(mut self) {
        self.destroy_states();
        std::mem::forget(self.0);
    }

    fn destroy_states(&mut self) {
        let states = Rc::get_mut(&mut self.0).into_iter().flatten().map(|(_, handler)| handler);
        let captured = states.filter(|handler| matches!(handler, Handler::Shared(_)));
        captured.for_each(|handler| destroy(std::mem::replace(handler, Handler::Code(&|_, _| Ok(Reply::NoValue)))));
    }
}

/// How many states are looked through one by one.
const SHORT_TABLE: usize = 16;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts itself when it is dropped, and panics.
    struct Loud(Rc<Cell<u32>>);

    impl Drop for Loud {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            panic!("a captured value");
        }
    }

    fn loud(count: &Rc<Cell<u32>>) -> Handler {
        let loud = Loud(Rc::clone(count));
        Handler::new(move |_, _| {
            let _ = &loud;
            Ok(Reply::NoValue)
        })
    }

    #[test] // a copy that was changed is another table; the first one stays as it was, and goes with its last owner
    fn table_is_shared_until_it_is_changed_and_its_states_drop_one_by_one() {
        let count = Rc::default();
        let [one, two, three] = ["one", "two", "three"].map(Name::new);
        let first = States::new(vec![(one, loud(&count)), (two, loud(&count))]);
        let shared = first.clone();
        let mut other = first.clone();
        assert!(Rc::ptr_eq(&first.0, &shared.0));
        other.remove(one);
        other.insert(three, loud(&count));
        assert!(other.find(one).is_none() && other.find(two).is_some() && other.find(three).is_some());
        assert!(first.find(one).is_some() && first.find(three).is_none());
        first.destroy();
        assert_eq!(count.get(), 0, "another session has it");
        shared.destroy();
        assert_eq!(count.get(), 1, "the changed copy has the second one");
        other.destroy();
        assert_eq!(count.get(), 3);
    }

    #[test]
    fn last_of_one_name_counts_and_long_tables_are_searched() {
        let count = Rc::new(Cell::new(0));
        let quiet = || -> Handler { Handler::new(|_, _| Ok(Reply::NoValue)) };
        let names: Vec<Name> = (0..100).map(|number| Name::from(format!("state {number}"))).collect();
        let mut list: Vec<(Name, Handler)> = names.iter().map(|name| (*name, quiet())).collect();
        list.insert(0, (names[7], loud(&count)));
        let table = States::new(list);
        assert_eq!(count.get(), 1, "the first of two is gone");
        assert!(names.iter().all(|name| table.find(*name).is_some()));
        assert!(table.find(Name::new("none of them")).is_none());
        table.destroy();
    }
}
