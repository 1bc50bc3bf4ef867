//! Learning that a client waits at a listener which this process has paused.
//!
//! A process that does not accept takes its listeners out of the poller, so that the system wakes another process for
//! each connection. The parent of a pool has to know of a client if no other process is free to accept it. The parent
//! asks here, once for each answer. While it does not ask, connections cost it nothing. The number of waiting clients
//! can be read at any time.

use std::rc::Rc;

#[cfg(feature = "control")]
use nix::sys::socket::{SockaddrStorage, getsockname};

use super::core::Core;
use super::queue::Kind;
use super::sessions::SessionId;
use super::source::{Source, SourceKey};
use super::sources::Sources;
use crate::args::Args;
use crate::name::Name;
use crate::sys::accept_queue::AcceptQueue;

/// The sessions that have asked, each with its event.
#[derive(Default)]
pub(super) struct Backlog {
    askers: Vec<(SessionId, Name)>,
    /// The poller has reported a client since the last answer.
    is_found: bool,
}

impl Backlog {
    pub(super) fn is_awaited(&self) -> bool {
        !self.askers.is_empty()
    }

    /// Forgets all questions, in a forked child.
    pub(super) fn forget_all(&mut self) {
        *self = Backlog::default();
    }
}

/// The queues of several listeners.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queues {
    /// How many clients wait in them.
    pub(crate) waiting: u32,
    /// How many may wait, as the system says.
    pub(crate) limit: u32,
    /// A queue that takes no more clients, if there is one.
    pub(crate) full: Option<AcceptQueue>,
}

impl Sources {
    /// Takes a report of the poller if it is about a paused listener.
    pub(super) fn takes_for_backlog(&mut self, key: SourceKey) -> bool {
        let is_ours = self.backlog.is_awaited() && self.is_registered_for_backlog(key);
        self.backlog.is_found |= is_ours;
        is_ours
    }

    /// Has the registration of the paused listeners reviewed before the next poll, because whether they are watched has
    /// changed.
    fn backlog_changed(&mut self) {
        let listeners = self.listeners();
        self.stale_all(listeners);
    }
}

impl Core {
    /// Posts `event` to `session`, once, when a client waits at a paused listener of this process, or at once if a
    /// client waits already. It may be a listener of any session: in a program with several servers, one server may be
    /// told of another's client.
    pub(crate) fn await_backlog(&mut self, session: SessionId, event: &str) {
        let backlog = &mut self.sources.backlog;
        let asker = (session, Name::new(event));
        if !backlog.askers.contains(&asker) {
            backlog.askers.push(asker);
        }
        // The poller reports a client once. If an earlier asker got that report, a later asker needs a new one.
        self.sources.deregister_backlog();
        self.sources.backlog_changed();
    }

    /// Tells whether a client waits at a paused listener of this process now.
    pub(crate) fn has_backlog(&self) -> bool {
        let has_client = |source: Rc<dyn Source>| source.wanted().is_none() && source.has_client();
        self.sources.listeners().into_iter().filter_map(|key| self.sources.source(key)).any(has_client)
    }

    /// Reads the queues of the paused listeners of this process, those of `owner` only if there is one. `None` if there is no
    /// such listener, or if this system does not tell of each of them.
    ///
    /// For a supervisor whose children accept on these listeners, while the supervisor itself has paused them.
    pub(crate) fn read_queues(&self, owner: Option<SessionId>) -> Option<Queues> {
        let mut queues = Queues { waiting: 0, limit: 0, full: None };
        let mut is_any = false;
        for key in self.sources.listeners() {
            let is_meant = owner.is_none_or(|owner| self.sources.owner(key) == Some(owner));
            let Some(source) = self.sources.source(key).filter(|source| is_meant && source.wanted().is_none()) else {
                continue;
            };
            let queue = source.queue().ok()?;
            is_any = true;
            queues.waiting = queues.waiting.saturating_add(queue.waiting);
            queues.limit = queues.limit.saturating_add(queue.limit);
            // The system lets in one client more than the limit.
            queues.full = queues.full.or((queue.waiting > queue.limit).then_some(queue));
        }
        is_any.then_some(queues)
    }

    /// Describes the listeners of `owner`, or, without an `owner`, all listeners of this process except those of the
    /// session `except`. With `paused`, describes only those that this process has paused.
    #[cfg(feature = "control")]
    pub(crate) fn describe_listeners(
        &self,
        owner: Option<SessionId>,
        except: SessionId,
        paused: bool,
    ) -> Vec<(String, nix::Result<AcceptQueue>)> {
        let mut listeners = Vec::new();
        for key in self.sources.listeners() {
            let whose = self.sources.owner(key);
            let Some(source) = self.sources.source(key) else { continue };
            // A descriptor that sessions watch belongs to the kernel, whoever they are.
            let watched = self.sources.watched_by.get(&except);
            let is_watched = || watched.is_some_and(|fds| fds.keys().any(|fd| fd == source.fd()));
            let is_meant = if owner.is_some() { whose == owner } else { whose != Some(except) && !is_watched() };
            if is_meant && (!paused || source.wanted().is_none()) {
                let address = getsockname::<SockaddrStorage>(source.fd());
                listeners.push((
                    address.map_or_else(|errno| errno.to_string(), |address| address.to_string()),
                    source.queue(),
                ));
            }
        }
        listeners
    }

