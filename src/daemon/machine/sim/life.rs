//! What a virtual child does, stage by stage.

use super::child::{Child, Flaw, Sent, Stage};
use super::clients::{Client, Kind};
use super::world::{Event, World};
use crate::daemon::machine::{Answer, End, Fork, Status};

impl World {
    /// A child has been forked.
    pub fn begin_child(&mut self, fork: Fork, client: Option<Client>) {
        let (flaw, delay) = self.files.flaw(fork.edition).unwrap_or_else(|| self.next_flaw());
        let now = self.now;
        let slot = fork.key.slot;
        if self.children[slot].as_ref().is_some_and(Child::is_alive) {
            self.wrong = Some(("one owner for each slot", format!("{} has a child that lives", fork.key)));
        }
        self.children[slot] = Some(Child {
            key: fork.key,
            edition: fork.edition,
            is_probe: fork.is_probe,
            born: now,
            flaw,
            delay,
            end: None,
            is_gone: false,
            is_told_of: false,
            is_stopped: false,
            stops: 0,
            stopped_at: 0,
            next: None,
            turn: 0,
            is_woken: false,
            is_retiring: false,
            share: fork.share,
            client,
            answer: Answer::Accepts,
            pending: Vec::new(),
            log: self.log,
            was_ready: false,
            since: now,
            stopped_since: 0,
            stops_since: 0,
            cpu: 0,
            cpu_at: now,
            is_hot: false,
            cpu_before: 0,
        });
        let boot = self.boot(slot);
        self.goes_on(slot, boot / 5, if flaw == Flaw::DiesAtOnce { Stage::Die } else { Stage::Claim });
    }

    fn next_flaw(&mut self) -> (Flaw, u32) {
        let Some((left, flaw, delay, every_other)) = self.flaws.front_mut() else { return (Flaw::None, 0) };
        let next = (*flaw, *delay);
        let skips = *every_other && *left % 2 == 0;
        *left -= 1;
        if *left == 0 {
            self.flaws.pop_front();
        }
        if skips { (Flaw::None, 0) } else { next }
    }

    /// Returns how long a child takes from its fork to its first `Wait`.
    fn boot(&mut self, slot: usize) -> u64 {
        let boot = u64::from(self.knobs.boot.max(1)) * 1000;
        let jitter = u64::from(self.dice.below(1 + boot as u32 / 4));
        let child = self.children[slot].as_ref();
        let late =
            child.filter(|child| child.flaw == Flaw::StartsSlowly).map_or(0, |child| u64::from(child.delay) * 1000);
        boot + jitter + late
    }

    /// Plans what a child does next.
    pub fn goes_on(&mut self, slot: usize, after: u64, stage: Stage) {
        let Some(child) = &mut self.children[slot] else { return };
        child.turn += 1;
        if child.is_stopped {
            child.next = Some((after, stage));
            return;
        }
        child.next = Some((self.now + after, stage));
        let event = Event::Stage(slot, child.key.generation, child.turn);
        self.plan(after, event);
    }

    /// A client was announced to a child that waits, or it has a reason to look by itself.
    pub fn wake(&mut self, slot: usize) {
        let accept = u64::from(self.knobs.accept);
        if let Some(child) = &mut self.children[slot]
            && !child.is_woken
            // What it is about to do besides waiting comes first.
            && child.next.is_none()
        {
            child.is_woken = true;
            self.goes_on(slot, accept, Stage::Accept);
        }
    }

    /// A stage or a signal is due.
    pub fn happen_to_child(&mut self, event: Event) {
        if self.now < self.frozen_until {
            let after = self.frozen_until - self.now + self.now.saturating_sub(self.frozen_at).min(1000);
            return self.plan(after, event);
        }
        match event {
            Event::Stage(slot, generation, turn) => {
                let is_due =
                    |child: &&mut Child| child.key.generation == generation && child.turn == turn && child.runs();
                if let Some(child) = self.children[slot].as_mut().filter(is_due)
                    && let Some((_, stage)) = child.next.take()
                {
                    self.stage(slot, stage);
                }
            }
            Event::Signal(slot, generation, signal) => {
                let is_meant = |child: &&Child| child.key.generation == generation && child.is_alive();
                if self.children[slot].as_ref().filter(is_meant).is_some() {
                    self.signal(slot, signal);
                }
            }
            _ => {}
        }
    }

