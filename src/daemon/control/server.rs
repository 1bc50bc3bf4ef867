//! The socket with its clients.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::client::{Client, Watching};
use super::denials::Denials;
use super::dialect::{Code, Dialect, Refusal, Reply};
use super::orders::Orders;
use super::pace::{Pace, Seldom};
use super::places::places;
use super::rights::{Policy, Rights};
use super::socket::Socket;
use super::state_file::StateFile;
use crate::daemon::view::Phase;
use crate::kernel::Handle;
use crate::sys::peer::peer_of;

/// What the parent has of the control socket.
#[derive(Debug)]
pub(in crate::daemon) struct Control {
    pub(in crate::daemon) socket: Socket,
    policy: Policy,
    /// How many clients may be connected.
    places: usize,
    pub(in crate::daemon) clients: BTreeMap<u64, Client>,
    /// How many have connected.
    connected: u64,
    /// Those whose place another one has got. The kernel still watches them.
    pub(in crate::daemon) evicted: Vec<Client>,
    pub(in crate::daemon) orders: Orders,
    /// The orders to end that are answered when all is over.
    pub(in crate::daemon) stops: Vec<u64>,
    /// How many events there were.
    pub(in crate::daemon) events: u64,
    /// What the Daemon did when that was last told.
    pub(in crate::daemon) phase: Option<Phase>,
    pub(in crate::daemon) state_file: Option<StateFile>,
    pace: Pace,
    pub(in crate::daemon) denials: Denials,
    /// Until when the listener is left alone; `None` if the kernel watches it.
    pub(in crate::daemon) rests_until: Option<Instant>,
    /// No client can be accepted.
    pub(in crate::daemon) shortage: Seldom,
    /// Clients come too fast.
    pub(in crate::daemon) flood: Seldom,
    /// The log knows that the path is lost and can't be made again.
    pub(in crate::daemon) is_loss_told: bool,
}

/// What has come of accepting.
#[derive(Debug)]
pub(in crate::daemon) enum Accepted {
    /// A client with this number.
    Client(u64),
    /// One that was sent away.
    Refused,
    /// Nobody waits.
    None,
    /// Too many clients have connected. The next one has to wait for this long.
    TooFast(Duration),
    /// It was not possible.
    Failed(Errno),
}

impl Control {
    pub(in crate::daemon) fn new(socket: Socket, policy: Policy, state_file: Option<StateFile>) -> Control {
        Control {
            socket,
            policy,
            places: places(MOST_CLIENTS),
            clients: BTreeMap::new(),
            connected: 0,
            evicted: Vec::new(),
            orders: Orders::default(),
            stops: Vec::new(),
            events: 0,
            phase: None,
            state_file,
            pace: Pace::new(Instant::now()),
            denials: Denials::default(),
            rests_until: None,
            shortage: Seldom::default(),
            flood: Seldom::default(),
            is_loss_told: false,
        }
    }

    /// Ends what clients that watch get.
    pub(in crate::daemon) fn say_goodbye(&mut self) {
        for client in self.clients.values_mut() {
            if let Some(Watching { dialect, .. }) = client.watches {
                let end = Reply { verdict: "ended", text: String::new(), data: "{}".to_owned() };
                client.answer(dialect, &Ok(end));
                client.flush(Instant::now());
            }
        }
    }

    /// Lets go of everything, and returns the descriptors that the kernel may watch.
    pub(in crate::daemon) fn into_handles(self) -> Vec<Handle> {
        let clients = self.clients.into_values().chain(self.evicted).map(|client| client.handle);
        clients.chain([self.socket.handle().clone()]).collect()
    }

    /// Takes one client.
    pub(in crate::daemon) fn accept(&mut self, now: Instant) -> Accepted {
        if let Some(pause) = self.pace.pause(now) {
            return Accepted::TooFast(pause);
        }
        let handle = match self.socket.accept() {
            Ok(Some(handle)) => handle,
            Ok(None) => return Accepted::None,
            Err(errno) => return Accepted::Failed(errno),
        };
        self.pace.count(now);
        let Ok(peer) = peer_of(&handle) else { return Accepted::Refused };
        let rights = self.policy.rights(&peer);
        if self.clients.len() >= self.places && !self.make_room() && !self.displace(rights) {
            let text = format_args!("{} clients are connected", self.places);
            refuse(handle, &Refusal::new(Code::Busy, text));
            return Accepted::Refused;
        }
        self.connected += 1;
        self.clients.insert(self.connected, Client::new(handle, peer, rights, now));
        Accepted::Client(self.connected)
    }

    /// Finds a client whose place another one can have: one that has hung up, or one that may ask for nothing. What clients have
    /// asked for before they have hung up is still done, for as many of them as there are places.
    fn make_room(&mut self) -> bool {
        let (mut spare, mut left) = (None, 0);
        for (number, client) in &mut self.clients {
            let has_left = client.has_left();
            if client.rights.is_none() || has_left && client.is_over() {
                spare = Some(*number);
                break;
            }
            left += usize::from(has_left);
        }
        let spare = spare.and_then(|number| self.clients.remove(&number));
        let connected = self.clients.len();
        // Where descriptors are few, those that have hung up have none of their own.
        let most = if self.places < MOST_CLIENTS { self.places } else { 2 * MOST_CLIENTS };
        let is_room = spare.is_some() || connected - left < self.places && connected < most;
        self.evicted.extend(spare);
        is_room
    }

    /// Takes the place of a client with fewer rights that does not wait for an order. So clients that may only read can't keep an
    /// operator from stopping the Daemon.
    fn displace(&mut self, rights: Option<Rights>) -> bool {
        let is_less = |client: &&Client| client.rights < rights && client.waits.is_none();
        let lesser = self.clients.iter().filter(|(_, client)| is_less(client));
        let lesser = lesser.min_by_key(|(_, client)| client.rights).map(|(number, _)| *number);
        let displaced = lesser.and_then(|number| self.clients.remove(&number));
        let is_room = displaced.is_some();
        self.evicted.extend(displaced);
        is_room
    }

    /// Returns the clients whose time is up.
    pub(in crate::daemon) fn overdue(&self, now: Instant) -> Vec<u64> {
        let is_overdue = |client: &Client| client.is_over() || client.due().is_some_and(|due| due <= now);
        self.clients.iter().filter(|(_, client)| is_overdue(client)).map(|(number, _)| *number).collect()
    }

    /// Returns how long nothing has to be done about clients and their orders; `None` if nothing has to be.
    pub(in crate::daemon) fn next_due(&self, now: Instant) -> Option<Duration> {
        let due = self.clients.values().filter_map(Client::due).chain(self.orders.next_due()).min();
        due.map(|due| due.saturating_duration_since(now))
    }
}

/// Sends a client away that has said nothing yet: in the dialect that any reader can read.
fn refuse(handle: Handle, refusal: &Refusal) {
    let mut out = Vec::new();
    Dialect::Text.write(&Err(refusal.clone()), &mut out);
    let mut handle = handle;
    let _ = std::io::Write::write(&mut handle, &out);
}

/// How many clients may be connected at best.
pub(super) const MOST_CLIENTS: usize = 32;