    /// Withdraws the question of an [`await_backlog`](crate::Context::await_backlog).
    pub(crate) fn forget_backlog(&mut self, session: SessionId, event: &str) {
        let asker = (session, Name::new(event));
        self.sources.backlog.askers.retain(|other| *other != asker);
        self.sources.backlog_changed();
    }

    /// Posts the events if the poller has reported a client.
    pub(super) fn tell_of_backlog(&mut self) {
        if !std::mem::take(&mut self.sources.backlog.is_found) {
            return;
        }
        for (session, event) in std::mem::take(&mut self.sources.backlog.askers) {
            if self.sessions.is_alive(session) {
                self.enqueue_from_kernel(session, event, Args::new(), Kind::Post);
            }
        }
        self.sources.backlog_changed();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;
    #[cfg(target_os = "linux")]
    use std::time::Instant;

    use crate::kernel::{Context, Kernel};
    #[cfg(target_os = "linux")]
    use crate::kernel::{Core, SessionId};
    use crate::session::Session;
    use crate::wheel::SocketFactory;

    /// What one session sees of its paused listener, and what its states do in that order.
    #[derive(Default)]
    struct Heap {
        listener: Option<SocketFactory>,
        clients: Vec<TcpStream>,
        seen: Vec<&'static str>,
    }

    fn address(heap: &Heap) -> SocketAddr {
        heap.listener.as_ref().expect("it listens").local_addr().expect("it has an address")
    }

    fn connect(heap: &mut Heap) {
        let client = TcpStream::connect(address(heap)).expect("the system accepts");
        heap.clients.push(client);
    }

    /// Reads until so many clients wait: the system has connected them a moment before they stand in the queue.
    #[cfg(target_os = "linux")]
    fn waiting(core: &Core, owner: Option<SessionId>, expected: u32) -> bool {
        let give_up = Instant::now() + Duration::from_secs(10);
        while Instant::now() < give_up {
            if core.read_queues(owner).map(|queues| queues.waiting) == Some(expected) {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[cfg(target_os = "linux")]
    #[test] // O-DM-09: the sum over the paused listeners, or those of one session
    fn clients_at_all_paused_listeners_are_counted() {
        let mut kernel = Kernel::new().expect("a kernel");
        let listen = |kernel: &mut Kernel, clients: usize| {
            Session::new(Heap::default())
                .state("_start", move |cx| {
                    let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
                    listener.pause_accept();
                    cx.heap().listener = Some(listener);
                    (0..clients).for_each(|_| connect(cx.heap()));
                    Ok(())
                })
                .state("accept_all", |cx| cx.heap().listener.iter().for_each(SocketFactory::resume_accept))
                .state("close", |cx| cx.heap().listener = None)
                .spawn(kernel)
                .expect("it starts")
        };
        assert!(kernel.core.read_queues(None).is_none(), "there is none");
        let (two, three) = (listen(&mut kernel, 2), listen(&mut kernel, 3));
        assert!(waiting(&kernel.core, None, 5));
        assert!(waiting(&kernel.core, Some(two), 2));
        assert!(waiting(&kernel.core, Some(three), 3));
        assert!(kernel.core.read_queues(None).is_some_and(|queues| queues.limit > 5 && queues.full.is_none()));
        // The queue of a listener on which this process accepts does not count.
        kernel.call(two, "accept_all", ()).expect("it is there");
        assert!(kernel.core.read_queues(Some(two)).is_none());
        assert!(waiting(&kernel.core, None, 3));
        for session in [two, three] {
            kernel.call(session, "close", ()).expect("it is there");
        }
        kernel.run().expect("it ends in order");
    }

    #[cfg(all(target_os = "linux", feature = "control"))]
    #[test] // O-ST-07: IPv4, IPv6 and UNIX, each with its name, its depth and its limit
    fn listeners_of_each_kind_are_described() {
        use std::os::unix::net::UnixStream;
        let mut kernel = Kernel::new().expect("a kernel");
        let path = std::env::temp_dir().join(format!("lenore-listeners-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let of_session = path.clone();
        let listeners = Session::new(Vec::<SocketFactory>::new())
            .state("_start", move |cx| {
                for socket in
                    [SocketFactory::tcp("127.0.0.1:0"), SocketFactory::tcp("[::1]:0"), SocketFactory::unix(&of_session)]
                {
                    let listener = socket.on_accept("accept").listen(cx)?;
                    listener.pause_accept();
                    cx.heap().push(listener);
                }
                Ok(())
            })
            .state("resume", |cx| cx.heap()[0].resume_accept())
            .state("close", |cx| cx.heap().clear())
            .spawn(&mut kernel)
            .expect("it starts");
        let names = |kernel: &Kernel| {
            let described = kernel.core.describe_listeners(None, SessionId::KERNEL, true);
            described.into_iter().map(|(name, _)| name).collect::<Vec<String>>()
        };
        let addresses: Vec<SocketAddr> = names(&kernel).iter().filter_map(|name| name.parse().ok()).collect();
        assert!(addresses.len() == 2 && addresses[0].is_ipv4() && addresses[1].is_ipv6(), "{:?}", names(&kernel));
        assert_eq!(names(&kernel)[2], path.to_str().expect("it is text"));
        let _tcp = addresses.iter().map(|address| TcpStream::connect(address).expect("room")).collect::<Vec<_>>();
        let _unix = [UnixStream::connect(&path).expect("room"), UnixStream::connect(&path).expect("room")];
        assert!(waiting(&kernel.core, Some(listeners), 4));
        let described = kernel.core.describe_listeners(None, SessionId::KERNEL, true);
        let queues: Vec<_> = described.iter().map(|(_, queue)| queue.expect("the system tells")).collect();
        assert_eq!(queues.iter().map(|queue| queue.waiting).collect::<Vec<_>>(), [1, 1, 2]);
        assert!(queues.iter().all(|queue| queue.limit > 2), "{queues:?}");
        assert!(kernel.core.describe_listeners(None, listeners, true).is_empty(), "those are left out");
        kernel.call(listeners, "resume", ()).expect("it is there");
        assert_eq!(kernel.core.describe_listeners(Some(listeners), SessionId::KERNEL, true).len(), 2);
        assert_eq!(kernel.core.describe_listeners(Some(listeners), SessionId::KERNEL, false).len(), 3);
        kernel.call(listeners, "close", ()).expect("it is there");
        kernel.run().expect("it ends in order");
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test] // one answer to each question, whether the client comes before it or after; none when nobody asks
    fn a_client_is_told_of_once_for_each_question() {
        let mut kernel = Kernel::new().expect("a kernel");
        Session::new(Heap::default())
            .state("_start", |cx| {
                let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
                listener.pause_accept();
                cx.heap().listener = Some(listener);
                let me = cx.session();
                assert!(!cx.core().has_backlog());
                cx.core_mut().await_backlog(me, "first");
                cx.delay("come", Duration::from_millis(1), ());
                Ok(())
            })
            .state("come", |cx| connect(cx.heap()))
            .state("first", |cx| {
                cx.heap().seen.push("first");
                assert!(cx.core().has_backlog());
                // No session has asked about this client.
                connect(cx.heap());
                cx.delay("ask", Duration::from_millis(20), ());
            })
            .state("ask", |cx| {
                let me = cx.session();
                cx.core_mut().await_backlog(me, "second");
            })
            .state("second", |cx| {
                cx.heap().seen.push("second");
                let me = cx.session();
                cx.core_mut().await_backlog(me, "third");
                cx.core_mut().forget_backlog(me, "third");
                cx.delay("accept_all", Duration::from_millis(20), ());
            })
            .state("accept_all", |cx| {
                let me = cx.session();
                cx.core_mut().await_backlog(me, "fourth");
                // It is no longer paused when the poller is asked.
                cx.heap().listener.iter().for_each(SocketFactory::resume_accept);
            })
            .state("accept", |cx| {
                cx.heap().seen.push("accept");
                let is_last = cx.heap().seen.len() == 4;
                let me = cx.session();
                if is_last {
                    cx.core_mut().forget_backlog(me, "fourth");
                    cx.heap().listener = None;
                }
            })
            .state("third", |cx| cx.heap().seen.push("third"))
            .state("fourth", |cx| cx.heap().seen.push("fourth"))
            .state("_stop", |cx| assert_eq!(cx.heap().seen, ["first", "second", "accept", "accept"]))
            .spawn(&mut kernel)
            .expect("it starts");
        kernel.run().expect("it ends in order");
    }

    #[test] // a question that is asked before the poller is asked again is answered as well
    fn question_in_the_slice_of_an_answer_is_answered() {
        let mut kernel = Kernel::new().expect("a kernel");
        Session::new(Heap::default())
            .state("_start", |cx| {
                let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
                listener.pause_accept();
                cx.heap().listener = Some(listener);
                connect(cx.heap());
                let me = cx.session();
                cx.core_mut().await_backlog(me, "first");
                cx.delay("late", Duration::from_secs(10), ());
                Ok(())
            })
            .state("first", |cx| {
                let me = cx.session();
                cx.core_mut().await_backlog(me, "second");
            })
            .state("second", |cx| {
                cx.heap().listener = None;
                cx.alarm_remove_all();
            })
            .state("late", |_: &mut Context<'_, Heap>| -> () { unreachable!("the second question was not answered") })
            .spawn(&mut kernel)
            .expect("it starts");
        kernel.run().expect("it ends in order");
    }
}
