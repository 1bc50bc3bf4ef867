//! The switches: the options of a session, and what becomes of exceptions.

use std::fmt;
use std::str::FromStr;

use super::Kernel;
use super::context::Context;
use super::peek::Names;
use super::queue::Event;
use super::sessions::SessionId;
use crate::name::Name;

/// An option of a session: what the kernel logs about it.
///
/// POE: the names that `option` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionOption {
    /// The kernel warns of each event for which the session has neither a state nor `_default`.
    Default,
    /// The kernel logs each event that the session gets.
    Trace,
    /// The kernel warns of each state that is redefined.
    Debug,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Switch {
    /// The option is off. Default.
    Off,
    /// The option is on.
    On,
}

/// A word that is not the name of an option, or means neither on nor off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownOption(String);

impl fmt::Display for UnknownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such option or setting: {}", self.0)
    }
}

impl std::error::Error for UnknownOption {}

impl FromStr for SessionOption {
    type Err = UnknownOption;

    /// Reads an option's name, in upper or lower case.
    fn from_str(word: &str) -> Result<SessionOption, UnknownOption> {
        match word.to_ascii_lowercase().as_str() {
            "default" => Ok(SessionOption::Default),
            "trace" => Ok(SessionOption::Trace),
            "debug" => Ok(SessionOption::Debug),
            _ => Err(UnknownOption(word.to_owned())),
        }
    }
}

impl FromStr for Switch {
    type Err = UnknownOption;

    /// Reads `on`, `yes`, `true`, `1`, or `off`, `no`, `false`, `0`, in upper or lower case.
    fn from_str(word: &str) -> Result<Switch, UnknownOption> {
        match word.to_ascii_lowercase().as_str() {
            "on" | "yes" | "true" | "1" => Ok(Switch::On),
            "off" | "no" | "false" | "0" => Ok(Switch::Off),
            _ => Err(UnknownOption(word.to_owned())),
        }
    }
}

/// The options of one session.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options(u8);

impl Options {
    pub(crate) fn has(self, option: SessionOption) -> bool {
        self.0 & 1 << option as u8 != 0
    }

    pub(crate) fn get(self, option: SessionOption) -> Switch {
        if self.has(option) { Switch::On } else { Switch::Off }
    }

    /// Returns the former setting.
    pub(crate) fn set(&mut self, option: SessionOption, switch: Switch) -> Switch {
        let former = self.get(option);
        match switch {
            Switch::On => self.0 |= 1 << option as u8,
            Switch::Off => self.0 &= !(1 << option as u8),
        }
        former
    }
}

/// What becomes of an exception that escapes from a state.
///
/// POE: the constant `CATCH_EXCEPTIONS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exceptions {
    /// The session gets a `DIE` signal. Default.
    BecomeSignals,
    /// All sessions are stopped as soon as the current event is done, and [`Kernel::run`] returns the exception. If the
    /// state was run by a [`call`](Kernel::call), the call returns the exception to its caller.
    EndTheRun,
}

impl<H: 'static> Context<'_, H> {
    /// Tells whether an option of the running session is on or off.
    ///
    /// POE: `$session->option` with a name.
    pub fn option(&mut self, option: SessionOption) -> Switch {
        self.options().map_or(Switch::Off, |options| options.get(option))
    }

    /// Sets an option of the running session, and returns its former setting.
    ///
    /// POE: `$session->option` with a name and a value.
    pub fn set_option(&mut self, option: SessionOption, switch: Switch) -> Switch {
        self.options().map_or(Switch::Off, |options| options.set(option, switch))
    }

    fn options(&mut self) -> Option<&mut Options> {
        let me = self.own_id();
        let body = self.kernel.bodies[me.slot()].as_mut().filter(|body| body.id == me);
        body.map(|body| &mut body.options)
    }
}

impl Kernel {
    /// Chooses what becomes of exceptions from now on, and returns the former choice.
    ///
    /// POE: `POE::Kernel->CATCH_EXCEPTIONS`, which is fixed when the program is compiled.
    #[doc(alias = "CATCH_EXCEPTIONS")]
    pub fn catch_exceptions(&mut self, exceptions: Exceptions) -> Exceptions {
        std::mem::replace(&mut self.core.exceptions, exceptions)
    }

    /// Logs an event that a session gets, with one more line if `_default` gets it.
    #[cold]
    pub(crate) fn trace_event(&self, id: SessionId, name: Name, event: &Event) {
        let session = self.core.describe_session(id);
        log::info!(target: "lenore::events", "{session} gets {name} ({})", event.location);
        if event.name != name {
            log::info!(target: "lenore::events", "{session} has no state {name}: {} gets it", event.name);
        }
    }
}

impl super::core::Core {
    /// Describes a session for the log: `session 3 (Daemon)`.
    pub(crate) fn describe_session(&self, id: SessionId) -> String {
        match self.sessions.get(id).map(|record| &record.aliases) {
            Some(aliases) if !aliases.is_empty() => {
                let names: Vec<Name> = aliases.keys().collect();
                format!("{id} ({})", Names(names.into_iter()))
            }
            _ => id.to_string(),
        }
    }
}
