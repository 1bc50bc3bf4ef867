//! The heap of a connection's session, and what both ends of a connection do alike.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::complaints::complain;
use super::credentials::PeerCredentials;
use super::listen::Door;
use super::protocol::{Callbacks, Protocol};
use super::proxy::Announcement;
use super::requests::Requests;
use super::secure::{Handshake, Secure};
use super::socket::Socket;
use crate::error::Result;
use crate::filter::{AsRecord, Filter, FilterError};
use crate::kernel::{Context, SessionId};
use crate::wheel::{Failure, Put, ReadWrite, SocketFactory, StreamEvent, WheelId};

/// The heap of a connection's session. It holds the connection, and derefs to the program's own heap.
///
/// See [`Protocol`] for an example.
///
/// POE: `$_[HEAP]` with its fields `client` or `server`, `remote_ip`, `remote_port`, `shutdown`.
pub struct Connection<F: Filter, H = ()> {
    pub(super) own: H,
    pub(super) link: Link<F>,
    pub(super) peer: Option<SocketAddr>,
    remote_ip: String,
    /// The proxy that has passed the peer on.
    pub(super) proxy: Option<SocketAddr>,
    /// What tells of the handshake of TLS.
    pub(super) handshake: Option<Handshake>,
    /// A server's: the listener that it came through.
    pub(super) door: Option<Rc<Door>>,
    pub(super) requests: Requests,
    /// No more input is delivered, and the connection ends when its output is written.
    pub(super) is_shutting_down: bool,
    /// What waits to be written never will be.
    pub(super) is_broken: bool,
    /// A record that the filter has refused is in the log.
    is_refusal_logged: bool,
    /// A server's: its end was told to the program.
    pub(super) is_over: bool,
    /// A server's: the session that has accepted it.
    pub(super) listener: SessionId,
    /// A client's: whom to connect to, as `host:port`.
    pub(super) target: String,
    /// A server's: begins another protocol, once the event [`SWITCH`] has come.
    pub(super) next_protocol: Option<Next<F, H>>,
    /// That event has come while another state of the session was on the stack.
    pub(super) is_switch_late: bool,
}

