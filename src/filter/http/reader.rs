//! Turns bytes into records: one request after the other.

use memchr::memrchr;

use super::body::{Body, Found};
use super::head::{self, Parsed};
use super::headers::Headers;
use super::refusal::Refusal;
use super::request::Request;
use super::{Delivery, Incoming, Settings};

/// Input on its way to becoming requests.
#[derive(Debug, Default)]
pub(super) struct Reader {
    octets: Vec<u8>,
    /// Bytes in front of it are consumed.
    start: usize,
    /// Every newline in `start..searched` was looked at, and completed nothing. At least `start`.
    searched: usize,
    state: State,
    /// The request whose body is being read, unless it was delivered already.
    request: Option<Request>,
    trailers: Headers,
    /// How many bytes of the body's chunks were extensions, neither content nor needed to find the end.
    idle: usize,
    /// The request being read is the connection's last.
    is_last: bool,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A head, or the empty lines in front of it.
    #[default]
    Head,
    Body(Body),
    /// Nothing that matters: the last request was read, or one was refused. Bytes after the last request are kept until
    /// the next record is asked for, because another filter may take them over.
    Ended,
}

/// The result of one step.
enum Step {
    /// Something was consumed.
    Again,
    /// More input is needed.
    Wait,
    Record(Incoming),
}

