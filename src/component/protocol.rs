//! What is done with each connection: a filter, callbacks, states and a heap.

use std::fmt;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::connection::Connection;
use crate::error::{Error, Result};
use crate::filter::{Filter, FilterError};
use crate::kernel::Context;
use crate::name::Name;
use crate::reply::IntoReturn;
use crate::session::{Handler, handler};
use crate::wheel::Failure;

/// Says what a server or a client does with each connection: a filter between bytes and records, callbacks, states and a heap.
///
/// A [`Server`](super::Server), a [`TcpServer`](super::TcpServer) or a [`TcpClient`](super::TcpClient) takes a `Protocol`. The same
/// protocol works in each of them, and in any number of processes.
///
/// Each connection is a session, and its heap is a [`Connection`]. So a callback can do what any state can do: post events, set alarms,
/// watch signals. Every callback is optional.
///
/// ```
/// use lenore::Kernel;
/// use lenore::component::{Protocol, TcpServer};
/// use lenore::filter::Line;
///
/// /// What is kept of each client.
/// #[derive(Default)]
/// struct Caller { lines: u32 }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counting = Protocol::with_heap(Line::new(), Caller::default)
///     .on_connect(|cx| cx.heap().put("hello"))
///     .on_input(|cx, line: String| {
///         let connection = cx.heap();
///         connection.lines += 1; // the caller's heap
///         connection.put(format!("{}: {line}", connection.lines));
///         if line == "bye" {
///             cx.yield_("shutdown", ()); // after what was put is written
///         }
///     });
/// let mut kernel = Kernel::new()?;
/// let server = TcpServer::new("127.0.0.1:0", counting).spawn(&mut kernel)?;
/// # kernel.post(server, "shutdown", ())?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # Ending a connection
///
/// The event `shutdown` ends the connection when all output is written. From that event on the connection delivers no more input.
///
/// If a callback posts the event with [`yield_`](Context::yield_), the event waits behind the records that have already been read. These
/// records are still delivered. A callback that must get no further record, as after a `QUIT`, calls the event instead:
/// `cx.call(cx.session(), "shutdown", ())?`.
///
/// An error or the end of the input ends the connection at once. The output that was put before is still written. With
/// [`keep_on_error`](Protocol::keep_on_error) the connection stays, and the program must post `shutdown`.
///
/// The session then waits until the peer closes its side as well, for [`close_timeout`](Protocol::close_timeout) at most. If the session
/// closed a socket with unread input, the peer could lose the end of the output. A peer that reads nothing has
/// [`write_timeout`](Protocol::write_timeout). The session counts as a connection until it ends.
///
/// # Deadlines
///
/// [`idle_timeout`](Protocol::idle_timeout), [`arrival_timeout`](Protocol::arrival_timeout) and
/// [`request_timeout`](Protocol::request_timeout) limit the usual waits. For other deadlines a callback sets an alarm.
///
/// A session ends when nothing keeps it alive. An alarm, an alias or a reference keeps it alive after the connection has closed. Until
/// then a child of a pool stays busy, and a graceful shutdown waits. So the program must remove its alarms when the connection ends:
///
/// ```
/// use std::time::Duration;
/// use lenore::component::Protocol;
/// use lenore::filter::Line;
///
/// let impatient = Protocol::new(Line::new())
///     .on_connect(|cx| cx.delay("late", Duration::from_secs(60), ()))
///     .on_input(|cx, line: String| {
///         cx.delay("late", Duration::from_secs(60), ()); // again a minute
///         cx.heap().put(line);
///     })
///     .on_disconnect(|cx| cx.alarm_remove_all())
///     .state("late", |cx| cx.yield_("shutdown", ()));
/// # let mut kernel = lenore::Kernel::new().unwrap();
/// # let server = lenore::component::TcpServer::new("127.0.0.1:0", impatient).spawn(&mut kernel).unwrap();
/// # kernel.post(server, "shutdown", ()).unwrap();
/// # kernel.run().unwrap();
/// ```
///
/// # Failures
///
/// If a callback returns an `Err` or panics, the connection's session gets a `DIE` signal. If no state handles that signal, **the kernel
/// of the process ends**. In a child of a [`Server`](super::Server) this costs the clients of that child their connections. In a
/// server of one process it costs every client its connection. Such a server should handle `DIE` and end one connection only:
///
/// ```
/// use lenore::component::Protocol;
/// use lenore::filter::Line;
///
/// let doubling = Protocol::new(Line::new())
///     .on_connect(|cx| cx.sig("DIE", "failed"))
///     .on_input(|cx, line: String| {
///         let number: u32 = line.parse()?; // whatever a stranger sends
///         cx.heap().put((2 * u64::from(number)).to_string());
///         Ok(())
///     })
///     .state("failed", |cx| {
///         cx.sig_handled();
///         cx.yield_("shutdown", ());
///     });
/// # let mut kernel = lenore::Kernel::new().unwrap();
/// # let server = lenore::component::TcpServer::new("127.0.0.1:0", doubling).spawn(&mut kernel).unwrap();
/// # kernel.post(server, "shutdown", ()).unwrap();
/// # kernel.run().unwrap();
/// ```
///
/// # Half-closed peers
///
/// A peer may close its side and go on reading. By default the connection then writes its output and ends, and the program can put no
/// more. A program that answers later, such as a proxy, sets [`keep_on_error`](Protocol::keep_on_error). A proxy passes the end of the
/// input on with [`shutdown_output_after_flush`](crate::wheel::ReadWrite::shutdown_output_after_flush) of the other connection's
/// [`wheel`](Connection::wheel).
///
/// POE: the `Client...` parameters of `POE::Component::Server::TCP`, and the `Server...` ones of
/// `POE::Component::Client::TCP`. Their `Args` are what a closure captures.
#[must_use = "does nothing until a server or client is made of it"]
pub struct Protocol<F: Filter, H: 'static = ()> {
    pub(super) filter: F,
    pub(super) make_heap: Box<dyn Fn() -> H>,
    pub(super) callbacks: Callbacks<F, H>,
    pub(super) states: Vec<(Name, Handler)>,
    pub(super) shutdown_on_error: bool,
    /// Low and high.
    pub(super) marks: Option<(usize, usize)>,
    pub(super) auto_pause: bool,
    pub(super) close_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    /// What is done in each process that serves, before its first connection.
    pub(super) prepare: Option<Prepare>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) arrival_timeout: Option<Duration>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) request_timeout: Option<Duration>,
}

