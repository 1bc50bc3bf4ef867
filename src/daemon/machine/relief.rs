//! A client that waits goes before one that keeps a child and has nothing in hand.
//!
//! A child whose connection is idle says so ([`Status::Keep`]). While there can't be more children, and none waits, the
//! parent asks the kernel to be told of a client at its paused listeners. If one comes, and still waits after [`PATIENCE`],
//! the child that has kept its client for longest is asked to let it go. Most clients of a full pool wait for less: some
//! child is about to be done.
//!
//! Nothing is polled, and no request wakes the parent. A child rings when it begins to keep a connection in a full pool. While
//! some child keeps a connection, a child also rings when it is the last that waits and is taken.
//!
//! The parent looks no sooner than [`PATIENCE`] after it was told. So a pool that is full for a moment a thousand times a second
//! does not cost it more than a pool that is full all the time.

use std::time::Duration;

use super::{Child, Counts, Effect, Intake, Key, Machine, Message, Moment, Process, Signal, Status, Timer, Watch};
use crate::daemon::settings::Forking;

/// How far the parent has come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Relief {
    /// Not needed, or not possible.
    #[default]
    Off,
    /// It will be told of a client that waits.
    Watching,
    /// It was told, and looks after a moment whether the client still waits. Then so many looks more if a child was asked and
    /// has not taken notice.
    Looking(u32),
}

impl Machine {
    /// Looks whether clients may wait for whom no child is there. Returns the idle count below which a child has to ring for
    /// that, 0 for never.
    pub(super) fn review_relief(&mut self, at: &Moment<'_>, counts: Counts, is_full: bool) -> u32 {
        let is_of_use = is_full && self.kept(at).next().is_some();
        let is_short = counts.idle == 0 && counts.starting == 0;
        match (self.relief, is_of_use && is_short) {
            (Relief::Looking(_), _) => return 0,
            (Relief::Off, true) => {
                self.relief = Relief::Watching;
                self.effects.push(Effect::Await(Watch::Relief));
            }
            (Relief::Watching, false) => {
                self.relief = Relief::Off;
                self.effects.push(Effect::Forget(Watch::Relief));
            }
            (Relief::Off, false) | (Relief::Watching, true) => {}
        }
        u32::from(is_of_use && !is_short)
    }

    /// A client waits that no child accepts, or that was accepted and has no child. If no child keeps a client, the next one
    /// that begins to will ring.
    pub(super) fn client_waits(&mut self, at: &Moment<'_>) {
        if self.is_shutting_down() || matches!(self.relief, Relief::Looking(_)) {
            return;
        }
        self.relief = Relief::Off;
        if self.kept(at).next().is_some() {
            self.look_later(0);
        }
    }

    /// A moment after a client began to wait: whether it was that client or is another one does not matter.
    pub(super) fn relieve(&mut self, at: &mut Moment<'_>) {
        let before = std::mem::take(&mut self.relief);
        if self.is_shutting_down() {
            return;
        }
        if let (Relief::Looking(more @ 1..), true) = (before, at.outside.is_asked_to_release()) {
            return self.look_later(more - 1);
        }
        let waits = match self.settings.forking {
            Forking::Pre => {
                let counts = self.count(at);
                counts.idle + counts.starting == 0 && at.outside.has_client()
            }
            // A child on its way out leaves its place to one of them.
            _ => {
                let outside = usize::from(!self.is_resting() && at.outside.has_client());
                self.intake == Intake::Paused && self.requests.len().max(outside) > self.leaving(at)
            }
        };
        if waits && let Some(key) = self.longest_kept(at) {
            self.effects.extend([
                Effect::Say(Message::AskedToRelease(key)),
                Effect::AskToRelease(key),
                Effect::Signal(key, Signal::Cont),
            ]);
            self.look_later(LOOKS);
        }
    }

    /// Clients in the queues are another process's affair.
    pub(super) fn stop_relief(&mut self) {
        self.relief = Relief::Off;
        self.effects.extend([Effect::Forget(Watch::Relief), Effect::Disarm(Timer::Relieve)]);
    }

    fn look_later(&mut self, more: u32) {
        self.relief = Relief::Looking(more);
        self.effects.push(Effect::Arm(Timer::Relieve, PATIENCE));
    }

    /// The children that keep a client, as far as they are of use to another one.
    fn kept<'a>(&'a self, at: &'a Moment<'_>) -> impl Iterator<Item = &'a Child> {
        self.table.children().iter().filter(|child| {
            !child.is_retiring() && !child.is_stopped && at.outside.status(child.key) == Some(Status::Keep)
        })
    }

    /// Counts the children that will be gone soon.
    fn leaving(&self, at: &Moment<'_>) -> usize {
        let is_leaving = |child: &&Child| child.is_retiring() || at.outside.status(child.key) == Some(Status::Exit);
        self.table.children().iter().filter(is_leaving).count()
    }

    /// Finds the child that has kept its client for longest. One that is stopped would go on, which is not for us to say.
    fn longest_kept(&self, at: &mut Moment<'_>) -> Option<Key> {
        let since = |child: &Child| Some((at.outside.says(child.key)?.since_ms, child.number, child.key));
        let mut kept: Vec<(u64, u64, Key)> = self.kept(at).filter_map(since).collect();
        kept.sort_unstable();
        kept.into_iter().map(|(.., key)| key).find(|key| at.outside.process(*key) == Process::Runs)
    }
}

/// How long a client waits before another one is let go for it, and how long the parent waits for what comes of that.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often the parent looks whether a child has taken notice, before it asks another one: half a second in all.
const LOOKS: u32 = 25;
