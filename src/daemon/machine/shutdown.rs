//! The end of a Daemon, as its parent sees it.

use std::time::Duration;

use super::orders::Pending;
use super::{
    Effect, Fault, Grace, Intake, Key, Machine, Message, Moment, OrderId, Phase, Shutdown, Signal, Timer, Told,
    Verdict, Why,
};

impl Machine {
    /// Returns what TERM means now. A second TERM, or one after QUIT, comes from somebody who does not want to wait any longer.
    pub(super) fn shutdown_on_term(&self) -> Shutdown {
        if self.is_lame || self.is_draining() || self.is_shutting_down() {
            Shutdown::Immediate
        } else {
            self.settings.term
        }
    }

    /// A signal or a call: at once, or after the requests in hand.
    pub(super) fn stop(&mut self, at: &mut Moment<'_>, id: OrderId, how: Shutdown) {
        if how == Shutdown::Graceful {
            self.pending.stop(id, how);
            return self.begin_to_drain(at);
        }
        if self.has(Fault::TwoVerdicts) {
            self.answer_all(
                |pending| pending.take_slower_stops().into_iter().flat_map(|id| [id, id]).collect(),
                Verdict::Superseded,
            );
        }
        self.answer_all(Pending::take_slower_stops, Verdict::Superseded);
        self.pending.stop(id, how);
        if !self.is_shutting_down() {
            return self.end(at, how);
        }
        if self.has(Fault::SecondStopIgnored) {
            return;
        }
        self.cuts_requests = true;
        self.hurry_successor();
        // After a QUIT it makes the end come sooner: children are told as well.
        self.signal_children(Signal::Term);
        if self.has_left() && !self.is_alone() {
            // They had the time of a replaced child.
            let left = self.grace_for(at, how);
            self.give_grace(at, left);
        }
        if self.has(Fault::GraceBeginsAnew) {
            self.give_grace(at, self.settings.shutdown_timeout);
        }
        if self.is_alone() {
            self.effects.push(Effect::TellWhatIsLeft);
        }
    }

    /// Has clients hear of it first, if they are given time for that.
    fn begin_to_drain(&mut self, at: &mut Moment<'_>) {
        let lame_duck = self.settings.lame_duck;
        if self.is_lame || self.is_shutting_down() || self.is_draining() {
            return;
        }
        self.supersede_reload();
        self.settle_upgrade(at);
        if self.is_resting() {
            // Clients go to the successor.
            return self.drain(at, self.settings.shutdown_timeout);
        }
        if lame_duck.is_zero() {
            return self.drain(at, self.settings.shutdown_timeout);
        }
        self.is_lame = true;
        self.give_grace(at, self.settings.shutdown_timeout);
        self.effects.extend([Effect::Say(Message::LameDuck(lame_duck)), Effect::Arm(Timer::LameDuck, lame_duck)]);
    }

    /// Clients have had that time.
    pub(super) fn end_lame_duck(&mut self, at: &mut Moment<'_>) {
        if self.is_lame {
            let left = self.rest_of_grace(at);
            self.drain(at, left);
        }
    }

    /// Returns how long children may take to end. What a graceful end has taken so far, and what clients were given before it, is part
    /// of `shutdown_timeout`.
    fn rest_of_grace(&mut self, at: &Moment<'_>) -> Duration {
        self.grace.as_mut().map_or(self.settings.shutdown_timeout, |grace| grace.left(at.now))
    }

    /// The same. After an upgrade it may be more than `shutdown_timeout`, for as long as nobody is in a hurry.
    fn grace_for(&mut self, at: &Moment<'_>, how: Shutdown) -> Duration {
        let left = self.rest_of_grace(at);
        let is_cut = self.has_left() && how == Shutdown::Immediate;
        if is_cut { left.min(self.settings.shutdown_timeout) } else { left }
    }

    /// Has the requests that wait for a child served before the end: they are in hand as well, their clients were accepted. All of
    /// that may take so long.
    pub(super) fn drain(&mut self, at: &mut Moment<'_>, limit: Duration) {
        if self.is_shutting_down() || self.is_draining() {
            return;
        }
        self.is_lame = false;
        self.give_grace(at, limit);
        if self.intake == Intake::Open && self.has_requests() {
            self.pause_intake();
        }
        self.end_if_drained(at);
    }

