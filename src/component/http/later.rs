//! Tokens for answers that come later: `Later` and `Stream`.

use std::rc::Rc;

use super::answer::{Answer, IntoAnswer, Kind};
use super::conversation::{Cx, WORD};
use super::slot::{Piece, Slot, Word};
use crate::error::Error;
use crate::filter::http::Response;
use crate::kernel::Postback;
use crate::wheel::Put;

/// What a handler returns if a [`Later`] will answer, or a [`Stream`] sends the body in pieces.
#[must_use = "the request waits for an answer only if the handler returns this"]
#[derive(Debug)]
pub struct Pending(Kind);

impl IntoAnswer for Pending {
    fn into_answer(self) -> Answer {
        Answer(self.0)
    }
}

/// A token with which any session of the process answers a request later, once.
///
/// Further requests of the same connection wait until then. Requests of other connections do not. If the token is
/// dropped without an answer, the client gets status 500, and the service logs a line.
///
/// ```
/// use lenore::component::http::{Later, Result, Service};
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(())
///     .state("_start", |cx| Ok(cx.alias_set("worker")?))
///     .state("work", |cx| {
///         cx.take::<Later>(0)?.answer("done\n");
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// let service = Service::new().get("/work", |cx, _| -> Result<_> {
///     let (later, pending) = Later::new(cx)?;
///     cx.post("worker", "work", (later,))?;
///     Ok(pending)
/// });
/// # let _ = service;
/// # Ok(())
/// # }
/// ```
///
/// POE: SimpleHTTP's event `DONE`.
#[derive(Debug)]
#[doc(alias = "DONE")]
pub struct Later {
    slot: Rc<Slot>,
    /// `None` after the answer.
    wake: Option<Postback>,
}

impl Later {
    /// Makes the token for the request that is being handled, and the value that the handler returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] once the session of the connection has stopped.
    pub fn new<R: 'static>(cx: &mut Cx<'_, R>) -> Result<(Later, Pending), Error> {
        let wake = cx.postback(WORD, ())?;
        // The token must not keep the session of a client that is gone.
        wake.weaken();
        let slot = cx.heap().own.new_slot();
        let pending = Pending(Kind::Pending(Rc::clone(&slot)));
        Ok((Later { slot, wake: Some(wake) }, pending))
    }

    /// Answers the request with any value that a handler may return, except a [`Pending`]. Returns whether the client
    /// is still there. `false` means that the connection has ended, as far as this process knows.
    pub fn answer(mut self, answer: impl IntoAnswer) -> bool {
        self.say(Word::Answer(answer.into_answer()))
    }

    /// Starts a streamed response. See [`Stream::new`].
    pub fn stream(mut self, response: Response) -> Stream {
        let slot = Rc::clone(&self.slot);
        let head = Answer(Kind::Stream(Rc::clone(&slot), response));
        let wake = self.wake.take();
        if let Some(wake) = wake.as_ref().filter(|_| !slot.is_closed()) {
            wake.call((Rc::clone(&slot), Word::Answer(head)));
        }
        Stream { slot, wake }
    }

    /// Tells whether the client is gone, as far as this process knows. An answer would then be useless.
    pub fn is_gone(&self) -> bool {
        self.slot.is_closed()
    }

    fn say(&mut self, word: Word) -> bool {
        match self.wake.take() {
            Some(wake) if !self.slot.is_closed() => {
                wake.call((Rc::clone(&self.slot), word));
                true
            }
            _ => false,
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.say(Word::Dropped);
    }
}

/// A token with which any session of the process sends the body of a response in pieces.
///
/// The body goes out in chunks, or as it is if `Content-Length` is set. To an HTTP/1.0 client, the end of the
/// connection ends the body. If the token is dropped without [`end`](Stream::end), as when its session dies, the
/// service cuts the connection in the middle of the body. A client can tell that from an end if the body is in chunks
/// or has a known length.
///
/// ```
/// use lenore::component::http::{Result, Service, Stream};
/// use lenore::filter::http::Response;
///
/// let service = Service::new().get("/count", |cx, _| -> Result<_> {
///     let (stream, pending) = Stream::new(cx, Response::new(200).header("Content-Type", "text/plain"))?;
///     for number in 1..=3 {
///         stream.put(format!("{number}\n"));
///     }
///     stream.end();
///     Ok(pending)
/// });
/// # let _ = service;
/// ```
///
/// A session that has more to send than the client takes stops when [`put`](Stream::put) returns [`Put::High`]. It goes
/// on when the postback of [`on_low`](Stream::on_low) is called.
///
/// POE: SimpleHTTP's `STREAM`.
#[derive(Debug)]
#[doc(alias = "STREAM")]
pub struct Stream {
    slot: Rc<Slot>,
    /// `None` after the end.
    wake: Option<Postback>,
}

impl Stream {
    /// Makes the token for the body of `response`, and the value that the handler returns. `response` answers the
    /// request that is being handled.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] once the session of the connection has stopped.
    pub fn new<R: 'static>(cx: &mut Cx<'_, R>, response: Response) -> Result<(Stream, Pending), Error> {
        let (mut later, _) = Later::new(cx)?;
        let (slot, wake) = (Rc::clone(&later.slot), later.wake.take());
        let pending = Pending(Kind::Stream(Rc::clone(&slot), response));
        Ok((Stream { slot, wake }, pending))
    }

    /// Sends the next piece of the body. Returns [whether the session should put more](Put). It is [`Put::Closed`] if
    /// the client is gone, or has asked for the head only.
    pub fn put(&self, piece: impl Into<Vec<u8>>) -> Put {
        let piece = piece.into();
        if self.slot.is_closed() {
            return Put::Closed;
        }
        if !piece.is_empty() {
            self.push(Piece::Octets(piece));
        }
        if self.slot.check_high() { Put::High } else { Put::Accepted }
    }

    /// Sets the postback that the service calls when the session can put more after [`Put::High`], or when the client
    /// goes away meanwhile.
    pub fn on_low(&self, postback: Postback) {
        self.slot.set_on_low(postback);
    }

    /// Ends the body. Returns whether the client is still there, as far as this process knows.
    pub fn end(mut self) -> bool {
        self.push(Piece::End);
        self.wake = None;
        !self.slot.is_closed()
    }

    /// Tells whether the client is gone, as far as this process knows.
    pub fn is_gone(&self) -> bool {
        self.slot.is_closed()
    }

    fn push(&self, piece: Piece) {
        let Some(wake) = self.wake.as_ref().filter(|_| !self.slot.is_closed()) else { return };
        if self.slot.push(piece) {
            wake.call((Rc::clone(&self.slot), Word::Pieces));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.push(Piece::Cut);
    }
}
