//! What a connection and the token of one of its requests share.

use std::cell::{Cell, RefCell};

use super::answer::Answer;
use crate::kernel::Postback;

/// The place of one answer that does not come at once.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// Nothing comes of what the token still does: it was answered, or the client is gone.
    is_closed: Cell<bool>,
    /// What was put and has not reached the connection.
    pieces: RefCell<Vec<Piece>>,
    /// How many bytes that is.
    waiting: Cell<usize>,
    /// The connection was told of the pieces.
    is_told: Cell<bool>,
    /// The token was told to put no more.
    is_high: Cell<bool>,
    /// Whom to tell that more can be put.
    on_low: RefCell<Option<Postback>>,
}

/// Some of a streamed body.
#[derive(Debug)]
pub(super) enum Piece {
    Octets(Vec<u8>),
    End,
    /// The token was dropped: there is no end to come.
    Cut,
}

/// What a token tells the session of the connection.
#[derive(Debug)]
pub(super) enum Word {
    Answer(Answer),
    /// The token was dropped without an answer.
    Dropped,
    Pieces,
}

impl Slot {
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.pieces.take();
        // One that waits for room finds out that there is no use in it.
        self.low();
        self.on_low.take();
    }

    /// Adds a piece; tells whether the connection has to be told.
    pub(super) fn push(&self, piece: Piece) -> bool {
        if let Piece::Octets(octets) = &piece {
            self.waiting.set(self.waiting.get() + octets.len());
        }
        self.pieces.borrow_mut().push(piece);
        !self.is_told.replace(true)
    }

    pub(super) fn take_pieces(&self) -> Vec<Piece> {
        self.is_told.set(false);
        self.waiting.set(0);
        self.pieces.take()
    }

    /// Tells whether the token should put no more, and remembers that it was told so.
    pub(super) fn check_high(&self) -> bool {
        if self.waiting.get() >= super::HIGH {
            self.is_high.set(true);
        }
        self.is_high.get()
    }

    pub(super) fn set_high(&self) {
        self.is_high.set(true);
    }

    pub(super) fn set_on_low(&self, postback: Postback) {
        self.on_low.replace(Some(postback));
    }

    /// More can be put.
    pub(super) fn low(&self) {
        if self.is_high.replace(false) {
            self.on_low.borrow().iter().for_each(|postback| postback.call(()));
        }
    }
}
