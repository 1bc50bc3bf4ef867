//! `TcpServer`: a session that listens, and makes a session of each connection.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;

use super::accepted::{Opener, opener};
use super::protocol::Protocol;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{Context, Kernel, SessionId};
use crate::name::Name;
use crate::reply::IntoReturn;
use crate::session::Session;
use crate::wheel::{Failure, SocketFactory};

/// A server in one process: a session that listens, and a session for each connection as its child.
///
/// [`Server`](super::Server) is for programs that have a Daemon, or may want to fork one day; this is the plain component.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{Protocol, TcpServer};
/// use lenore::filter::Line;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| cx.heap().put(line));
/// let mut kernel = Kernel::new()?;
/// let server = TcpServer::new("127.0.0.1:0", echo)
///     .alias("echo")
///     .concurrency(100)
///     .on_started(|cx| println!("listening on {:?}", cx.heap().local_addr()))
///     .spawn(&mut kernel)?;
/// # assert_eq!(kernel.alias_resolve("echo")?, server);
/// # kernel.post(server, "shutdown", ())?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # Events that the program may post to it
///
/// | event | effect |
/// | --- | --- |
/// | `shutdown` | stops listening; connections go on, and the session ends with the last of them |
/// | `set_concurrency` | ARG0 = how many connections there may be: an `Option<u32>` or a `u32`, `None` for any number; an `i32` as in POE, where -1 means that |
/// | `disconnected` | one connection less; an [`acceptor`](TcpServer::acceptor) posts it itself |
///
/// POE: `POE::Component::Server::TCP`.
#[must_use = "does nothing until it is spawned"]
pub struct TcpServer {
    address: String,
    alias: Option<Name>,
    concurrency: Option<u32>,
    accept: Result<Accept, Error>,
    on_started: Option<Callback>,
    on_stopped: Option<Callback>,
    on_error: Option<Trouble>,
}

/// What is done with an accepted socket.
enum Accept {
    Open(Opener),
    HandOver(Acceptor),
}

