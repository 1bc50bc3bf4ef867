//! Interned names: of events, aliases and signals.

use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{PoisonError, RwLock};

use rustc_hash::FxHashMap;

/// An interned event, alias or signal name: one pointer wide, compared as a pointer.
///
/// Every call that takes a name takes `impl Into<Name>`, so a string works everywhere. A program that sends one event
/// millions of times may intern its name once and save the look-up.
///
/// A name is kept for the life of the process. Take names from a finite set, never from what a peer sent.
///
/// ```
/// use lenore::Name;
///
/// let tick = Name::new("tick");
/// assert_eq!(tick, Name::from("tick"));
/// assert_eq!(tick.as_str(), "tick");
/// ```
///
/// POE: event names are plain strings there.
#[derive(Clone, Copy)]
pub struct Name(&'static Entry);

/// One interned text; never freed, so that a `Name` can be `Copy` and name itself in an error.
struct Entry {
    /// Dense, in order of interning: what is hashed.
    id: u32,
    text: Box<str>,
}

impl Name {
    /// Interns `text`, or finds it if it was interned before.
    pub fn new(text: &str) -> Name {
        // A literal is found by its address, without hashing it; what stands at an address may change, so it is compared.
        RECENT.with(|recent| {
            let place = &recent[(text.as_ptr().addr() ^ text.len()) % RECENT_NAMES];
            match place.get() {
                Some(name) if name == *text => name,
                _ => {
                    let name = Name::find(text).unwrap_or_else(|| intern(text));
                    place.set(Some(name));
                    name
                }
            }
        })
    }

    /// Returns the name of `text` if it was ever interned, without interning it.
    pub fn find(text: &str) -> Option<Name> {
        NAMES.read().unwrap_or_else(PoisonError::into_inner).get(text).copied()
    }

    /// Returns the text.
    pub fn as_str(self) -> &'static str {
        &self.0.text
    }

    /// Returns what state tables are sorted by; it stays the same for the life of the process, its forked children included.
    pub(crate) fn address(self) -> usize {
        std::ptr::from_ref(self.0).addr()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Hash for Name {
    fn hash<S: Hasher>(&self, state: &mut S) {
        state.write_u32(self.0.id);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name::new(text)
    }
}

impl From<&Name> for Name {
    fn from(name: &Name) -> Name {
        *name
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Name {
        Name::new(text)
    }
}

impl From<String> for Name {
    fn from(text: String) -> Name {
        Name::new(&text)
    }
}

/// An event's name, or `None` for no event. Calls take it where an event may be left out.
///
/// A text, a [`Name`] and `None` convert into it.
///
/// ```
/// use lenore::{EventOrNone, Name};
///
/// assert_eq!(EventOrNone::from("tick").name(), Some(Name::new("tick")));
/// assert_eq!(EventOrNone::from(None).name(), None);
/// ```
///
/// POE: an event's name, or `undef`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventOrNone(Option<Name>);

impl EventOrNone {
    /// Returns the name, if there is one.
    pub fn name(self) -> Option<Name> {
        self.0
    }
}

// The only conversion from an `Option`, so that a plain `None` needs no type.
impl From<Option<Name>> for EventOrNone {
    fn from(event: Option<Name>) -> EventOrNone {
        EventOrNone(event)
    }
}

impl From<Name> for EventOrNone {
    fn from(event: Name) -> EventOrNone {
        EventOrNone(Some(event))
    }
}

impl From<&Name> for EventOrNone {
    fn from(event: &Name) -> EventOrNone {
        EventOrNone(Some(*event))
    }
}

impl From<&str> for EventOrNone {
    fn from(event: &str) -> EventOrNone {
        EventOrNone(Some(event.into()))
    }
}

impl From<&String> for EventOrNone {
    fn from(event: &String) -> EventOrNone {
        EventOrNone(Some(event.into()))
    }
}

impl From<String> for EventOrNone {
    fn from(event: String) -> EventOrNone {
        EventOrNone(Some(event.into()))
    }
}

type Table = FxHashMap<&'static str, Name>;

/// The names of the process. The table is complete at every instant, so a panic elsewhere can't have left it half changed.
static NAMES: RwLock<Table> = RwLock::new(Table::with_hasher(rustc_hash::FxBuildHasher));

/// Names that the library first uses late, many of them in a forked child. They are interned together with the first
/// name of the process. Otherwise each child would intern them again, and so copy the pages of the table that it
/// writes.
const LATE: [&str; 5] = ["DIE", "IDLE", "ReadWrite", "_default", "_stop"];

/// Adds `text` to the names of the process.
#[cold]
fn intern(text: &str) -> Name {
    let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
    if names.is_empty() {
        LATE.into_iter().for_each(|late| _ = add(&mut names, late));
    }
    add(&mut names, text)
}

fn add(names: &mut Table, text: &str) -> Name {
    // Another thread may have been here.
    if let Some(name) = names.get(text) {
        return *name;
    }
    let id = u32::try_from(names.len()).expect("fewer than 2^32 names");
    let entry: &'static Entry = Box::leak(Box::new(Entry { id, text: text.into() }));
    let name = Name(entry);
    names.insert(&entry.text, name);
    name
}

/// How many names are found by the address of their text.
const RECENT_NAMES: usize = 64;

thread_local! {
    /// The name that was last looked up with a text at about this address: the way of a hot path, without the lock.
    static RECENT: [Cell<Option<Name>>; RECENT_NAMES] = const { [const { Cell::new(None) }; RECENT_NAMES] };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_name_on_every_thread() {
        let here = Name::new("same text");
        let there = std::thread::spawn(|| Name::new("same text")).join().expect("no panic");
        assert_eq!(here, there);
        assert_ne!(here, Name::new("other text"));
    }

    #[test]
    fn find_does_not_intern() {
        assert_eq!(Name::find("never interned anywhere"), None);
        assert_eq!(Name::find("never interned anywhere"), None);
        let name = Name::new("interned now");
        assert_eq!(Name::find("interned now"), Some(name));
    }
}
