//! Looks into the listeners' queues: how many more children the clients there need, and whether they wait too long.
//!
//! While a child is idle the queues tell nothing, because the client at the front is about to be accepted. So a pool looks for
//! growth only while no child is idle: when a child rings, and every few milliseconds.
//!
//! Clients that wait too long are found without polling. The parent asks the kernel to be told of a client at its paused listeners.
//! While there is something to look at it looks once a second, and then asks again. An idle daemon does nothing. A busy daemon is
//! woken once a second.

use std::time::Duration;

use super::deaf::Asking;
use super::{
    Counts, Effect, Fault, Hearing, Held, Hold, Intake, Machine, Message, Moment, Overload, OverloadNews, Phase,
    Queues, Reckoning, ServiceTime, StartTime, Timer, Unheard, Watch, default_hold, may_retire,
};
use crate::daemon::settings::Forking;

/// What is known of the clients that wait in the queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    service: ServiceTime,
    pub(super) start: StartTime,
    hold: Hold,
    pub(super) seen: Backlog,
    /// Since when a child has been idle, as far as was seen.
    idle_since: Option<Duration>,
    /// When the queues are weighed next while no child is idle.
    weighed_at: Option<Duration>,
    /// How many requests were begun by children that are gone.
    pub(super) begun_by_dead: u64,
    pub(super) overload: Overload,
    full: Overload,
    unheard: Unheard,
    /// How many requests had been begun at the last look.
    begun_at_look: u64,
    /// How often in a row idle children were woken for clients that waited all the same.
    pub(super) in_vain: u32,
    pub(super) asking: Option<Asking>,
    watching: Watching,
}

/// How far the watch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Watching {
    #[default]
    Off,
    /// The kernel will tell of a client.
    Asked,
    /// It looks again after a while.
    Looking,
}

/// What the parent of a pre-forking server has seen in the queues of its listeners. Part of
/// [`DaemonStatus`](crate::daemon::DaemonStatus).
///
/// POE: nothing like it.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backlog {
    /// The parent has not looked yet. It looks only while no child is idle.
    #[default]
    Unseen,
    /// This system does not tell how many clients wait. The parent decides by the number of idle children alone.
    Unreadable,
    /// What the parent saw when it last looked.
    Seen(Reckoning),
}

/// What the clients in the queues ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// So many more children.
    pub(super) children: u32,
    /// More clients wait than children that are starting and spares that are due could serve.
    is_crowd: bool,
}

impl Clients {
    /// Takes note of whether a child is idle. A new child that is about to take the next client of a crowd is idle for a moment only.
    /// That does not end a spell in which no child was idle.
    fn note_idle(&mut self, now: Duration, is_idle: bool) {
        if self.idle_since.is_some_and(|since| now.saturating_sub(since) >= SHORTEST_LOOK) {
            self.service.someone_is_idle();
        }
        self.idle_since = if is_idle { Some(self.idle_since.unwrap_or(now)) } else { None };
    }
}

impl Machine {
    /// Returns what the clients in the queues ask for, and `None` if the system does not tell how many wait.
    pub(super) fn weigh(&mut self, at: &mut Moment<'_>, counts: Counts) -> Option<Asked> {
        let is_idle = counts.idle > 0 || self.phase != Phase::Running;
        self.clients.note_idle(at.now, is_idle);
        if is_idle && !self.has(Fault::WeighsWhileIdle) {
            return (self.clients.seen != Backlog::Unreadable).then(Asked::default);
        }
        let Some(queues) = at.outside.queues() else {
            self.clients.seen = Backlog::Unreadable;
            return None;
        };
        let begun = self.begun(at);
        let clients = &mut self.clients;
        clients.service.look(at.now, counts.busy, begun);
        let (service, start) = (clients.service.estimate(), clients.start.estimate());
        let reckoning = Reckoning::new(counts, queues.waiting, service, start, self.settings.wait_target);
        clients.seen = Backlog::Seen(reckoning);
        if counts.total() >= self.settings.max_children || self.no_fork_before.is_some() {
            return Some(Asked::default());
        }
        if reckoning.missing > 0 {
            self.effects.push(Effect::Say(Message::ClientsWait(reckoning)));
        }
        // A timer that runs is left alone: moved by each child that comes, it would not come due while they do.
        if self.clients.weighed_at.is_none_or(|due| due <= at.now) {
            let pause = start.max(SHORTEST_LOOK);
            self.clients.weighed_at = Some(at.now + pause);
            self.effects.push(Effect::Arm(Timer::WeighQueue, pause));
        }
        let is_crowd = queues.waiting.saturating_sub(counts.starting) > self.settings.min_spare;
        Some(Asked { children: reckoning.missing, is_crowd })
    }

