//! What a connection and the token of one of its requests share.

use std::cell::{Cell, RefCell};

use super::answer::Answer;
use crate::kernel::Postback;

/// The place of one answer that comes later.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The token has no effect any more, because the request was answered or the client is gone.
    is_closed: Cell<bool>,
    /// Pieces that were put and have not reached the connection.
    pieces: RefCell<Vec<Piece>>,
    /// How many bytes the pieces have.
    waiting: Cell<usize>,
    /// The connection was told that there are pieces.
    is_told: Cell<bool>,
    /// `put` has returned `Put::High`.
    is_high: Cell<bool>,
    /// Called when more can be put.
    on_low: RefCell<Option<Postback>>,
}

/// A part of a streamed body.
#[derive(Debug)]
pub(super) enum Piece {
    Octets(Vec<u8>),
    End,
    /// The token was dropped, so no end will come.
    Cut,
}

/// What a token sends to the session of the connection.
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
        // A session that waits for room learns that the client is gone.
        self.low();
        self.on_low.take();
    }

    /// Adds a piece. Returns whether the connection must be told.
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

    /// Calls the postback if more can be put.
    pub(super) fn low(&self) {
        if self.is_high.replace(false) {
            self.on_low.borrow().iter().for_each(|postback| postback.call(()));
        }
    }
}