type Acceptor = Box<dyn Fn(&mut Context<'_, Listener>, TcpStream, SocketAddr) -> Result>;
type Callback = Box<dyn Fn(&mut Context<'_, Listener>) -> Result>;
type Trouble = Box<dyn Fn(&mut Context<'_, Listener>, &Failure) -> Result>;

/// The heap of a [`TcpServer`]'s session.
///
/// POE: `$_[HEAP]` with its fields `listener`, `concurrency`, `connections`.
pub struct Listener {
    listener: Option<SocketFactory>,
    concurrency: Option<u32>,
    connections: u32,
    /// The log knows that `disconnected` came too often.
    is_miscount_logged: bool,
}

impl Listener {
    /// Returns the address that it listens on; `None` if it could not, or does not any more.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    /// Returns how many connections there are.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Returns how many connections there may be; `None` for any number.
    pub fn concurrency(&self) -> Option<u32> {
        self.concurrency
    }

    /// Accepts exactly while there are fewer connections than there may be.
    fn adjust(&self) {
        let Some(listener) = &self.listener else { return };
        if self.concurrency.is_none_or(|limit| self.connections < limit) {
            listener.resume_accept();
        } else {
            listener.pause_accept();
        }
    }
}

impl TcpServer {
    /// Begins a server that listens on `address`, `host:port` with port 0 for any free one, and treats each connection
    /// as `protocol` says.
    ///
    /// POE: `new` with `ClientInput`; `Address` or `Hostname`, and `Port`.
    #[doc(alias("Hostname", "Port"))]
    pub fn new<F: Filter, H: 'static>(address: impl Into<String>, protocol: Protocol<F, H>) -> TcpServer {
        TcpServer::with(address.into(), opener(protocol).map(Accept::Open))
    }

    /// Begins a server that hands each accepted socket, with its peer's address, to `acceptor`, in the session that
    /// listens.
    ///
    /// Whoever has the socket posts `disconnected` to that session at its end if the server has a
    /// [`concurrency`](TcpServer::concurrency).
    ///
    /// POE: `new` with `Acceptor`.
    #[doc(alias = "Acceptor")]
    pub fn acceptor<R: IntoReturn>(
        address: impl Into<String>,
        acceptor: impl Fn(&mut Context<'_, Listener>, TcpStream, SocketAddr) -> R + 'static,
    ) -> TcpServer {
        let hand_over =
            move |cx: &mut Context<'_, Listener>, socket, peer| acceptor(cx, socket, peer).into_return().map(drop);
        TcpServer::with(address.into(), Ok(Accept::HandOver(Box::new(hand_over))))
    }

    fn with(address: String, accept: Result<Accept, Error>) -> TcpServer {
        TcpServer {
            address,
            alias: None,
            concurrency: None,
            accept,
            on_started: None,
            on_stopped: None,
            on_error: None,
        }
    }

    /// Sets the alias of the session that listens.
    ///
    /// POE: `Alias`.
    pub fn alias(mut self, alias: impl Into<Name>) -> Self {
        self.alias = Some(alias.into());
        self
    }

    /// Sets how many connections there may be at a time; any number unless set, none with 0 until `set_concurrency` says
    /// otherwise. More clients wait in the listener's backlog.
    ///
    /// POE: `Concurrency`.
    #[doc(alias = "Concurrency")]
    pub fn concurrency(mut self, connections: u32) -> Self {
        self.concurrency = Some(connections);
        self
    }

    /// Is called once the server listens, or has failed to: the failure is reported next.
    ///
    /// POE: `Started`, with `ListenerArgs`.
    #[doc(alias = "Started")]
    pub fn on_started<R: IntoReturn>(mut self, callback: impl Fn(&mut Context<'_, Listener>) -> R + 'static) -> Self {
        self.on_started = Some(Box::new(move |cx| callback(cx).into_return().map(drop)));
        self
    }

    /// Is called when the session that listens ends.
    ///
    /// POE: `Stopped`.
    #[doc(alias = "Stopped")]
    pub fn on_stopped<R: IntoReturn>(mut self, callback: impl Fn(&mut Context<'_, Listener>) -> R + 'static) -> Self {
        self.on_stopped = Some(Box::new(move |cx| callback(cx).into_return().map(drop)));
        self
    }

    /// Is called when listening fails, and for each accept that fails. A listener that can't accept because the process has run out of descriptors tries
    /// again by itself, ten times a second.
    ///
    /// Without this callback a shortage is one warning when it begins and one line when the server accepts again. Any other
    /// failure is logged, and the server stops listening.
    ///
    /// POE: `Error`.
    #[doc(alias = "Error")]
    pub fn on_error<R: IntoReturn>(
        mut self,
        callback: impl Fn(&mut Context<'_, Listener>, &Failure) -> R + 'static,
    ) -> Self {
        self.on_error = Some(Box::new(move |cx, failure| callback(cx, failure).into_return().map(drop)));
        self
    }

    /// Creates the session that listens, and returns its id.
    ///
    /// An address that can't be bound is a failure for [`on_error`](TcpServer::on_error), not an error here. Without that it is
    /// logged, and the session ends; a program that has nothing else to do ends with it, as if all were well. A
    /// [`Server`](super::Server) returns it.
    ///
    /// # Errors
    ///
    /// [`Error::AliasTaken`]; [`Error::ReservedState`] for a state of the protocol that would replace one of the
    /// component's; [`Error::InvalidSetting`] for marks that make no sense; [`Error::TooManySessions`]. Nothing was created then.
    ///
    /// POE: `new`.
    pub fn spawn<K: AsMut<Kernel>>(self, kernel: &mut K) -> Result<SessionId, Error> {
        let TcpServer { address, alias, concurrency, accept, on_started, on_stopped, on_error } = self;
        let accept = accept?;
        check_alias(kernel.as_mut(), alias)?;
        let has_callback = on_error.is_some();
        let tell = Rc::new(move |cx: &mut Context<'_, Listener>, failure: &Failure| match &on_error {
            Some(on_error) => on_error(cx, failure),
            None => {
                log_and_drop(cx, failure);
                Ok(())
            }
        });
        let tell_later = Rc::clone(&tell);
        Session::new(Listener { listener: None, concurrency, connections: 0, is_miscount_logged: false })
            .state("_start", move |cx| {
                alias.map_or(Ok(()), |alias| cx.alias_set(alias))?;
                let wheel = SocketFactory::tcp(address.as_str()).on_accept("tcp_got_connection").on_error("tcp_failed");
                let wheel = if has_callback { wheel } else { wheel.log_shortages() };
                match wheel.listen(cx) {
                    Ok(listener) => {
                        cx.heap().listener = Some(listener);
                        cx.heap().adjust();
                    }
                    Err(error) => cx.yield_("tcp_not_bound", (Failure::of_error("bind", &error),)),
                }
                on_started.as_ref().map_or(Ok(()), |on_started| on_started(cx))
            })
            .state("tcp_got_connection", move |cx| accepted(cx, &accept))
            .state("tcp_failed", move |cx| {
                let failure = cx.take::<Failure>(0)?;
                tell(cx, &failure)
            })
            .state("tcp_not_bound", move |cx| {
                let failure = cx.take::<Failure>(0)?;
                tell_later(cx, &failure)
            })
            .state("disconnected", disconnected)
            .state("set_concurrency", |cx| {
                cx.heap().concurrency = limit(cx)?;
                cx.heap().adjust();
                Ok(())
            })
            .state("shutdown", move |cx| {
                cx.heap().listener = None;
                // It is gone already after a second shutdown.
                alias.map(|alias| cx.alias_remove(alias));
            })
            .state("_stop", move |cx| on_stopped.as_ref().map_or(Ok(()), |on_stopped| on_stopped(cx)))
            .spawn(kernel)
    }
}

fn accepted(cx: &mut Context<'_, Listener>, accept: &Accept) -> Result {
    let (socket, peer) = (cx.take::<TcpStream>(0)?, SocketAddr::new(cx.take::<IpAddr>(1)?, cx.take(2)?));
    cx.heap().connections += 1;
    cx.heap().adjust();
    match accept {
        Accept::HandOver(acceptor) => acceptor(cx, socket, peer),
        Accept::Open(open) => {
            if let Err(error) = open(cx.as_mut(), socket, peer) {
                disconnected(cx);
                return Err(error.into());
            }
            Ok(())
        }
    }
}

fn disconnected(cx: &mut Context<'_, Listener>) {
    let heap = cx.heap();
    match heap.connections.checked_sub(1) {
        Some(rest) => heap.connections = rest,
        None if heap.is_miscount_logged => {}
        None => {
            heap.is_miscount_logged = true;
            let session = cx.session();
            log::warn!(target: "lenore::component", "{session}: more connections have ended than began, and more such ends will not be logged");
        }
    }
    cx.heap().adjust();
}

/// Reads ARG0 of `set_concurrency`.
fn limit(cx: &mut Context<'_, Listener>) -> Result<Option<u32>> {
    if let Ok(limit) = cx.arg::<u32>(0) {
        return Ok(Some(*limit));
    }
    if let Ok(limit) = cx.arg::<i32>(0) {
        return Ok(u32::try_from(*limit).ok());
    }
    Ok(*cx.arg::<Option<u32>>(0)?)
}

fn log_and_drop(cx: &mut Context<'_, Listener>, failure: &Failure) {
    let session = cx.session();
    log::warn!(target: "lenore::component", "{session} does not listen: {failure}");
    cx.heap().listener = None;
}

/// Refuses an alias that somebody has, before anything is created.
pub(super) fn check_alias(kernel: &Kernel, alias: Option<Name>) -> Result<(), Error> {
    let Some(alias) = alias else { return Ok(()) };
    kernel.core.alias_resolve(alias).map_or(Ok(()), |owner| Err(Error::AliasTaken { alias, owner }))
}