    /// Returns how many requests were begun since the Daemon was.
    fn begun(&self, at: &Moment<'_>) -> u64 {
        let alive = self.table.children().iter().filter_map(|child| at.outside.says(child.key));
        self.clients.begun_by_dead + alive.map(|says| says.requests).sum::<u64>()
    }

    /// Takes note of children that were asked for while clients asked for so many.
    pub(super) fn grown(&mut self, at: &Moment<'_>, forked: u32, asked: Asked) {
        let by = if asked.is_crowd { forked } else { forked.min(asked.children) };
        let hold = self.hold_time();
        self.clients.hold.grown(at.now, by, hold);
    }

    /// Returns whether spares are kept for the next wave.
    pub(super) fn hold(&mut self, at: &Moment<'_>, counts: Counts) -> Held {
        let hold = self.hold_time();
        let held = self.clients.hold.review(at.now, counts, self.settings.max_spare, hold);
        if let Some(next) = held.next
            && !self.has(Fault::HoldNeverEnds)
        {
            self.effects.push(Effect::Arm(Timer::EndHold, next));
        }
        held
    }

    fn hold_time(&self) -> Duration {
        self.settings.shrink_hold.unwrap_or_else(|| default_hold(self.clients.start.estimate()))
    }

    /// Returns how many of `number` idle children may be retired. Those that clients in the queue are about to take stay for
    /// now.
    pub(super) fn retirable(&mut self, at: &mut Moment<'_>, number: u32) -> u32 {
        if number == 0 {
            return 0;
        }
        let waiting = at.outside.queues().map_or(0, |queues| queues.waiting);
        let number = if self.has(Fault::SparesGoWhileClientsWait) { number } else { may_retire(number, waiting) };
        if waiting > 0 {
            self.effects.push(Effect::Arm(Timer::Maintain, LOOK));
        }
        number
    }

    /// Asks to be told of the next client, if it was not asked already and is not looking.
    pub(super) fn watch_queue(&mut self) {
        if self.clients.watching == Watching::Off {
            self.clients.watching = Watching::Asked;
            self.effects.push(Effect::Await(Watch::Queue));
        }
    }

    /// What waits in the queues is another process's affair.
    pub(super) fn stop_watching_queues(&mut self) {
        let clients = &mut self.clients;
        clients.service.someone_is_idle();
        (clients.idle_since, clients.weighed_at, clients.asking) = (None, None, None);
        clients.unheard = Unheard::default();
        clients.watching = Watching::Off;
        self.effects.push(Effect::Forget(Watch::Queue));
        let timers = [Timer::WeighQueue, Timer::LookAtQueue, Timer::HearAnswers, Timer::WatchQueue];
        self.effects.extend(timers.map(Effect::Disarm));
        self.stop_relief();
    }

    /// A client waits, perhaps for no longer than it takes a child to accept it.
    pub(super) fn client_in_queue(&mut self, at: &mut Moment<'_>) {
        if self.is_resting() {
            return;
        }
        self.clients.watching = Watching::Looking;
        self.look_at_queue(at);
    }

