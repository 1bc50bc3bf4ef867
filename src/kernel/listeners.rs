//! Learning that a listener has come or gone, and how a process that is started in place of this one finds it.
//!
//! For a supervisor that has a service manager keep the listeners beyond the life of the process. Other programs pay
//! nothing for it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::core::Core;
use super::queue::Kind;
use super::sessions::SessionId;
use super::source::SourceKey;
use crate::args::Args;
use crate::name::Name;

/// The session that wants to know of listeners.
#[derive(Default)]
pub(super) struct ListenerWatch {
    watcher: Option<(SessionId, Name)>,
    /// The watcher has not looked since it was told.
    is_told: bool,
}

impl ListenerWatch {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.watcher.is_some()
    }

    /// Forgets the watcher, in a forked child.
    pub(super) fn forget(&mut self) {
        *self = ListenerWatch::default();
    }
}

/// How another process finds a listener that was passed to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Findable {
    /// The name by which it is found; `None` if it is found by its address.
    pub(crate) name: Option<Rc<str>>,
    /// The listener was also passed to this process.
    pub(crate) is_inherited: bool,
}

impl Core {
    /// Posts `event` to `session` when a listener of this process has come or gone. It posts no second event until the
    /// session calls [`findable_listeners`](Core::findable_listeners). There is one watcher, the session that asked
    /// last.
    pub(crate) fn watch_listeners(&mut self, session: SessionId, event: &str) {
        self.sources.listener_watch = ListenerWatch { watcher: Some((session, Name::new(event))), is_told: false };
    }

    /// Returns the listeners of this process that another process would find.
    pub(crate) fn findable_listeners(&mut self) -> Vec<(SourceKey, Findable)> {
        self.sources.listener_watch.is_told = false;
        let keys = self.sources.listeners();
        keys.into_iter().filter_map(|key| Some((key, self.sources.source(key)?.known_as()?.findable?))).collect()
    }

    /// Returns another descriptor of a listener.
    ///
    /// # Errors
    ///
    /// `EBADF` if the listener is gone; or the process has no descriptor left.
    pub(crate) fn duplicate_listener(&self, key: SourceKey) -> io::Result<OwnedFd> {
        let gone = || Err(nix::errno::Errno::EBADF.into());
        self.sources.source(key).map_or_else(gone, |source| source.duplicate())
    }

    /// Tells the watcher that a listener has come or is about to go.
    pub(super) fn tell_of_listeners(&mut self) {
        let watch = &mut self.sources.listener_watch;
        if let Some((session, event)) = watch.watcher
            && !std::mem::replace(&mut watch.is_told, true)
            && self.sessions.is_alive(session)
        {
            self.enqueue_from_kernel(session, event, Args::new(), Kind::Post);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use crate::kernel::{Context, Kernel};
    use crate::session::Session;
    use crate::testing::TempDir;
    use crate::wheel::{ListenAccept, SocketFactory};

    #[derive(Default)]
    struct Heap {
        listeners: Vec<SocketFactory>,
        accept: Option<ListenAccept>,
        told: usize,
    }

    fn open(cx: &mut Context<'_, Heap>, address: &str, name: Option<&str>) {
        let mut socket = SocketFactory::tcp(address).on_accept("accept");
        if let Some(name) = name {
            socket = socket.listener_name(name);
        }
        let listener = socket.listen(cx).expect("it can be had");
        cx.heap().listeners.push(listener);
    }

    fn names(cx: &mut Context<'_, Heap>) -> Vec<Option<String>> {
        let mut found = cx.core_mut().findable_listeners();
        found.sort_by_key(|(key, _)| *key);
        assert!(found.iter().all(|(_, findable)| !findable.is_inherited));
        assert!(found.iter().all(|(key, _)| cx.core().duplicate_listener(*key).is_ok()));
        found.into_iter().map(|(_, findable)| findable.name.map(|name| name.to_string())).collect()
    }

    #[test] // O-SD-14: by name or by address, and not one that could not be found
    fn listeners_are_told_by_what_would_find_them_again() {
        let mut kernel = Kernel::new().expect("a kernel");
        let dir = TempDir::new();
        let (path, other) = (dir.path().join("s"), dir.path().join("other"));
        // On an address that nothing else here uses.
        let port = TcpListener::bind("127.7.1.4:0").expect("a port");
        let address = port.local_addr().expect("bound").to_string();
        drop(port);
        Session::new(Heap::default())
            .state("_start", move |cx| {
                let me = cx.session();
                cx.core_mut().watch_listeners(me, "changed");
                // A port that is chosen anew each time is no address, and what is no name in systemd's sense no name.
                open(cx, "127.0.0.1:0", None);
                open(cx, "127.0.0.1:0", Some("http"));
                open(cx, "127.0.0.1:0", Some("a:b"));
                open(cx, &address, None);
                // A path goes with the process.
                let unix = SocketFactory::unix(&path).listener_name("unix").on_accept("accept").listen(cx)?;
                cx.heap().listeners.push(unix);
                // Nothing of it asks for what was passed.
                let given = UnixListener::bind(&other)?;
                let accept = ListenAccept::listener(given).on_accept("accept").start(cx)?;
                cx.heap().accept = Some(accept);
                Ok(())
            })
            .state("changed", |cx| {
                cx.heap().told += 1;
                match cx.heap().told {
                    1 => {
                        assert_eq!(names(cx), [Some("http".to_owned()), None]);
                        drop(cx.heap().listeners.remove(1));
                    }
                    2 => {
                        assert_eq!(names(cx), [None]);
                        cx.heap().listeners.clear();
                        cx.heap().accept = None;
                    }
                    _ => assert!(names(cx).is_empty()),
                }
            })
            .state("_stop", |cx| assert_eq!(cx.heap().told, 3))
            .spawn(&mut kernel)
            .expect("it starts");
        kernel.run().expect("it ends in order");
    }
}
