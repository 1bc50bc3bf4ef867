//! Who looks at the status by HTTP: the listener, and its clients. Data only.

use std::net::TcpListener;
use std::time::{Duration, SystemTime};

use crate::filter::http::Httpd;
use crate::wheel::{ListenAccept, ReadWrite, WheelId};

/// The status listener.
pub(in crate::daemon) struct Visitors {
    /// The listening socket. It stays open while the parent does not accept. `None` once the Daemon has ended.
    pub(super) listener: Option<TcpListener>,
    /// Lets clients in; not before the Daemon begins, nor while another process has the service.
    pub(super) door: Option<ListenAccept>,
    pub(super) clients: Vec<Client>,
    /// Set when the door is closed. Until then each connected client may get one more answer.
    pub(super) leave_by: Option<SystemTime>,
    /// How many there may be at a time.
    places: usize,
}

/// One client.
pub(super) struct Client {
    pub(super) wheel: ReadWrite<Httpd>,
    pub(super) stage: Stage,
    /// When it is closed if it has come no further.
    pub(super) until: SystemTime,
    /// The answer that is being written is its last.
    pub(super) is_last: bool,
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// Its request has begun to come, or is the first.
    Asking,
    /// An answer is being written.
    Answered,
    /// It may have another request.
    Idle,
}

impl Visitors {
    /// There may be so many clients at a time.
    pub(in crate::daemon) fn new(listener: TcpListener, places: usize) -> Visitors {
        Visitors { listener: Some(listener), door: None, clients: Vec::new(), leave_by: None, places }
    }

    pub(super) fn is_full(&self) -> bool {
        self.clients.len() >= self.places
    }

    /// Makes room for one more client, by closing the connection of a client without a request in hand. That is the client that has
    /// been idle for longest, or else the first client that has sent nothing for a while. What other clients have sent may not be
    /// read yet.
    pub(super) fn make_room(&mut self, now: SystemTime) {
        if !self.is_full() {
            return;
        }
        let rank = |client: &Client| match client.stage {
            _ if !client.wheel.input_filter(|httpd| httpd.is_between_requests()) => None,
            Stage::Idle => Some((0, client.until)),
            Stage::Asking if client.until + SILENT <= now + TO_ASK => Some((1, client.until)),
            Stage::Asking | Stage::Answered => None,
        };
        let spare = self.clients.iter().enumerate().filter_map(|(place, client)| Some((rank(client)?, place))).min();
        if let Some((_, place)) = spare {
            drop(self.clients.swap_remove(place));
        }
    }

    pub(super) fn client(&mut self, id: WheelId) -> Option<&mut Client> {
        self.clients.iter_mut().find(|client| client.wheel.id() == id)
    }

    pub(super) fn remove(&mut self, id: WheelId) -> Option<Client> {
        let place = self.clients.iter().position(|client| client.wheel.id() == id)?;
        Some(self.clients.swap_remove(place))
    }

    /// Accepts no more clients, and gives connected clients until `leave_by` for one more request. A connected client has perhaps sent a
    /// request that the parent has not read. If the parent closed the connection now, the system would reset it.
    pub(super) fn dismiss(&mut self, leave_by: SystemTime) {
        self.door = None;
        self.leave_by.get_or_insert(leave_by);
    }

    /// Closes those that have no request in hand.
    pub(super) fn dismiss_idle(&mut self) {
        let is_idle = |client: &mut Client| {
            client.stage == Stage::Idle && client.wheel.input_filter(|httpd| httpd.is_between_requests())
        };
        self.clients.extract_if(.., is_idle).for_each(|client| client.wheel.close_after_flush());
    }

    /// Closes those that have not left in time.
    pub(super) fn turn_out(&mut self) {
        self.clients.drain(..).for_each(|client| client.wheel.close_after_flush());
    }

    /// Closes those whose time is up.
    pub(super) fn close_late(&mut self, now: SystemTime) {
        for client in &mut self.clients {
            let has_begun =
                client.stage == Stage::Idle && !client.wheel.input_filter(|httpd| httpd.is_between_requests());
            if has_begun {
                client.reach(Stage::Asking, now);
            }
        }
        self.clients.retain(|client| now < client.until);
    }
}

impl Client {
    pub(super) fn new(wheel: ReadWrite<Httpd>, now: SystemTime) -> Client {
        Client { wheel, stage: Stage::Asking, until: now + TO_ASK, is_last: false }
    }

    pub(super) fn reach(&mut self, stage: Stage, now: SystemTime) {
        let time = match stage {
            Stage::Asking => TO_ASK,
            Stage::Answered => TO_READ,
            Stage::Idle => TO_ASK_AGAIN,
        };
        (self.stage, self.until) = (stage, now + time);
    }
}

/// How many clients there may be at a time at best. One more is closed.
pub(super) const MOST_CLIENTS: usize = 64;

/// How long a client has for a request once it may come.
const TO_ASK: Duration = Duration::from_secs(10);

/// How long a client may be silent before another can have its place.
const SILENT: Duration = Duration::from_secs(1);

/// How long a client has to read an answer.
const TO_READ: Duration = Duration::from_secs(30);

/// How long a client may have no request.
const TO_ASK_AGAIN: Duration = Duration::from_secs(30);