type Next<F, H> = Box<dyn FnOnce(&mut Context<'_, Connection<F, H>>) -> Result>;

impl<F: Filter, H> fmt::Debug for Connection<F, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// How far a connection has got.
pub(super) enum Link<F: Filter> {
    Closed,
    Connecting(SocketFactory),
    /// The header of its proxy is still to come.
    Announced(Announcement),
    /// The handshake is not done.
    Securing(ReadWrite<F>),
    Open(ReadWrite<F>),
}

impl<F: Filter, H> Connection<F, H> {
    pub(super) fn new(own: H, target: String) -> Connection<F, H> {
        Connection {
            own,
            link: Link::Closed,
            peer: None,
            remote_ip: String::new(),
            proxy: None,
            handshake: None,
            door: None,
            requests: Requests::default(),
            is_shutting_down: false,
            is_broken: false,
            is_refusal_logged: false,
            is_over: false,
            listener: SessionId::KERNEL,
            target,
            next_protocol: None,
            is_switch_late: false,
        }
    }

    /// Puts a record into the output. Returns whether the output takes more or has reached the high
    /// [watermark](Protocol::watermarks). Before the connection is made and after its end it puts nothing, and returns [`Put::Closed`].
    ///
    /// POE: `$_[HEAP]{client}->put`.
    pub fn put(&self, record: impl AsRecord<F::Output>) -> Put {
        let put = self.wheel().map_or(Put::Closed, |wheel| wheel.put(record));
        self.requests.put();
        put
    }

    /// Says that a request begins. A server calls this if an answer takes several [`put`](Connection::put)s, or a request several records.
    ///
    /// By default a record begins a request if no request is in hand, and the next `put` ends the request. A record without an answer
    /// leaves its request in hand. The program then calls [`not_a_request`](Connection::not_a_request).
    ///
    /// From the first call on, the program says for this connection when requests begin and [end](Connection::request_ends), until
    /// [another protocol](super::NextProtocol) takes over. Several requests may be in hand. Each needs both calls.
    ///
    /// [`Protocol::request_timeout`] and [`Protocol::idle_timeout`] depend on the requests in hand. A [`Server`](super::Server) reports
    /// them to its Daemon. When the process ends, a connection waits for them.
    ///
    /// POE: nothing like it.
    pub fn request_begins(&self) {
        self.requests.begin();
    }

    /// Says that a request has ended and its whole answer is put: see [`request_begins`](Connection::request_begins). A protocol without
    /// answers calls only this.
    ///
    /// POE: nothing like it.
    pub fn request_ends(&self) {
        self.requests.end();
    }

    /// Says that the record which [`on_input`](Protocol::on_input) handles is not a request and gets no answer. Examples are an empty
    /// line, a comment, and a command with `noreply`. Later records begin requests as before. Requests in hand stay in hand.
    ///
    /// It has no effect outside of `on_input`, after a `put`, and after a call of [`request_begins`](Connection::request_begins).
    ///
    /// ```
    /// use lenore::component::Protocol;
    /// use lenore::filter::Line;
    ///
    /// let echo = Protocol::new(Line::new()).on_input(|cx, line: String| match line.starts_with('#') {
    ///     true => cx.heap().not_a_request(),
    ///     false => _ = cx.heap().put(line),
    /// });
    /// # let mut kernel = lenore::Kernel::new().unwrap();
    /// # let server = lenore::component::TcpServer::new("127.0.0.1:0", echo).spawn(&mut kernel).unwrap();
    /// # kernel.post(server, "shutdown", ()).unwrap();
    /// # kernel.run().unwrap();
    /// ```
    ///
    /// POE: nothing like it.
    pub fn not_a_request(&self) {
        self.requests.take_back();
    }

    /// Returns how many requests are in hand.
    ///
    /// POE: nothing like it.
    pub fn requests_in_hand(&self) -> u32 {
        self.requests.in_hand()
    }

    /// Tells whether the connection ends after the request in hand, because the process is going to end. A protocol that can say so
    /// tells its client in the answer, as HTTP does with `Connection: close`.
    ///
    /// POE: nothing like it.
    pub fn is_ending(&self) -> bool {
        self.requests.is_ending
    }

    /// Returns the wheel, while there is a connection.
    ///
    /// POE: the heap's field `client` or `server`.
    #[doc(alias = "client")]
    #[doc(alias = "server")]
    pub fn wheel(&self) -> Option<&ReadWrite<F>> {
        match &self.link {
            Link::Open(wheel) => Some(wheel),
            _ => None,
        }
    }

    /// Returns the id of the wheel, while there is a connection.
    pub fn id(&self) -> Option<WheelId> {
        self.wheel().map(ReadWrite::id)
    }

    /// Tells whether there is a connection.
    ///
    /// POE: the heap's field `connected`.
    pub fn is_connected(&self) -> bool {
        self.wheel().is_some()
    }

    /// Tells whether the connection ends as soon as its output is written.
    ///
    /// POE: the heap's field `shutdown`.
    pub fn is_shutting_down(&self) -> bool {
        self.is_shutting_down
    }

    /// Returns the peer's address. It is known from `pre_connect` on. `None` for a client that has never been connected, and for a UNIX
    /// socket, where [`peer_credentials`](Connection::peer_credentials) names the peer.
    ///
    /// Behind a proxy that uses the [PROXY protocol](super::Listen::proxy_protocol) this is the address of the proxy's client.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Returns the peer's address as text, without the port; empty if there is none.
    ///
    /// POE: the heap's field `remote_ip`.
    pub fn remote_ip(&self) -> &str {
        &self.remote_ip
    }

    /// Returns the peer's port; 0 if there is none.
    ///
    /// POE: the heap's field `remote_port`.
    pub fn remote_port(&self) -> u16 {
        self.peer.map_or(0, |peer| peer.port())
    }

    /// Returns the address of the proxy that has passed the peer on, by the [PROXY protocol](super::Listen::proxy_protocol). `None`
    /// without a proxy, and if the proxy speaks for itself, as for a health check.
    ///
    /// POE: nothing like it.
    pub fn proxy_addr(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// Returns the name of the listener that has accepted the connection. `None` in a client, and if the listener has no
    /// [name](super::Listen::name).
    ///
    /// POE: nothing like it.
    pub fn listener_name(&self) -> Option<&str> {
        self.door.as_ref()?.name.as_deref()
    }

    /// Asks the system which process was at the other end of a UNIX socket when the connection was made.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` without a connection. The system's error if the connection is not a UNIX socket.
    ///
    /// POE: nothing like it.
    #[doc(alias = "SO_PEERCRED")]
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let wheel = self.wheel().ok_or(nix::errno::Errno::ENOTCONN)?;
        wheel.with_fd(PeerCredentials::of)
    }

    /// Returns the address that a client connects to, as `host:port`, whether or not it is connected. Empty in a server.
    ///
    /// POE: what the program has given as `RemoteAddress` and `RemotePort`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Begins anew: nothing of an earlier connection is left.
    pub(super) fn reset(&mut self) {
        self.link = Link::Closed;
        self.handshake = None;
        self.is_shutting_down = false;
        self.is_broken = false;
        self.is_refusal_logged = false;
        self.requests.reset();
    }

    /// Returns the heap of the same connection for another protocol.
    pub(super) fn succeed<G: Filter, K>(&mut self, own: K, link: Link<G>) -> Connection<G, K> {
        Connection {
            link,
            peer: self.peer,
            remote_ip: std::mem::take(&mut self.remote_ip),
            proxy: self.proxy,
            handshake: self.handshake.take(),
            door: self.door.take(),
            requests: self.requests.pass_on(),
            listener: self.listener,
            ..Connection::new(own, std::mem::take(&mut self.target))
        }
    }

    pub(super) fn set_peer(&mut self, peer: Option<SocketAddr>) {
        self.peer = peer;
        // An IPv4 peer is one, whatever kind of socket it came through.
        self.remote_ip = peer.map_or_else(String::new, |peer| peer.ip().to_canonical().to_string());
    }

    /// Returns the peer's address for the log.
    pub(super) fn peer_text(&self) -> String {
        let unnamed = || String::from(if self.door.is_some() { "a local client" } else { "a local server" });
        self.peer.map_or_else(unnamed, |peer| peer.to_string())
    }

    /// Tells whether nothing waits to be written, or never will be.
    pub(super) fn has_no_output(&self) -> bool {
        self.is_broken || self.wheel().is_none_or(|wheel| wheel.pending_output() == 0)
    }

    /// Waits for the peer to take what is still to be written, as long as it takes any.
    pub(super) fn wait_for_peer(&self) {
        if let Some(wheel) = self.wheel() {
            wheel.event(StreamEvent::Flushed, FLUSHED);
            wheel.limit_patience(IMPATIENT);
        }
    }

    /// Forgets the connection in a process that has none of it.
    pub(super) fn leave(&mut self) {
        self.link = Link::Closed;
        self.requests.reset();
    }

    /// Ends the connection, if there is one.
    pub(super) fn close(&mut self) {
        self.requests.reset();
        match std::mem::replace(&mut self.link, Link::Closed) {
            // What was put is still written: the peer may have closed only its own half.
            Link::Open(wheel) | Link::Securing(wheel) if !self.is_broken => wheel.close_after_flush(),
            link => drop(link),
        }
    }
}

impl<F: Filter, H> Deref for Connection<F, H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.own
    }
}

