//! The sockets that the service manager keeps beyond the life of this process. It is told what to keep, so that these are the sockets
//! on which this process listens.
//!
//! The manager knows sockets by name alone. When it lets go of a name, it lets go of all sockets of that name.

/// What the manager keeps, as far as it was told. `K` is what this process knows a socket by.
#[derive(Debug)]
pub(in crate::daemon) struct Store<K> {
    /// `None` for one that this process has closed without having listened on it.
    kept: Vec<(Option<K>, String)>,
    /// Those that this process has not opened, and so need not be given away.
    inherited: Vec<K>,
}

/// A socket on which this process listens.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Listening<K> {
    pub(in crate::daemon) key: K,
    pub(in crate::daemon) name: String,
    pub(in crate::daemon) is_inherited: bool,
}

/// What the manager is to be told next.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Step<K> {
    /// To keep this socket.
    Keep(K, String),
    /// To let go of all that have this name.
    LetGo(String),
}

impl<K> Default for Store<K> {
    fn default() -> Store<K> {
        Store { kept: Vec::new(), inherited: Vec::new() }
    }
}

impl<K: Copy + Eq> Store<K> {
    /// A socket of this name was passed to this process, which has closed it. Not everybody who passes one keeps it here: one whose name
    /// `listening` has as well is left alone.
    pub(in crate::daemon) fn was_left_over(&mut self, name: String, listening: &[Listening<K>]) {
        if name == DEFAULT_NAME || listening.iter().all(|listening| listening.name != name) {
            self.kept.push((None, name));
        }
    }

    /// Returns what the manager is to be told next; `None` if it keeps what this process listens on.
    pub(in crate::daemon) fn next(&mut self, listening: &[Listening<K>]) -> Option<Step<K>> {
        for Listening { key, name, .. } in listening.iter().filter(|listening| listening.is_inherited) {
            if !self.inherited.contains(key) {
                self.inherited.push(*key);
                self.kept.push((Some(*key), name.clone()));
            }
        }
        let is_open = |key: &Option<K>| listening.iter().any(|listening| Some(listening.key) == *key);
        if let Some((_, name)) = self.kept.iter().find(|(key, _)| !is_open(key)) {
            return Some(Step::LetGo(name.clone()));
        }
        let is_kept = |key: K| self.kept.iter().any(|(kept, _)| *kept == Some(key));
        let missing = listening.iter().find(|listening| !is_kept(listening.key))?;
        Some(Step::Keep(missing.key, missing.name.clone()))
    }

    /// The manager was told that.
    pub(in crate::daemon) fn done(&mut self, step: Step<K>) {
        match step {
            Step::Keep(key, name) => self.kept.push((Some(key), name)),
            Step::LetGo(name) => self.kept.retain(|(_, kept)| *kept != name),
        }
    }
}

/// The name of those that have none.
pub(in crate::daemon) const DEFAULT_NAME: &str = "lenore";

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(sockets: &[(u32, &str, bool)]) -> Vec<Listening<u32>> {
        let listening = |(key, name, is_inherited): &(u32, &str, bool)| Listening {
            key: *key,
            name: (*name).to_owned(),
            is_inherited: *is_inherited,
        };
        sockets.iter().map(listening).collect()
    }

    /// Tells the manager all there is to tell.
    fn told(store: &mut Store<u32>, sockets: &[(u32, &str, bool)]) -> Vec<String> {
        let listening = listening(sockets);
        let mut told = Vec::new();
        while let Some(step) = store.next(&listening) {
            told.push(match &step {
                Step::Keep(key, name) => format!("+{name} {key}"),
                Step::LetGo(name) => format!("-{name}"),
            });
            store.done(step);
        }
        told
    }

    #[test] // O-SD-14
    fn manager_keeps_what_is_listened_on_and_no_more() {
        let mut store = Store::default();
        let (a, b) = ((1, "http", false), (2, "lenore", false));
        assert_eq!(told(&mut store, &[a, b]), ["+http 1", "+lenore 2"]);
        assert!(told(&mut store, &[b, a]).is_empty());
        assert_eq!(told(&mut store, &[b]), ["-http"]);
        assert_eq!(told(&mut store, &[b, (3, "http", false)]), ["+http 3"]);
        assert_eq!(told(&mut store, &[]), ["-lenore", "-http"]);
    }

    #[test] // O-SD-14: a name stands for all that have it
    fn others_of_the_name_are_given_again() {
        let mut store = Store::default();
        let (a, b, c) = ((1, "lenore", false), (2, "lenore", false), (3, "lenore", true));
        assert_eq!(told(&mut store, &[a, b, c]), ["+lenore 1", "+lenore 2"]);
        assert_eq!(told(&mut store, &[b, c]), ["-lenore", "+lenore 2", "+lenore 3"]);
    }

    #[test] // O-SD-14: what was passed is kept by whoever has passed it
    fn inherited_sockets_are_not_given_away_and_let_go_when_closed() {
        let mut store = Store::default();
        let (a, b) = ((1, "lenore", true), (2, "http", true));
        assert!(told(&mut store, &[a, b]).is_empty());
        assert_eq!(told(&mut store, &[a]), ["-http"]);
    }

    #[test] // O-SD-14: clients of a socket on which nothing listens any more are not to wait for ever
    fn sockets_that_were_left_over_are_let_go() {
        let mut store = Store::default();
        let sockets = [(1, "lenore", true), (2, "http", true)];
        for name in ["lenore", "http", "old"] {
            store.was_left_over(name.to_owned(), &listening(&sockets));
        }
        assert_eq!(told(&mut store, &sockets), ["-lenore", "-old", "+lenore 1"]);
    }

    #[test] // O-SD-14
    fn what_could_not_be_told_is_told_again() {
        let mut store = Store::default();
        let sockets = listening(&[(1, "http", false)]);
        let first = store.next(&sockets);
        assert_eq!(first, store.next(&sockets));
        assert_eq!(first, Some(Step::Keep(1, "http".to_owned())));
    }
}
