//! Tokens for answers that do not come at once: `Later` and `Stream`.

use std::rc::Rc;

use super::answer::{Answer, IntoAnswer, Kind};
use super::conversation::{Cx, WORD};
use super::slot::{Piece, Slot, Word};
use crate::error::Error;
use crate::filter::http::Response;
use crate::kernel::Postback;
use crate::wheel::Put;

/// What a handler returns in place of a response that is still to come, by a [`Later`] or in the pieces of a [`Stream`].
#[must_use = "the request waits for an answer only if the handler returns this"]
#[derive(Debug)]
pub struct Pending(Kind);

impl IntoAnswer for Pending {
    fn into_answer(self) -> Answer {
        Answer(self.0)
    }
}

/// A token with which a request is answered later, once, by any session of the process.
///
/// Further requests of the connection wait meanwhile, those of other connections do not. A token that is dropped without an
/// answer has the request answered with status 500, and a line in the log.
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
    /// `None` once it has said all.
    wake: Option<Postback>,
}

impl Later {
    /// Makes the token for the request that is being handled, and what the handler is to return.
    ///
    /// # Errors
    ///
    /// [`Error::NoActiveSession`] once the session of the connection has stopped.
    pub fn new<R: 'static>(cx: &mut Cx<'_, R>) -> Result<(Later, Pending), Error> {
        let wake = cx.postback(WORD, ())?;
        // It must not keep the session of a client that is gone.
        wake.weaken();
        let slot = cx.heap().own.new_slot();
        let pending = Pending(Kind::Pending(Rc::clone(&slot)));
        Ok((Later { slot, wake: Some(wake) }, pending))
    }

    /// Answers the request with whatever a handler may return, but for what comes later still. Returns whether the client is
    /// still there to be answered: `false` if its connection has ended, as far as this process knows.
    pub fn answer(mut self, answer: impl IntoAnswer) -> bool {
        self.say(Word::Answer(answer.into_answer()))
    }

    /// Begins a streamed response in place of a whole one; see [`Stream::new`].
    pub fn stream(mut self, response: Response) -> Stream {
        let slot = Rc::clone(&self.slot);
        let head = Answer(Kind::Stream(Rc::clone(&slot), response));
        let wake = self.wake.take();
        if let Some(wake) = wake.as_ref().filter(|_| !slot.is_closed()) {
            wake.call((Rc::clone(&slot), Word::Answer(head)));
        }
        Stream { slot, wake }
    }

    /// Tells whether the client is gone, as far as this process knows, so that there is no use in an answer.
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

/// A token with which the body of a response is put in pieces, by any session of the process.
///
/// The body goes out in chunks, or as long as a `Content-Length` says; for a client of HTTP/1.0 until the end of the connection.
/// A token that is dropped without [`end`](Stream::end), as when its session dies, has the connection cut: the body ends in the
/// middle, which the client of a body in chunks or of known length can tell from an end.
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
/// A session with more to say than a client takes stops when [`put`](Stream::put) answers [`Put::High`], and goes on with the
/// event that it has asked for by [`on_low`](Stream::on_low).
///
/// POE: SimpleHTTP's `STREAM`.
#[derive(Debug)]
#[doc(alias = "STREAM")]
pub struct Stream {
    slot: Rc<Slot>,
    /// `None` once it has said all.
    wake: Option<Postback>,
}

impl Stream {
    /// Makes the token for the body of `response`, which answers the request that is being handled, and what the handler is to
    /// return.
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

    /// Puts some more of the body. The answer tells whether the client takes more, or so much waits that it is time to put no
    /// more; [`Put::Closed`] if the client is gone, or has asked for the head alone.
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

    /// Has `postback` called whenever more can be put after [`put`](Stream::put) has answered [`Put::High`], and when the client
    /// goes away meanwhile.
    pub fn on_low(&self, postback: Postback) {
        self.slot.set_on_low(postback);
    }

    /// Ends the body. Returns whether the client is still there.
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