/// See [`Protocol`].
pub(super) type Prepare = std::rc::Rc<dyn Fn() -> Result>;

impl<F: Filter, H> fmt::Debug for Protocol<F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protocol").field("marks", &self.marks).finish_non_exhaustive()
    }
}

/// The context in which the callbacks of a [`Protocol`] run.
pub(super) type Cx<'a, F, H> = Context<'a, Connection<F, H>>;

type Callback<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>) -> Result>;
type Input<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>, <F as Filter>::Input) -> Result>;
type Refused<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>, &FilterError) -> Result>;
type Trouble<F, H> = Box<dyn Fn(&mut Cx<'_, F, H>, &Failure) -> Result>;
type PreConnect<F, H, S> = Box<dyn Fn(&mut Cx<'_, F, H>, S) -> Result<Option<S>>>;

/// The callbacks that were given.
pub(super) struct Callbacks<F: Filter, H: 'static> {
    pub(super) pre_connect: Option<PreConnect<F, H, TcpStream>>,
    pub(super) pre_connect_unix: Option<PreConnect<F, H, UnixStream>>,
    pub(super) on_connect: Option<Callback<F, H>>,
    pub(super) on_input: Option<Input<F, H>>,
    pub(super) on_flushed: Option<Callback<F, H>>,
    pub(super) on_error: Option<Trouble<F, H>>,
    pub(super) on_refused: Option<Refused<F, H>>,
    pub(super) on_disconnect: Option<Callback<F, H>>,
    pub(super) on_high: Option<Callback<F, H>>,
    pub(super) on_low: Option<Callback<F, H>>,
    pub(super) on_idle: Option<Callback<F, H>>,
    pub(super) on_request_timeout: Option<Callback<F, H>>,
}

impl<F: Filter> Protocol<F> {
    /// Begins a protocol whose connections keep nothing of their own. `filter` is the pattern: each connection gets one
    /// with the same settings.
    ///
    /// POE: `ClientFilter`, `Filter`; Line unless given.
    #[doc(alias = "ClientFilter")]
    pub fn new(filter: F) -> Protocol<F> {
        Protocol::with_heap(filter, || ())
    }
}

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// Begins a protocol for each connection of which `make_heap` makes a heap; [`Connection`] derefs to it.
    ///
    /// POE: what the callbacks keep in `$_[HEAP]`.
    #[doc(alias = "HEAP")]
    pub fn with_heap(filter: F, make_heap: impl Fn() -> H + 'static) -> Protocol<F, H> {
        Protocol {
            filter,
            make_heap: Box::new(make_heap),
            callbacks: Callbacks {
                pre_connect: None,
                pre_connect_unix: None,
                on_connect: None,
                on_input: None,
                on_flushed: None,
                on_error: None,
                on_refused: None,
                on_disconnect: None,
                on_high: None,
                on_low: None,
                on_idle: None,
                on_request_timeout: None,
            },
            states: Vec::new(),
            shutdown_on_error: true,
            marks: None,
            auto_pause: false,
            close_timeout: None,
            write_timeout: None,
            prepare: None,
            handshake_timeout: None,
            arrival_timeout: None,
            idle_timeout: None,
            request_timeout: None,
        }
    }

    /// Sets a callback that gets each TCP socket first, and returns the socket to use. If it returns `None`, the connection is closed,
    /// and no other callback runs.
    ///
    /// Use it to refuse a peer by its address, or to set socket options. The socket is non-blocking. UNIX sockets go to
    /// [`pre_connect_unix`](Protocol::pre_connect_unix).
    ///
    /// POE: `ClientPreConnect`, `PreConnect`.
    #[doc(alias = "ClientPreConnect")]
    pub fn pre_connect<C>(mut self, callback: C) -> Self
    where
        C: Fn(&mut Cx<'_, F, H>, TcpStream) -> Result<Option<TcpStream>> + 'static,
    {
        self.callbacks.pre_connect = Some(Box::new(callback));
        self
    }

    /// Sets a callback for each UNIX socket, as [`pre_connect`](Protocol::pre_connect) does for TCP sockets.
    ///
    /// POE: `ClientPreConnect`, `PreConnect`.
    pub fn pre_connect_unix<C>(mut self, callback: C) -> Self
    where
        C: Fn(&mut Cx<'_, F, H>, UnixStream) -> Result<Option<UnixStream>> + 'static,
    {
        self.callbacks.pre_connect_unix = Some(Box::new(callback));
        self
    }

    /// Sets a callback that runs when the connection can be used. With TLS that is after the handshake.
    ///
    /// POE: `ClientConnected`, `Connected`.
    #[doc(alias = "ClientConnected")]
    #[doc(alias = "Connected")]
    pub fn on_connect<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_connect = Some(without_record(callback));
        self
    }

    /// Sets a callback that gets each record, until the connection is shut down. Without it the connection reads its input and discards
    /// it.
    ///
    /// In a server each record begins a request. The request ends when this callback or a later one puts something. For a record without
    /// an answer, such as an empty line or a comment, the callback must call [`not_a_request`](Connection::not_a_request). Otherwise
    /// the request stays in hand: it delays a shutdown, and [`request_timeout`](Protocol::request_timeout) counts.
    ///
    /// The type of the record is the filter's [`Filter::Input`]. The callback may leave it out: `|cx, line| ..`. If the callback names
    /// another type, the compiler only says that the type of `cx` is not known:
    ///
    /// ```compile_fail,E0282
    /// # use lenore::component::Protocol;
    /// # use lenore::filter::Line;
    /// // Line has `String`.
    /// let protocol = Protocol::new(Line::new()).on_input(|cx, line: Vec<u8>| cx.heap().put("got it"));
    /// ```
    ///
    /// POE: `ClientInput`, `ServerInput`, which must be given there.
    #[doc(alias = "ClientInput")]
    #[doc(alias = "ServerInput")]
    pub fn on_input<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>, F::Input) -> R + 'static) -> Self {
        self.callbacks.on_input = Some(Box::new(move |cx, record| callback(cx, record).without_value()));
        self
    }

    /// Sets a callback that runs whenever all output is written.
    ///
    /// POE: `ClientFlushed`, `ServerFlushed`.
    #[doc(alias = "ClientFlushed")]
    #[doc(alias = "ServerFlushed")]
    pub fn on_flushed<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_flushed = Some(without_record(callback));
        self
    }

    /// Sets a callback that runs for each error, and at the end of the input. Without it the log has a line for each error. A server
    /// does not log the end of the input, nor `ECONNRESET`, `ECONNABORTED` and `EPIPE`, because clients leave when they like.
    ///
    /// A filter that has lost its place in the input ([`FilterError::is_out_of_step`]) is an error too. Its
    /// [operation](Failure::operation) is `"filter"`. What the callback puts after such an error is still written, so a server can tell
    /// its client what was wrong. Other refused records go to [`on_refused`](Protocol::on_refused).
    ///
    /// POE: `ClientError`, `ServerError`.
    #[doc(alias = "ClientError")]
    #[doc(alias = "ServerError")]
    pub fn on_error<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>, &Failure) -> R + 'static) -> Self {
        self.callbacks.on_error = Some(Box::new(move |cx, failure| callback(cx, failure).without_value()));
        self
    }

    /// Sets a callback that runs for each record that the filter refuses, such as a line that is not UTF-8 or over the limit. The
    /// connection goes on with the next record. To end it, the callback posts `shutdown`. Without a callback the log has a line for
    /// the first refused record of each connection.
    ///
    /// A filter that is [out of step](FilterError::is_out_of_step) can't find the next record. That ends the connection, and goes to
    /// [`on_error`](Protocol::on_error) instead.
    ///
    /// ```
    /// use lenore::component::Protocol;
    /// use lenore::filter::Line;
    ///
    /// let echo = Protocol::new(Line::new())
    ///     .on_input(|cx, line: String| cx.heap().put(line))
    ///     .on_refused(|cx, error| cx.heap().put(format!("error: {error}")));
    /// # let mut kernel = lenore::Kernel::new().unwrap();
    /// # let server = lenore::component::TcpServer::new("127.0.0.1:0", echo).spawn(&mut kernel).unwrap();
    /// # kernel.post(server, "shutdown", ()).unwrap();
    /// # kernel.run().unwrap();
    /// ```
    ///
    /// POE: nothing like it; the filter's exception ends the program.
    pub fn on_refused<R: IntoReturn>(
        mut self,
        callback: impl Fn(&mut Cx<'_, F, H>, &FilterError) -> R + 'static,
    ) -> Self {
        self.callbacks.on_refused = Some(Box::new(move |cx, error| callback(cx, error).without_value()));
        self
    }

    /// Sets a callback that runs once at the end of each connection that was [connected](Protocol::on_connect).
    ///
    /// In a server the connection is still open. In a client it is already closed.
    ///
    /// POE: `ClientDisconnected`, `Disconnected`.
    #[doc(alias = "ClientDisconnected")]
    #[doc(alias = "Disconnected")]
    pub fn on_disconnect<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_disconnect = Some(without_record(callback));
        self
    }

    /// Keeps a server's connection after an error or the end of the input, until the program posts `shutdown`.
    ///
    /// POE: `ClientShutdownOnError` false.
    #[doc(alias = "ClientShutdownOnError")]
    pub fn keep_on_error(mut self) -> Self {
        self.shutdown_on_error = false;
        self
    }

    /// Sets the watermarks, in bytes of output that waits, with 0 < `low` < `high`. At `high` or more the program should put no more. At
    /// `low` or less it may go on. [`Connection::put`] returns which of the two holds. Default: none, but 16 KiB and 64 KiB with
    /// [`auto_pause`](Protocol::auto_pause).
    ///
    /// POE: `LowMark` and `HighMark`.
    #[doc(alias("LowMark", "HighMark"))]
    #[doc(alias = "marks")]
    pub fn watermarks(mut self, low: usize, high: usize) -> Self {
        self.marks = Some((low, high));
        self
    }

    /// Sets a callback that runs when the output has reached the high [watermark](Protocol::watermarks). The watermarks must be set.
    ///
    /// POE: `ClientHigh`, `ServerHigh`.
    #[doc(alias("ClientHigh", "ServerHigh"))]
    pub fn on_high<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_high = Some(without_record(callback));
        self
    }

    /// Sets a callback that runs when the output has drained to the low [watermark](Protocol::watermarks) after it had reached the high
    /// one. The watermarks must be set.
    ///
    /// POE: `ClientLow`, `ServerLow`.
    #[doc(alias("ClientLow", "ServerLow"))]
    pub fn on_low<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_low = Some(without_record(callback));
        self
    }

    /// Stops reading from a connection whose output has reached the high watermark, until the output has drained to the low one.
    ///
    /// Use it where each record is answered. A peer that sends and does not read then can't make the output grow without end. Default
    /// [`watermarks`](Protocol::watermarks): 16 KiB and 64 KiB.
    ///
    /// POE: nothing like it.
    pub fn auto_pause(mut self) -> Self {
        self.auto_pause = true;
        self.marks = self.marks.or(Some(PAUSE_MARKS));
        self
    }

    /// Adds a state to the session of each connection, for events that the program posts, for alarms and for signals.
    ///
    /// The component needs the names `_start`, `_stop`, `shutdown`, `reconnect` and `connect`, and those that begin with `tcp_`. If a
    /// state has such a name, spawning fails with an error.
    ///
    /// POE: `InlineStates`, `ObjectStates`, `PackageStates`.
    #[doc(alias = "InlineStates")]
    pub fn state<R: IntoReturn>(
        mut self,
        name: impl Into<Name>,
        state: impl Fn(&mut Cx<'_, F, H>) -> R + 'static,
    ) -> Self {
        let name = name.into();
        self.states.retain(|(other, _)| *other != name);
        self.states.push((name, handler(state)));
        self
    }

    /// Sets what each serving process does before its first connection. If it fails, the process ends.
    #[cfg(feature = "service")]
    pub(super) fn prepare(mut self, prepare: impl Fn() -> Result + 'static) -> Self {
        self.prepare = Some(std::rc::Rc::new(prepare));
        self
    }

    /// Refuses what would fail with each connection, or take the place of the component's own states.
    pub(super) fn check(&self) -> Result<(), Error> {
        let invalid = |setting, reason| Err(Error::InvalidSetting { setting, reason });
        let (has_high, has_low) = (self.callbacks.on_high.is_some(), self.callbacks.on_low.is_some());
        match self.marks {
            Some((low, high)) if low == 0 || low >= high => {
                return invalid("marks", "the low mark is not between 0 and the high one");
            }
            None if has_high => return invalid("on_high", "needs watermarks(low, high)"),
            None if has_low => return invalid("on_low", "needs watermarks(low, high)"),
            _ => {}
        }
        let taken = |name: Name| TAKEN.contains(&name.as_str()) || name.as_str().starts_with("tcp_");
        match self.states.iter().find(|(name, _)| taken(*name)) {
            Some((name, _)) => Err(Error::ReservedState(*name)),
            None => Ok(()),
        }
    }
}

/// Forgets what a callback returns.
pub(super) fn without_record<F: Filter, H: 'static, R: IntoReturn>(
    callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static,
) -> Callback<F, H> {
    Box::new(move |cx| callback(cx).without_value())
}

/// The low and the high mark of a protocol that pauses by itself and has said none, in bytes.
const PAUSE_MARKS: (usize, usize) = (16 * 1024, 64 * 1024);

/// The states that servers and clients have of their own.
const TAKEN: [&str; 5] = ["_start", "_stop", "shutdown", "reconnect", "connect"];