    fn stage(&mut self, slot: usize, stage: Stage) {
        let Some(child) = &self.children[slot] else { return };
        let (flaw, delay) = (child.flaw, u64::from(child.delay) * 1000);
        let boot = u64::from(self.knobs.boot.max(1)) * 1000;
        match stage {
            Stage::Claim => {
                let now = self.now_ms();
                let says = &mut self.slots[slot].says;
                (says.status, says.started_ms, says.since_ms) = (Some(Status::Forked), now, now);
                self.slots[slot].is_torn = flaw == Flaw::Torn;
                if let Some(child) = &mut self.children[slot] {
                    child.since = self.now;
                }
                match flaw {
                    Flaw::HangsInSetup => {}
                    Flaw::StopsInSetup => self.goes_on(slot, 10, Stage::Stop),
                    Flaw::DiesInSetup => self.goes_on(slot, boot / 5, Stage::Die),
                    _ if self.is_pre() || self.is_probe(slot) => self.goes_on(slot, boot / 5, Stage::Setup),
                    _ => self.begin_first_request(slot),
                }
            }
            Stage::Setup => {
                self.set_status(slot, Status::FirstWait);
                let rest = self.boot(slot) * 3 / 5;
                match flaw {
                    Flaw::HangsBeforeReady => {}
                    Flaw::DiesBeforeReady => self.goes_on(slot, rest, Stage::Die),
                    _ => self.goes_on(slot, rest, Stage::Ready),
                }
            }
            Stage::Ready => {
                let born = self.children[slot].as_ref().map_or(self.now, |child| child.born);
                self.longest_start = self.longest_start.max(self.now - born);
                if self.is_probe(slot) {
                    self.set_status(slot, Status::Wait);
                    return self.leave(slot);
                }
                self.wait(slot);
            }
            Stage::Accept => self.accept(slot),
            Stage::Done => self.done(slot),
            Stage::KeepOver => match self.children[slot].as_ref().and_then(|child| child.client) {
                // Each time it takes longer, so that it does not fill the whole run.
                Some(client) if client.kind == Kind::Lodger => {
                    let service = (client.service * 2).min(60_000_000);
                    self.begin_request(slot, Client { service, ..client });
                }
                _ => self.finish(slot),
            },
            Stage::LetGo if flaw == Flaw::Keeps => {
                self.set_status(slot, Status::Req);
                self.goes_on(slot, 5_000, Stage::Done);
            }
            Stage::LetGo => self.finish(slot),
            Stage::Stop => {
                self.stop(slot);
                if flaw == Flaw::Pauses {
                    let generation = self.children[slot].as_ref().map_or(0, |child| child.key.generation);
                    self.plan(delay.max(1000), Event::Signal(slot, generation, Sent::Cont));
                }
            }
            Stage::Scribble => self.slots[slot].says.status = None,
            Stage::Die => self.die(slot, flawed_end(flaw), matches!(flaw, Flaw::Vanishes | Flaw::VanishesBusy)),
        }
    }

    fn is_probe(&self, slot: usize) -> bool {
        self.children[slot].as_ref().is_some_and(|child| child.is_probe)
    }

    /// A child waits for a request, and looks whether there is one.
    fn wait(&mut self, slot: usize) {
        self.set_status(slot, Status::Wait);
        let Some(child) = &mut self.children[slot] else { return };
        child.is_woken = false;
        let delay = u64::from(child.delay) * 1000;
        match child.flaw {
            Flaw::DiesWhenReady | Flaw::CrashesWhenReady | Flaw::LeavesWhenReady | Flaw::Vanishes => {
                self.goes_on(slot, delay, Stage::Die);
            }
            Flaw::StopsIdle | Flaw::Pauses if !child.was_stopped() => self.goes_on(slot, delay, Stage::Stop),
            Flaw::Scribbles => self.goes_on(slot, delay, Stage::Scribble),
            _ if !self.queue.is_empty() => self.wake(slot),
            _ => {}
        }
    }