impl<F: Filter, H> DerefMut for Connection<F, H> {
    fn deref_mut(&mut self) -> &mut H {
        &mut self.own
    }
}

/// The names of the events of a connection's wheel.
pub(super) const READY: &str = "tcp_ready";
pub(super) const INPUT: &str = "tcp_got_input";
pub(super) const FLUSHED: &str = "tcp_got_flush";
pub(super) const ERROR: &str = "tcp_got_error";
pub(super) const REFUSED: &str = "tcp_got_refused";
pub(super) const HIGH: &str = "tcp_got_high";
pub(super) const LOW: &str = "tcp_got_low";

/// The name of the event that changes the protocol.
pub(super) const SWITCH: &str = "tcp_next_protocol";

/// The name of the event in a process that was forked with the connection, and goes on without it.
pub(super) const LEFT: &str = "tcp_left_to_parent";

/// The name of the event for a peer that takes too long to take the last of the output.
pub(super) const IMPATIENT: &str = "tcp_impatient";

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// Makes a connection of a socket, unless `pre_connect` gives it up.
    /// `secure` is a client's: a server's says its listener.
    pub(super) fn open(
        &self,
        cx: &mut Context<'_, Connection<F, H>>,
        socket: Socket,
        secure: Option<&Secure>,
    ) -> Result<bool> {
        let socket = match (socket, &self.callbacks) {
            (Socket::Tcp(socket, peer), Callbacks { pre_connect: Some(pre_connect), .. }) => {
                pre_connect(cx, socket)?.map(|socket| Socket::Tcp(socket, peer))
            }
            (Socket::Unix(socket), Callbacks { pre_connect_unix: Some(pre_connect), .. }) => {
                pre_connect(cx, socket)?.map(Socket::Unix)
            }
            (socket, _) => Some(socket),
        };
        let Some(socket) = socket else { return Ok(false) };
        let heap = cx.heap();
        let secure = secure.or(heap.door.as_ref().and_then(|door| door.secure.as_ref()));
        let (stream, handshake) = socket.into_stream(self.filter.clone_config(), secure, &heap.target)?;
        let mut wheel = stream.on_input(INPUT).on_error(ERROR).on_refused(REFUSED);
        // An event that nobody has asked for would be dispatched after each answer.
        if self.callbacks.on_flushed.is_some() {
            wheel = wheel.on_flushed(FLUSHED);
        }
        if let Some((low, high)) = self.marks {
            wheel = wheel.watermarks(low, high).on_high(HIGH).on_low(LOW);
        }
        if self.auto_pause {
            wheel = wheel.auto_pause();
        }
        if let Some(span) = self.close_timeout {
            wheel = wheel.close_timeout(span);
        }
        if let Some(span) = self.write_timeout {
            wheel = wheel.write_timeout(span);
        }
        if let Some(handshake) = handshake {
            if let Some(span) = self.handshake_timeout {
                wheel = wheel.handshake_timeout(span);
            }
            cx.heap().link = Link::Securing(wheel.on_ready(READY).start(cx)?);
            cx.heap().handshake = Some(handshake);
            // The header of its proxy has come at the end of the process.
            if cx.heap().requests.is_ending {
                self.limit_handshake(cx);
            }
            return Ok(true);
        }
        cx.heap().link = Link::Open(wheel.start(cx)?);
        self.connected(cx)?;
        Ok(true)
    }

    /// Tells the program that the connection is there to be used.
    pub(super) fn connected(&self, cx: &mut Context<'_, Connection<F, H>>) -> Result {
        self.begin_requests(cx);
        self.callbacks.on_connect.as_ref().map_or(Ok(()), |on_connect| on_connect(cx))?;
        self.settle(cx)
    }

    /// A record has come.
    pub(super) fn got_input(&self, cx: &mut Context<'_, Connection<F, H>>) -> Result {
        if cx.heap().is_shutting_down {
            return Ok(());
        }
        let Some(on_input) = &self.callbacks.on_input else { return Ok(()) };
        let record = cx.take::<F::Input>(0)?;
        self.begin_request(cx);
        let told = on_input(cx, record);
        self.settle(cx)?;
        told
    }

    /// The filter has refused a record.
    pub(super) fn got_refused(&self, cx: &mut Context<'_, Connection<F, H>>) -> Result {
        if cx.heap().is_shutting_down {
            return Ok(());
        }
        let error = cx.take::<FilterError>(0)?;
        if let Some(on_refused) = &self.callbacks.on_refused {
            return on_refused(cx, &error);
        }
        if !std::mem::replace(&mut cx.heap().is_refusal_logged, true) {
            let text = format!("filter refused a record, and more of this connection will not be logged: {error}");
            complain(cx, |door| &door.complaints_of_input, &text);
        }
        Ok(())
    }

    /// The output has reached the high mark.
    pub(super) fn got_high(&self, cx: &mut Context<'_, Connection<F, H>>) -> Result {
        self.callbacks.on_high.as_ref().map_or(Ok(()), |on_high| on_high(cx))
    }

    /// The output has drained to the low mark.
    pub(super) fn got_low(&self, cx: &mut Context<'_, Connection<F, H>>) -> Result {
        self.callbacks.on_low.as_ref().map_or(Ok(()), |on_low| on_low(cx))
    }

    /// Tells the program of a failure. It is logged if the program does not care, unless it `is_usual`.
    pub(super) fn tell_error(
        &self,
        cx: &mut Context<'_, Connection<F, H>>,
        failure: &Failure,
        is_usual: bool,
    ) -> Result {
        if !failure.is_harmless() {
            cx.heap().is_broken = true;
        }
        if let Some(on_error) = &self.callbacks.on_error {
            return on_error(cx, failure);
        }
        if !is_usual {
            let text = format!("connection failed: {failure}");
            complain(cx, |door| &door.complaints_of_input, &text);
        }
        Ok(())
    }
}
