//! Aliases and extra references: names for sessions, and reasons of the program's own to keep them alive.

use rustc_hash::FxHashMap;

use super::core::{Core, Dest};
use super::sessions::{References, SessionId};
use crate::calls::calls;
use crate::error::Error;
use crate::name::Name;

/// Which session each alias names.
#[derive(Default)]
pub(crate) struct Aliases(FxHashMap<Name, SessionId>);

impl Aliases {
    pub(crate) fn find(&self, alias: &str) -> Option<SessionId> {
        // Not interned for a look-up: what can't be found need not be remembered.
        Name::find(alias).and_then(|name| self.0.get(&name)).copied()
    }

    pub(crate) fn forget(&mut self, alias: Name) {
        self.0.remove(&alias);
    }
}

calls! {
    /// Aliases.
    for a running session, with self:

    /// Gives the running session one more name, which also keeps the session alive.
    ///
    /// A name that the session already has changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::AliasTaken`] if another session has the name; [`Error::NoActiveSession`] once the session has stopped.
    ///
    /// POE: `alias_set`, which returns `EEXIST`.
    pub fn alias_set(&mut self, alias: impl Into<Name>) -> Result<(), Error> {
        let (alias, me) = (alias.into(), self.active.session);
        match self.aliases.0.get(&alias) {
            Some(owner) if *owner == me => return Ok(()),
            Some(owner) => return Err(Error::AliasTaken { alias, owner: *owner }),
            None => {}
        }
        let record = self.sessions.get_mut(me).filter(|record| record.id != SessionId::KERNEL);
        let record = record.ok_or(Error::NoActiveSession)?;
        record.aliases.insert(alias, record.life.hold());
        self.aliases.0.insert(alias, me);
        Ok(())
    }

    /// Removes one of the running session's names.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchAlias`] if no session has the name; [`Error::NotYourAlias`] if another session has it.
    ///
    /// POE: `alias_remove`, which returns `ESRCH` or `EPERM`.
    pub fn alias_remove(&mut self, alias: impl Into<Name>) -> Result<(), Error> {
        let (alias, me) = (alias.into(), self.active.session);
        let owner = *self.aliases.0.get(&alias).ok_or_else(|| Error::NoSuchAlias(alias.to_string()))?;
        if owner != me {
            return Err(Error::NotYourAlias { alias, owner });
        }
        self.aliases.forget(alias);
        if let Some(record) = self.sessions.get_mut(me) {
            record.aliases.remove(alias);
        }
        Ok(())
    }
}

calls! {
    /// Looking sessions up.
    to read a kernel, with self:

    /// Finds the living session behind an id or an alias.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if there is none.
    ///
    /// POE: `alias_resolve`.
    pub fn alias_resolve<'a>(&self, dest: impl Into<Dest<'a>>) -> Result<SessionId, Error> {
        self.resolve(dest)
    }

    /// Lists the aliases of a session, sorted.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if there is no such session.
    ///
    /// POE: `alias_list`.
    pub fn alias_list<'a>(&self, session: impl Into<Dest<'a>>) -> Result<Vec<Name>, Error> {
        let id = self.resolve(session)?;
        let mut aliases: Vec<Name> = self.sessions.get(id).iter().flat_map(|record| record.aliases.keys()).collect();
        aliases.sort_unstable_by_key(|alias| alias.as_str());
        Ok(aliases)
    }
}

calls! {
    /// Extra references.
    for a kernel, with self:

    /// Adds an extra reference to a session under `tag`, and returns how many there are under that tag now.
    ///
    /// The session stays alive, and the program with it, until as many references were taken away as were added.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped.
    ///
    /// POE: `refcount_increment`.
    pub fn refcount_increment(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        let tag = tag.into();
        let record = self.sessions.get_mut(session).filter(|record| record.id != SessionId::KERNEL);
        let record = record.ok_or_else(|| Error::NoSuchSession(session.to_string()))?;
        let count = match record.tags.get_mut(tag) {
            Some(references) => {
                references.count += 1;
                references.count
            }
            None => {
                record.tags.insert(tag, References { count: 1, _hold: record.life.hold() });
                1
            }
        };
        Ok(count + record.references_of_kernel(tag))
    }

    /// Takes an extra reference away from a session, and returns how many are left under `tag`.
    ///
    /// It can't take away the references that postbacks and [`sig_keep_alive`](crate::Context::sig_keep_alive) hold.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped; [`Error::NoSuchTag`] if it holds none under `tag`.
    ///
    /// POE: `refcount_decrement`, which counts below zero instead.
    pub fn refcount_decrement(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        let tag = tag.into();
        let record = self.sessions.get_mut(session).ok_or_else(|| Error::NoSuchSession(session.to_string()))?;
        let references = record.tags.get_mut(tag).ok_or(Error::NoSuchTag { session, tag })?;
        references.count -= 1;
        let left = references.count;
        if left == 0 {
            record.tags.remove(tag);
        }
        Ok(left + record.references_of_kernel(tag))
    }
}