    fn accept(&mut self, slot: usize) {
        let Some(child) = &mut self.children[slot] else { return };
        child.is_woken = false;
        let is_deaf =
            matches!(child.flaw, Flaw::Wedged | Flaw::Shut) || self.slots[slot].says.status != Some(Status::Wait);
        if is_deaf {
            return;
        }
        if let Some(client) = self.take_client() {
            self.begin_request(slot, client);
        }
    }

    /// Takes the first client out of the queue.
    pub fn take_client(&mut self) -> Option<Client> {
        let client = self.queue.accept()?;
        self.last_accept = self.now;
        self.served += 1;
        self.probes_waiting -= u32::from(client.is_probe);
        Some(client)
    }

    fn begin_first_request(&mut self, slot: usize) {
        let client = self.children[slot].as_ref().and_then(|child| child.client);
        let nobody = Client { kind: Kind::Short, service: 1000, told: None, is_probe: false };
        self.begin_request(slot, client.unwrap_or(nobody));
    }

    fn begin_request(&mut self, slot: usize, client: Client) {
        let now = self.now;
        // A child that keeps a client counts the client's next request as the same one.
        let was_taken = self.status(slot).is_some_and(Status::is_taken);
        self.slots[slot].says.requests += u64::from(!was_taken);
        self.set_status(slot, if client.kind == Kind::Long { Status::Long } else { Status::Req });
        let Some(child) = &mut self.children[slot] else { return };
        child.client = Some(client);
        child.cpu_before = child.cpu(now);
        let half = client.service / 2 + 1;
        match child.flaw {
            Flaw::DiesBusy | Flaw::DiesOfMemory | Flaw::VanishesBusy => self.goes_on(slot, half, Stage::Die),
            Flaw::StopsBusy if !child.was_stopped() => self.goes_on(slot, half, Stage::Stop),
            Flaw::Burns => {}
            _ if client.kind == Kind::Endless => {}
            _ => self.goes_on(slot, client.service, Stage::Done),
        }
    }

    /// The request in hand is finished.
    fn done(&mut self, slot: usize) {
        let Some(child) = &self.children[slot] else { return };
        match child.client {
            Some(client) if matches!(client.kind, Kind::Keeper | Kind::Lodger) => {
                let is_retiring = child.is_retiring;
                self.set_status(slot, Status::Keep);
                if is_retiring {
                    self.goes_on(slot, 10, Stage::LetGo);
                } else {
                    self.goes_on(slot, client.service * 4, Stage::KeepOver);
                }
            }
            _ => self.finish(slot),
        }
    }

    /// Nothing is in hand any more.
    fn finish(&mut self, slot: usize) {
        let Some(child) = &mut self.children[slot] else { return };
        child.client = None;
        let has_had_enough = child.share.is_some_and(|share| self.slots[slot].says.requests >= share);
        let goes = child.is_retiring || has_had_enough;
        if !self.is_pre() {
            self.set_status(slot, Status::Wait);
            self.leave(slot);
        } else if goes {
            self.leave(slot);
        } else {
            self.wait(slot);
        }
    }

    fn leave(&mut self, slot: usize) {
        self.set_status(slot, Status::Exit);
        let Some(child) = &mut self.children[slot] else { return };
        child.client = None;
        let slow = if child.flaw == Flaw::ExitsSlowly { u64::from(child.delay) * 1000 } else { 0 };
        self.goes_on(slot, u64::from(self.knobs.exit) + slow, Stage::Die);
    }

    fn stop(&mut self, slot: usize) {
        let now = self.now;
        let Some(child) = &mut self.children[slot] else { return };
        if child.is_stopped {
            return;
        }
        child.meter(now);
        (child.is_stopped, child.stopped_at) = (true, now);
        child.stops += 1;
        child.stops_since += 1;
        child.turn += 1;
        if let Some((at, _)) = &mut child.next {
            *at = at.saturating_sub(now);
        }
    }

    fn go_on(&mut self, slot: usize) {
        let now = self.now;
        let Some(child) = &mut self.children[slot] else { return };
        child.is_stopped = false;
        child.cpu_at = now;
        child.stopped_since += now - child.stopped_at.max(child.since);
        let pending = std::mem::take(&mut child.pending);
        let (flaw, client) = (child.flaw, child.client);
        match (child.next.take(), flaw, client) {
            (Some((after, stage)), ..) => self.goes_on(slot, after, stage),
            (None, Flaw::StopsInSetup, None) => self.goes_on(slot, 1000, Stage::Setup),
            (None, Flaw::StopsBusy, Some(client)) if client.kind != Kind::Endless => {
                self.goes_on(slot, client.service, Stage::Done);
            }
            _ => {}
        }
        for signal in pending {
            if self.children[slot].as_ref().is_some_and(Child::runs) {
                self.signal(slot, signal);
            }
        }
    }

