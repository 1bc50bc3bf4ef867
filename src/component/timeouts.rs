//! How long the peer of a connection may take for what.

use std::time::Duration;

use super::protocol::{Cx, Protocol, without_record};
use crate::filter::Filter;
use crate::reply::IntoReturn;

impl<F: Filter, H: 'static> Protocol<F, H> {
    /// Sets how long the end of a connection waits for the peer to close its side, too, once everything is written: two seconds
    /// unless this is called, zero for not at all. So long may clients that don't close hold up the end of a server.
    ///
    /// POE: nothing like it.
    #[doc(alias = "linger")]
    pub fn close_timeout(mut self, span: Duration) -> Self {
        self.close_timeout = Some(span);
        self
    }

    /// Sets how long the end of a connection waits for a peer that takes nothing of what is still to be written: a minute
    /// unless this is called. It is looked at once in that time, so a peer that has just taken some has up to twice as long; one
    /// that is slow, but goes on reading, has as long as it needs. What is left is discarded then. So long may clients that
    /// don't read hold up the end of a server.
    ///
    /// POE: nothing like it; such a client is waited for without end.
    #[doc(alias = "patience")]
    pub fn write_timeout(mut self, span: Duration) -> Self {
        self.write_timeout = Some(span);
        self
    }

    /// Sets how long the handshake of a connection over TLS may take. Default: 10 s. After that the connection is closed, and the log
    /// has a line; a client's attempt to connect has failed.
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
    /// answers, and is not read from because of [`auto_pause`](Protocol::auto_pause), is shut down as well. Of what a request is see [`Connection::request_begins`]; in a client there are none.
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
    /// The component looks for the beginning of a request once in this time, so a slow client may have twice as long.
    ///
    /// POE: nothing like it.
    pub fn arrival_timeout(mut self, timeout: Duration) -> Self {
        self.arrival_timeout = Some(timeout);
        self
    }

    /// Shuts a connection of a server down whose request is not answered within this time. Default: none.
    ///
    /// A callback that blocks is interrupted by nothing here: that is for the Daemon's
    /// [`request_timeout`](crate::daemon::DaemonBuilder::request_timeout).
    ///
    /// POE: nothing like it.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Is called when the [`request_timeout`](Protocol::request_timeout) or the [`arrival_timeout`](Protocol::arrival_timeout) of a
    /// request is over, and when the [`idle_timeout`](Protocol::idle_timeout) is and a part of a request has come. What it puts is still written: a 504 or a 408 in HTTP.
    ///
    /// POE: nothing like it.
    pub fn on_request_timeout<R: IntoReturn>(mut self, callback: impl Fn(&mut Cx<'_, F, H>) -> R + 'static) -> Self {
        self.callbacks.on_request_timeout = Some(without_record(callback));
        self
    }
}
