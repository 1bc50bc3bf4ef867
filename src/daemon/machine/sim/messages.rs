//! The log has a line when something begins, and one when it ends.

use std::collections::BTreeMap;

use super::rules::{Violation, broken};
use crate::daemon::machine::{Key, Message};

/// What the log knows to be so.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    crash_loop: bool,
    forks_fail: bool,
    overload: bool,
    full: bool,
    is_ending: bool,
    /// Of each child: it is rogue, it was retired, it is not ready, it is too large.
    children: BTreeMap<(Key, u8), bool>,
}

impl Messages {
    /// A child has ended: nothing more is said of it.
    pub fn forget(&mut self, key: Key) {
        (0..6).for_each(|what| {
            self.children.remove(&(key, what));
        });
    }

    pub fn say(&mut self, message: &Message) -> Result<(), Violation> {
        let (is_new, what) = match *message {
            Message::BoardFull { slots } => return broken("there is a slot for each child", slots),
            Message::CrashLoop { is_known: false, .. } => {
                (!std::mem::replace(&mut self.crash_loop, true), "crash loop")
            }
            Message::CrashLoop { is_known: true, .. } => (self.crash_loop, "crash loop that is known"),
            Message::CrashLoopOver { .. } => (std::mem::take(&mut self.crash_loop), "end of a crash loop"),
            // Forks may begin to fail for another reason.
            Message::ForksFail { .. } => {
                self.forks_fail = true;
                (true, "")
            }
            Message::ForksSucceed { .. } => (std::mem::take(&mut self.forks_fail), "end of a shortage"),
            Message::OverloadBegun { .. } => (!std::mem::replace(&mut self.overload, true), "overload"),
            Message::OverloadEnded { .. } => (std::mem::take(&mut self.overload), "end of an overload"),
            Message::QueueFull { .. } => (!std::mem::replace(&mut self.full, true), "full queue"),
            Message::QueueHasRoom { .. } => (std::mem::take(&mut self.full), "end of a full queue"),
            Message::ShuttingDown { .. } => (!std::mem::replace(&mut self.is_ending, true), "shutdown"),
            Message::Rogue { key, .. } => {
                self.children.insert((key, 0), true);
                (true, "")
            }
            Message::RogueCleared(key) => (self.children.remove(&(key, 0)).is_some(), "end of a rogue"),
            Message::Retired(key) => (self.children.insert((key, 1), true).is_none(), "retired child"),
            Message::Unready { key, .. } => (self.children.insert((key, 2), true).is_none(), "unready child"),
            Message::TooLarge { key, .. } => (self.children.insert((key, 3), true).is_none(), "large child"),
            Message::Unresponsive { key, .. } => (self.children.insert((key, 5), true).is_none(), "deaf child"),
            Message::Responsive(key) => (self.children.remove(&(key, 5)).is_some(), "end of a deaf child"),
            Message::Forked(key) => (self.children.insert((key, 4), true).is_none(), "fork"),
            _ => return Ok(()),
        };
        if is_new { Ok(()) } else { broken("the log has one line for a change", format_args!("{what}: {message:?}")) }
    }
}