    /// A signal has arrived at a child that lives.
    fn signal(&mut self, slot: usize, signal: Sent) {
        let Some(child) = &mut self.children[slot] else { return };
        match signal {
            Sent::Kill => return self.die(slot, killed(9), false),
            Sent::Stop => return self.stop(slot),
            Sent::Cont if child.is_stopped => self.go_on(slot),
            _ if child.is_stopped => {
                if !child.pending.contains(&signal) {
                    child.pending.push(signal);
                }
                return;
            }
            _ => {}
        }
        let status = self.status(slot);
        let Some(child) = self.children[slot].as_mut().filter(|child| child.runs()) else { return };
        let ignores = child.flaw == Flaw::IgnoresEnd || (child.flaw == Flaw::IgnoresQuit && signal == Sent::Quit);
        match signal {
            Sent::Cont => self.look(slot),
            Sent::Hup => child.log = self.log,
            Sent::Segv => self.die(slot, killed(11), false),
            Sent::Int | Sent::Term | Sent::Quit if ignores => {}
            // It has not come round to listening.
            Sent::Int if status == Some(Status::Forking) => self.die(slot, killed(2), false),
            Sent::Term if status == Some(Status::Forking) => self.die(slot, killed(15), false),
            Sent::Int | Sent::Term | Sent::Quit if status == Some(Status::Exit) => {}
            Sent::Quit if child.flaw == Flaw::DiesOnRetire => self.die(slot, End::Exited(1), false),
            Sent::Quit if child.client.is_some() => {
                child.is_retiring = true;
                if status == Some(Status::Keep) {
                    self.goes_on(slot, 10, Stage::LetGo);
                }
            }
            Sent::Int | Sent::Term | Sent::Quit => self.leave(slot),
            Sent::Kill | Sent::Stop => {}
        }
    }

    /// A child was woken: is there a client for it, or is it to let one go?
    fn look(&mut self, slot: usize) {
        if let Some(child) = &mut self.children[slot] {
            child.answer = match child.flaw {
                Flaw::Wedged => child.answer,
                Flaw::Shut => Answer::Paused,
                // It is about to do something else, in the state that it runs.
                _ if child.next.is_some() && !child.is_woken => child.answer,
                _ => Answer::Accepts,
            };
        }
        if self.release == Some(slot) {
            self.release = None;
            if self.status(slot) == Some(Status::Keep) {
                self.goes_on(slot, 10, Stage::LetGo);
            }
        }
        if self.slots[slot].is_idle && !self.queue.is_empty() {
            self.wake(slot);
        }
    }

    pub fn die(&mut self, slot: usize, end: End, is_gone: bool) {
        let now = self.now;
        let Some(child) = self.children[slot].as_mut().filter(|child| child.is_alive()) else { return };
        child.meter(now);
        child.end = Some(end);
        child.is_gone = is_gone;
        child.turn += 1;
        child.next = None;
        if child.flaw == Flaw::DiesOfMemory && end == killed(9) {
            self.oom_kills += 1;
        }
        if is_gone {
            return;
        }
        match self.late {
            (until, 0) if now < until => {}
            (until, late) if now < until => self.plan(late * 1000, Event::Deaths),
            _ => self.plan(50, Event::Deaths),
        }
    }
}

fn flawed_end(flaw: Flaw) -> End {
    match flaw {
        Flaw::DiesAtOnce | Flaw::DiesInSetup | Flaw::DiesBeforeReady | Flaw::DiesWhenReady | Flaw::DiesOnRetire => {
            End::Exited(1)
        }
        Flaw::DiesBusy => killed(9),
        Flaw::DiesOfMemory => killed(9),
        Flaw::CrashesWhenReady => End::Signaled { signal: 11, has_core: true },
        _ => End::Exited(0),
    }
}

fn killed(signal: i32) -> End {
    End::Signaled { signal, has_core: false }
}