    /// Looks at the queues once, and decides when to look again.
    pub(super) fn look_at_queue(&mut self, at: &mut Moment<'_>) {
        if self.is_shutting_down() || self.clients.watching != Watching::Looking {
            return;
        }
        self.review_deaf(at);
        let (queues, waiting) = waiting(at);
        let (counts, max) = (self.count(at), self.settings.max_children);
        let is_pre = self.settings.forking == Forking::Pre;
        let is_full = if is_pre {
            counts.total() >= max && counts.idle + counts.starting == 0
        } else {
            // Failed forks pause it as well.
            self.intake == Intake::Paused && counts.total() >= max
        };
        self.tell_overload(at, if is_full { waiting } else { 0 }, queues);
        self.tell_full(at, queues);
        let begun = self.begun(at);
        if std::mem::replace(&mut self.clients.begun_at_look, begun) != begun {
            // A client was accepted meanwhile: this one may have come just now.
            self.clients.unheard = Unheard::default();
            self.clients.in_vain = 0;
        }
        let hearing = self.clients.unheard.look(at.now, if is_pre { counts.idle } else { 0 }, waiting);
        if hearing == Hearing::Deaf && !self.has(Fault::DeafNotWoken) {
            let found = self.wake_deaf(at, waiting);
            self.clients.in_vain = if found { 0 } else { self.clients.in_vain.saturating_add(1) };
        }
        if is_pre {
            self.make_room_of_deaf(at, waiting);
        }
        if waiting == 0 {
            self.clients.in_vain = 0;
        }
        let Clients { overload, full, .. } = &self.clients;
        let goes_on = hearing == Hearing::Unclear || overload.is_present() || full.is_present();
        let timer = if goes_on || self.has(Fault::LooksForEver) { Timer::LookAtQueue } else { Timer::WatchQueue };
        // Whatever these clients wait for, it is not the idle children: no need to wake those each second.
        let look = if self.has(Fault::LooksTooOften) { LOOK / 5 } else { LOOK };
        let pause = look * (1 << self.clients.in_vain.min(6));
        self.effects.push(Effect::Arm(timer, pause));
    }

    /// Idle children do not accept: whether others have taken the clients is seen in a second, and not after a pause that has
    /// grown.
    pub(super) fn look_again_soon(&mut self) {
        self.clients.in_vain = 0;
        self.clients.watching = Watching::Looking;
        self.effects.extend([Effect::Disarm(Timer::WatchQueue), Effect::Arm(Timer::LookAtQueue, LOOK)]);
    }

    /// A second after a look that found nothing: the next client is news again.
    pub(super) fn watch_queue_again(&mut self) {
        if !self.is_shutting_down() && !self.is_resting() {
            self.clients.watching = Watching::Off;
            self.watch_queue();
        }
    }

    /// A line when clients begin to wait for a full pool, and one when they do no longer.
    fn tell_overload(&mut self, at: &Moment<'_>, waiting: u32, queues: Option<Queues>) {
        let message = match self.clients.overload.look(at.now, waiting) {
            Some(OverloadNews::Begun) => {
                let limit = queues.map(|queues| queues.limit);
                Message::OverloadBegun { max_children: self.settings.max_children, waiting, limit }
            }
            Some(OverloadNews::Ended { lasted, deepest }) => Message::OverloadEnded { lasted, deepest },
            None => return,
        };
        self.effects.push(Effect::Say(message));
    }

    /// A line when the system begins to turn clients away, and one when it does no longer.
    fn tell_full(&mut self, at: &Moment<'_>, queues: Option<Queues>) {
        let (waiting, limit) = queues.and_then(|queues| queues.full).unwrap_or_default();
        let message = match self.clients.full.look(at.now, waiting) {
            Some(OverloadNews::Begun) => Message::QueueFull { waiting, limit },
            Some(OverloadNews::Ended { lasted, deepest }) => Message::QueueHasRoom { lasted, deepest },
            None => return,
        };
        self.effects.push(Effect::Say(message));
    }
}

/// Reads the queues. The second value is how many clients wait: where the system does not say how many, whether one does.
pub(super) fn waiting(at: &mut Moment<'_>) -> (Option<Queues>, u32) {
    let queues = at.outside.queues();
    (queues, queues.map_or_else(|| u32::from(at.outside.has_client()), |queues| queues.waiting))
}

/// How often the queues are looked at for growth while no child is idle, unless children take longer to start.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// How often they are looked at otherwise, at most: a little more than [`Unheard`] wants.
const LOOK: Duration = Duration::from_millis(1010);
