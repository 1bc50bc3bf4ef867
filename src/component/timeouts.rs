//! How long the peer of a connection may take for what.

use std::time::Duration;

use super::protocol::{Cx, Protocol, without_record};
use crate::filter::Filter;
use crate::reply::IntoReturn;

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// Sets how long the end of a connection waits for the peer to close its side as well, once everything is written. Zero means
    /// not at all. Default: 2 s.
    ///
    /// This bounds how long clients that don't close can delay a shutdown.
    ///
    /// POE: nothing like it.
    #[doc(alias = "linger")]
    pub fn close_timeout(mut self, span: Duration) -> Self {
        self.close_timeout = Some(span);
        self
    }

    /// Sets how long the end of a connection waits for a peer that takes nothing of what is still to be written. After that the rest of
    /// the output is discarded. Default: 1 min.
    ///
    /// This bounds how long clients that don't read can delay a shutdown. A peer that is slow, but goes on reading, has as long as it
    /// needs. The component looks once in this time, so a peer that has just taken some has up to twice as long.
    ///
    /// POE: nothing like it; such a client is waited for without end.
    #[doc(alias = "patience")]
    pub fn write_timeout(mut self, span: Duration) -> Self {
        self.write_timeout = Some(span);
        self
    }

    /// Sets how long the handshake of a connection over TLS may take. After that the connection is closed, and the log has a line. A
    /// client's attempt to connect has failed then. Default: 10 s.
    ///
    /// POE: nothing like it.
    pub fn handshake_timeout(mut self, span: Duration) -> Self {
        self.handshake_timeout = Some(span);
        self
    }

    /// Shuts a connection down that has had no request in hand and no input for so long. Default: none.
    ///
    /// Every byte is input, also one of an unfinished record: an upload that goes on is not cut. The component looks for such bytes once in
    /// this time, so a client that has sent a part of a record may have twice as long. A client that does not read its
    /// answers, and is not read from because of [`auto_pause`](Protocol::auto_pause), is shut down as well. So is a peer that has closed
    /// its side and was [kept](Protocol::keep_on_error). [`Connection::request_begins`](super::Connection::request_begins) says what a
    /// request is. In a client there are none unless the program says so.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lenore::component::Protocol;
    /// use lenore::filter::Line;
    ///
    /// let echo = Protocol::new(Line::new())
    ///     .on_input(|cx, line: String| cx.heap().put(line))
    ///     .idle_timeout(Duration::from_secs(60))
    ///     .on_idle(|cx| cx.heap().put("bye"));
    /// # let mut kernel = lenore::Kernel::new().unwrap();
    /// # let server = lenore::component::TcpServer::new("127.0.0.1:0", echo).spawn(&mut kernel).unwrap();
    /// # kernel.post(server, "shutdown", ()).unwrap();
    /// # kernel.run().unwrap();
    /// ```
    ///
    /// POE: nothing like it.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Is called when the [`idle_timeout`](Protocol::idle_timeout) is over. What it puts is still written.
    ///
    /// POE: nothing like it.
    pub fn on_idle<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_idle = Some(without_record(callback));
        self
    }

    /// Shuts a connection down whose request has begun to come, and does not come as a whole within this time. Default: the
    /// [`request_timeout`](Protocol::request_timeout), or else none.
    ///
    /// The component looks for the beginning of a request once in this time, or once in the [`idle_timeout`](Protocol::idle_timeout) if
    /// that is shorter. So a slow client may have twice as long. A client that falls silent in the middle of a request meets the
    /// `idle_timeout` as well.
    ///
    /// POE: nothing like it.
    pub fn arrival_timeout(mut self, timeout: Duration) -> Self {
        self.arrival_timeout = Some(timeout);
        self
    }

    /// Shuts a connection of a server down whose request is not answered within this time. Default: none.
    ///
    /// This does not interrupt a callback that blocks. The Daemon's
    /// [`request_timeout`](crate::daemon::DaemonBuilder::request_timeout) does, by killing the child.
    ///
    /// POE: nothing like it.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Is called when the [`request_timeout`](Protocol::request_timeout) or the [`arrival_timeout`](Protocol::arrival_timeout) of a
    /// request is over, and when the [`idle_timeout`](Protocol::idle_timeout) is over and a part of a request has come. What it puts is
    /// still written: a 504 or a 408 in HTTP.
    ///
    /// POE: nothing like it.
    pub fn on_request_timeout<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_request_timeout = Some(without_record(callback));
        self
    }
}
