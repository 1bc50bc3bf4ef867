//! Virtual clients, and the queue of the listener.

use std::collections::VecDeque;

/// One client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub kind: Kind,
    /// How long its request takes, in microseconds.
    pub service: u64,
    /// The child that was told of it, as slot and generation.
    pub told: Option<(usize, u32)>,
    /// It belongs to the crowd of which the growth is measured.
    pub is_probe: bool,
}

/// What a client does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Short,
    /// Its child reports `Long`.
    Long,
    /// Its request never ends.
    Endless,
    /// It keeps its connection after the request for four times as long, and then leaves.
    Keeper,
    /// The same, and then it has another request, and so on for ever.
    Lodger,
}

impl Kind {
    pub fn numbered(number: u32) -> Kind {
        match number {
            1 => Kind::Long,
            2 => Kind::Endless,
            3 => Kind::Keeper,
            4 => Kind::Lodger,
            _ => Kind::Short,
        }
    }

    pub const NUMBERS: u32 = 5;
}

/// The clients who wait to be accepted.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    clients: VecDeque<Client>,
    /// How many were turned away.
    pub refused: u64,
}

impl Queue {
    /// Lets a client in unless the queue is full.
    pub fn enter(&mut self, client: Client, limit: u32) -> bool {
        // The system lets one in more than it was told.
        let is_in = self.clients.len() <= limit as usize;
        if is_in {
            self.clients.push_back(client);
        } else {
            self.refused += 1;
        }
        is_in
    }

    pub fn accept(&mut self) -> Option<Client> {
        self.clients.pop_front()
    }

    pub fn last_mut(&mut self) -> Option<&mut Client> {
        self.clients.back_mut()
    }

    pub fn len(&self) -> u32 {
        self.clients.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}
