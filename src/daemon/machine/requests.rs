//! The requests of a post-forking server: in their order, each with a child of its own.

use super::{
    Announcement, Counts, Demand, Effect, Fault, Intake, Machine, Moment, Notice, Published, Request, Thresholds,
    postfork,
};
use crate::daemon::settings::Forking;

impl Machine {
    /// Queues a request. It is forked for below, if there is room.
    pub(super) fn take_request(&mut self, request: Request) {
        if self.settings.forking == Forking::Post && !self.is_shutting_down() {
            self.requests.push_back(request);
        }
    }

    /// Asks for a fork for the first queued request if there is room, and tells the application whether there is more.
    ///
    /// One fork at a time; the next is asked for when it is known what became of this one. If several were under way and the
    /// first failed, the others would overtake its request.
    pub(super) fn serve_requests(&mut self, at: &mut Moment<'_>) {
        self.advance_roll(at);
        if self.no_fork_before.is_some() {
            return;
        }
        let in_flight = if self.has(Fault::InFlightNotCounted) { 0 } else { self.table.in_flight().len() };
        let demand = Demand {
            children: (self.table.children().len() + in_flight - self.probes().min(self.settings.reload.surge as usize))
                as u32,
            queued: self.requests.len(),
            intake: self.intake,
            max_children: self.settings.max_children,
        };
        let decision = postfork(demand);
        if decision.fork > 0
            && self.table.in_flight().is_empty()
            && let Some(request) = self.requests.pop_front()
        {
            self.ask_for_fork(Some(request));
        }
        if self.is_draining() {
            return self.end_if_drained(at);
        }
        match decision.notice {
            Notice::Pause => self.pause(),
            // Not before the fork has succeeded: it may be one that has failed before.
            Notice::Accept if self.table.in_flight().is_empty() && !self.is_resting() => self.accept(),
            Notice::Accept | Notice::Nothing => {}
        }
        let is_full = self.intake == Intake::Paused;
        if !self.is_resting() {
            if is_full {
                self.watch_queue();
            }
            self.review_relief(at, Counts::default(), is_full);
        }
        self.publish(Published { thresholds: Thresholds::SILENT, is_full });
        // These were accepted, and wait all the same.
        if is_full && !self.requests.is_empty() {
            self.client_waits(at);
        }
    }

    /// Counts the children without a request, and those on the way: they are beside the others.
    fn probes(&self) -> usize {
        let children = self.table.children().iter().filter(|child| child.is_probe).count();
        children + self.table.in_flight().iter().filter(|fork| fork.is_probe).count()
    }

    /// Tells the application to go on. At once, as with the pause: a posted signal would come after a pause that is
    /// decided on later, and have the last word.
    fn accept(&mut self) {
        self.intake = Intake::Open;
        if !self.has(Fault::AcceptNotAnnounced) {
            self.effects.push(Effect::Announce(Announcement::Accept));
        }
    }

    /// Has clients wait outside, unless they do already.
    pub(super) fn pause_intake(&mut self) {
        if self.intake == Intake::Open {
            self.pause();
        }
    }

    /// Tells the application to take no more, before it can take the next one.
    fn pause(&mut self) {
        self.intake = Intake::Paused;
        self.effects.push(Effect::Announce(Announcement::Pause));
    }

    /// Puts a request that could not be served back in its place.
    pub(super) fn put_back(&mut self, request: Request) {
        if self.has(Fault::RequestLost) {
            return;
        }
        if self.has(Fault::RequestOvertaken) {
            return self.requests.push_back(request);
        }
        let place = self.requests.partition_point(|other| other.number < request.number);
        self.requests.insert(place, request);
    }

    /// Tells whether requests have no child yet.
    pub(super) fn has_requests(&self) -> bool {
        self.settings.forking == Forking::Post && !(self.requests.is_empty() && self.table.in_flight().is_empty())
    }
}