    /// Gives children so much time, in which this process runs: what is stopped with it can't end.
    fn give_grace(&mut self, at: &Moment<'_>, left: Duration) {
        let grace = Grace::new(left, self.settings.look_every(), at.now);
        self.grace = Some(grace);
        if !self.has(Fault::GraceNotArmed) {
            self.effects.push(Effect::Arm(Timer::Grace, grace.next_look()));
        }
    }

    /// Children that are told to end have no more than this time from now on.
    pub(super) fn shorten_grace(&mut self, at: &Moment<'_>, limit: Duration) {
        if !self.is_alone() {
            let left = self.rest_of_grace(at);
            self.give_grace(at, left.min(limit));
        }
    }

    /// Looks how much is left of that time. After it nothing is waited for any longer.
    pub(super) fn look_at_grace(&mut self, at: &mut Moment<'_>) {
        let Some(grace) = &mut self.grace else { return };
        if !grace.left(at.now).is_zero() {
            let next = grace.next_look();
            return self.effects.push(Effect::Arm(Timer::Grace, next));
        }
        if self.is_shutting_down() { self.kill_children(at) } else { self.end(at, Shutdown::Graceful) }
    }

    /// Ends a Daemon that is to end when there is a child for every request.
    pub(super) fn end_if_drained(&mut self, at: &mut Moment<'_>) {
        if !self.has_requests() {
            self.end(at, Shutdown::Graceful);
        }
    }

    /// Shuts the Daemon down: its children, and the session in this process. A second time it does nothing.
    pub(super) fn end(&mut self, at: &mut Moment<'_>, how: Shutdown) {
        if self.is_shutting_down() {
            return;
        }
        self.phase = Phase::ShuttingDown;
        self.is_lame = false;
        self.supersede_reload();
        self.settle_upgrade(at);
        self.cuts_requests = how == Shutdown::Immediate;
        if self.cuts_requests {
            self.hurry_successor();
        }
        self.effects.push(Effect::Say(Message::ShuttingDown { children: self.table.children().len() }));
        self.signal_children(if how == Shutdown::Graceful { Signal::Quit } else { Signal::Term });
        // For those that are stopped. It does nothing else to the others.
        self.signal_children(Signal::Cont);
        self.requests.clear();
        self.effects.extend([Effect::DropRequests, Effect::DisarmAll, Effect::End(how)]);
        self.reap_vanished(at);
        if !self.is_alone() {
            let left = self.grace_for(at, how);
            self.give_grace(at, left);
        }
    }

    pub(super) fn signal_children(&mut self, signal: Signal) {
        let mut keys: Vec<(u64, Key)> = self.table.children().iter().map(|child| (child.number, child.key)).collect();
        keys.sort_unstable();
        self.effects.extend(keys.into_iter().map(|(_, key)| Effect::Signal(key, signal)));
    }

    /// The grace is over.
    fn kill_children(&mut self, at: &mut Moment<'_>) {
        // The babysitter does not come any more.
        self.reap_vanished(at);
        if !self.has(Fault::NotKilled) {
            for child in self.table.children_mut() {
                child.told = Told::Die;
                self.effects
                    .extend([Effect::Say(Message::NotEnded(child.key)), Effect::Signal(child.key, Signal::Kill)]);
            }
            self.effects.push(Effect::KillForeign);
        }
        // One that other code waits for, or whose end was not told, is noticed then.
        self.give_grace(at, self.settings.shutdown_timeout);
    }

    /// After the last child was reaped nothing is left to be killed.
    pub(super) fn finish_if_alone(&mut self) {
        if !self.is_shutting_down() || !self.is_alone() {
            return;
        }
        // While those who have asked can still be answered.
        self.answer_all(Pending::take_stops, Verdict::Applied);
        self.answer_all(Pending::take_reopens, Verdict::Refused(Why::ShuttingDown));
        if !std::mem::replace(&mut self.is_finished, true) {
            self.effects.extend([Effect::DisarmAll, Effect::Finish]);
        }
    }

    /// Tells whether this process has no children, and none on the way.
    fn is_alone(&self) -> bool {
        let in_flight = if self.has(Fault::EndsWithForkInFlight) { 0 } else { self.table.in_flight().len() };
        self.table.children().is_empty() && in_flight == 0 && self.foreign == 0
    }

    /// So many children that other code forked are left.
    pub(super) fn foreign_changed(&mut self, at: &Moment<'_>, number: usize) {
        let was_alone = self.is_alone();
        self.foreign = number;
        if self.is_shutting_down() && was_alone && number > 0 {
            self.is_finished = false;
            self.give_grace(at, self.settings.shutdown_timeout);
        }
    }
}