impl Reader {
    pub(super) fn append(&mut self, chunk: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        let live = self.octets.len() - self.start;
        let short_of_room = self.octets.capacity() - self.octets.len() < chunk.len();
        // Moving no more than what was consumed since the last time keeps the cost per byte constant.
        if live == 0 || short_of_room && live <= self.start {
            self.octets.drain(..self.start);
            self.searched = self.searched.saturating_sub(self.start);
            self.start = 0;
        }
        self.octets.extend_from_slice(chunk);
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    /// Returns how many bytes, at least, were taken of a request that is not delivered yet. 0 means none.
    pub(super) fn held(&self) -> usize {
        self.request.as_ref().map_or(0, |request| request.body.len().max(1))
    }

    pub(super) fn is_between_requests(&self) -> bool {
        match self.state {
            State::Head => self.pending().iter().all(|octet| matches!(octet, b'\r' | b'\n')),
            State::Body(_) => false,
            State::Ended => true,
        }
    }

    pub(super) fn next(&mut self, settings: &Settings) -> Option<Incoming> {
        loop {
            let step = match self.state {
                State::Head => self.head(settings),
                State::Body(Body::Trailers) => self.trailers(settings),
                State::Body(Body::Done) => self.done(),
                State::Body(_) => self.body(settings),
                State::Ended => {
                    self.end();
                    Step::Wait
                }
            };
            match step {
                Step::Again => {}
                Step::Record(record) => return Some(record),
                Step::Wait => {
                    self.release_if_drained();
                    return None;
                }
            }
        }
    }

    fn head(&mut self, settings: &Settings) -> Step {
        // Some clients send an empty line after a body, which is not part of the body.
        match self.pending() {
            [b'\r', b'\n', ..] => return self.consume(2),
            [b'\n', ..] => return self.consume(1),
            // It may be the first half of such a line.
            [b'\r'] => return Step::Wait,
            _ => {}
        }
        let (parsed, is_full) = self.lines(settings.max_head, head::parse);
        match parsed {
            Some(Parsed::Complete { request, framing, length }) => {
                self.consume(length);
                self.begin(request, Body::new(framing), settings)
            }
            Some(Parsed::Refused(refusal)) => self.refuse(refusal),
            _ if is_full => {
                let window = &self.pending()[..settings.max_head];
                let in_first_line = memchr::memchr(b'\n', window).is_none();
                let status = if in_first_line { 414 } else { 431 };
                self.refuse(Refusal::new(status, "the head is too long", None))
            }
            _ => Step::Wait,
        }
    }

    /// Calls `parse` with the lines at the beginning of the input if there are new ones, but with at most `limit`
    /// bytes. Also returns whether the limit is reached, so that no more lines may come.
    ///
    /// It passes only whole lines, except at the limit. So the result depends on which bytes have come, never on when
    /// they came.
    fn lines<T>(&mut self, limit: usize, parse: impl FnOnce(&[u8]) -> T) -> (Option<T>, bool) {
        let window = &self.pending()[..self.pending().len().min(limit)];
        let is_full = window.len() == limit;
        let seen = (self.searched - self.start).min(window.len());
        let end = match memrchr(b'\n', &window[seen..]) {
            // At the limit there is no more to wait for.
            _ if is_full => Some(window.len()),
            newline => newline.map(|newline| seen + newline + 1),
        };
        let found = end.map(|end| parse(&window[..end]));
        self.searched = self.start + window.len();
        (found, is_full)
    }

    /// The head is read, up to and including the empty line.
    fn begin(&mut self, request: Request, body: Body, settings: &Settings) -> Step {
        self.is_last = !request.keeps_alive();
        if body == Body::Done && settings.delivery == Delivery::Whole {
            // Most requests have no body to collect.
            self.next_request();
            return Step::Record(Incoming::Request(request));
        }
        self.state = State::Body(body);
        self.idle = 0;
        if settings.delivery == Delivery::Streaming {
            return Step::Record(Incoming::Request(request));
        }
        let waiting = request.expects_continue().then(|| request.clone());
        self.request = Some(request);
        match (self.check_size(body, settings), waiting) {
            (Step::Again, Some(waiting)) => Step::Record(Incoming::Expects(waiting)),
            (step, _) => step,
        }
    }

    fn body(&mut self, settings: &Settings) -> Step {
        let State::Body(mut body) = self.state else { return Step::Wait };
        let found = body.find(self.pending());
        self.state = State::Body(body);
        match found {
            Found::Nothing => Step::Wait,
            Found::Framing { length, idle } => {
                self.idle += idle;
                if self.idle > settings.max_head {
                    return self.refuse(Refusal::new(400, "too many extensions of chunks", None));
                }
                self.consume(length);
                self.check_size(body, settings)
            }
            Found::Content(length) => self.content(length),
            Found::Bad(reason) => self.refuse(Refusal::new(400, reason, None)),
        }
    }

    /// The next `length` bytes are content.
    fn content(&mut self, length: usize) -> Step {
        let content = &self.octets[self.start..self.start + length];
        let Some(request) = &mut self.request else {
            let piece = content.to_vec();
            self.consume(length);
            return Step::Record(Incoming::Piece(piece));
        };
        request.body.extend_from_slice(content);
        self.consume(length)
    }

    /// Refuses content that is too large as soon as it is announced.
    fn check_size(&mut self, body: Body, settings: &Settings) -> Step {
        match (body, &self.request) {
            (Body::Content { left, .. }, Some(request))
                if left.saturating_add(request.body.len() as u64) > settings.max_content as u64 =>
            {
                self.refuse(Refusal::new(413, "the body is too large", None))
            }
            _ => Step::Again,
        }
    }

    fn trailers(&mut self, settings: &Settings) -> Step {
        // No fields, as nearly always.
        if self.pending().starts_with(b"\r\n") {
            self.consume(2);
            self.state = State::Body(Body::Done);
            return Step::Again;
        }
        let (parsed, is_full) = self.lines(settings.max_head, head::parse_trailers);
        match parsed {
            Some(Ok(Some((trailers, length)))) => {
                self.trailers = trailers;
                self.consume(length);
                self.state = State::Body(Body::Done);
                Step::Again
            }
            Some(Err(refusal)) => self.refuse(refusal),
            _ if is_full => self.refuse(Refusal::new(431, "the trailer is too long", None)),
            _ => Step::Wait,
        }
    }

    /// The body was read.
    fn done(&mut self) -> Step {
        self.next_request();
        let trailers = std::mem::take(&mut self.trailers);
        match self.request.take() {
            Some(request) => Step::Record(Incoming::Request(Request { trailers, ..request })),
            // It was delivered before its body.
            None => Step::Record(Incoming::End(trailers)),
        }
    }

    /// The request is complete; what comes is another, if there may be one.
    fn next_request(&mut self) {
        self.state = if self.is_last { State::Ended } else { State::Head };
    }

    /// Refuses the request being read, and all that comes behind it.
    fn refuse(&mut self, refusal: Refusal) -> Step {
        self.end();
        let request = self.request.take();
        Step::Record(Incoming::Refused(refusal.of(request)))
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.octets = Vec::new();
        self.start = 0;
        self.searched = 0;
    }

    fn consume(&mut self, length: usize) -> Step {
        self.start += length;
        self.searched = self.start;
        Step::Again
    }

    /// Gives back the memory of an unusual burst, so that an idle connection does not keep it.
    fn release_if_drained(&mut self) {
        if self.start == self.octets.len() && self.octets.capacity() > KEPT_CAPACITY {
            self.octets = Vec::new();
            self.start = 0;
            self.searched = 0;
        }
    }
}

/// The most capacity a drained buffer keeps, in bytes: twice a generous read.
const KEPT_CAPACITY: usize = 128 * 1024;
