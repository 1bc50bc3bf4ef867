//! A schedule: all that happens to a virtual daemon, as data. One line of text holds it, and is read back.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use crate::daemon::machine::{Rules, Shutdown};
use crate::daemon::settings::{Forking, Given, Reloading, Settings};

/// A run of the simulation is a function of this.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub knobs: Knobs,
    /// In the order of their times.
    pub acts: Vec<Act>,
}

/// One disturbance, or one crowd of clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Act {
    /// When, in milliseconds from the start.
    pub at: u32,
    pub kind: Kind,
    /// What they mean depends on the kind.
    pub args: [u32; 3],
}

macro_rules! knobs {
    ($($(#[$doc:meta])* $name:ident = $default:expr;)*) => {
        /// The settings of the Daemon and of its world. Times are in milliseconds unless said otherwise.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct Knobs {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Default for Knobs {
            fn default() -> Knobs {
                Knobs { $($name: $default,)* }
            }
        }

        impl Knobs {
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Finds a knob by its place in the list of names.
            pub fn knob(&mut self, place: usize) -> &mut u32 {
                let knobs = [$(&mut self.$name),*];
                knobs.into_iter().nth(place).expect("a place in the list of names")
            }
        }
    };
}

knobs! {
    /// 1 for a post-forking daemon.
    post = 0;
    max = 6;
    start = 2;
    min = 1;
    /// `max_spare`.
    most = 3;
    /// How many requests a child handles; 0 for any number.
    requests = 0;
    jitter = 0;
    burst = 32;
    rate = 64;
    target = 20;
    /// `shrink_hold`, and 1 more; 0 for the default.
    hold = 0;
    start_limit = 60_000;
    /// `shutdown_timeout`.
    stop_limit = 10_000;
    babysit = 10_000;
    /// 0 for none, as the next.
    request_limit = 0;
    long_limit = 0;
    cpu_limit = 600_000;
    /// In MiB; 0 for none.
    memory_limit = 0;
    /// From a child's fork to its first `Wait`.
    boot = 5;
    /// From the news of a client to the accept, in microseconds.
    accept = 100;
    /// What a fork costs the parent, in microseconds.
    fork = 400;
    /// How long a child takes to exit, in microseconds.
    exit = 300;
    /// The parent sees what has happened in so long a time at once, in any order; 0: as it happens.
    batch = 0;
    /// 1: forks are carried out after all that has happened meanwhile was told.
    lazy = 0;
    /// 1: children go on while the machine looks at the board.
    race = 0;
    /// 1: the system does not tell how many clients wait.
    blind = 0;
    /// How many clients may wait.
    backlog = 128;
    /// 1: a launcher waits.
    launcher = 0;
    /// 1: the application takes clients while it is told to accept, and not later.
    eager = 0;
    /// In minutes: how long nothing happens at the end.
    calm = 0;
    /// How it ends at last: 0 by TERM, 1 by QUIT.
    gentle = 0;
    /// 1: TERM means an end after the requests in hand.
    term = 0;
    /// `lame_duck`: how long clients are served before such an end.
    duck = 0;
    /// How long a configuration may take to load.
    load_limit = 10_000;
    probation = 10_000;
    surge = 1;
    unavailable = 0;
    /// How long replaced children may go on with their work.
    drain = 60_000;
    /// How long a successor may take to greet, and to take over.
    greeting = 2000;
    upgrade_limit = 60_000;
    /// What the small accidents of the run are drawn from.
    salt = 0;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $word:literal;)*) => {
        /// What a disturbance does.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            pub fn word(self) -> &'static str {
                match self {
                    $(Kind::$name => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// So many clients come: number, service time, and which kind, see [`Client`](super::clients::Kind).
    Wave "wave";
    /// The application hands in so many requests although it was told to pause.
    Push "push";
    /// Forks fail for so long, for a reason with this number; 0 for good.
    ForkFails "forkfails";
    /// Forks cost so many microseconds, for so long.
    ForkSlow "forkslow";
    /// The parent does not run for so long; with a second 1, nor do the children.
    Suspend "suspend";
    /// An order: which, and for which child.
    Order "order";
    /// The same, from within the application's handling of the next announcement.
    Nest "nest";
    /// Children go wrong: so many of the next forks, how, and how late.
    Bad "bad";
    /// Something happens to a child: which, what.
    Hit "hit";
    /// For so long the news of deaths come so much later; 0: they are lost.
    Late "late";
    /// For so long, rings come so much later; 0: they are lost.
    Mute "mute";
    /// A bell rings for nothing.
    Bell "bell";
    /// The news of the last deaths come again.
    Again "again";
    /// Something comes that does not fit.
    Stray "stray";
    /// So many children of other code.
    Foreign "foreign";
    /// The launcher dies.
    Widow "widow";
    /// The log file can't be opened for so long.
    NoLog "nolog";
    /// The configuration file is changed, and a reload asked for: how it loads, how its children go wrong, and its sizes, see
    /// [`File`](super::reload::File).
    Reload "reload";
    /// An upgrade is asked for: how it goes, how fast the successor is, and how late it fails, see
    /// [`Script`](super::successor::Script).
    Upgrade "upgrade";
}

impl Knobs {
    pub fn settings(&self) -> Settings {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let maybe = |number: u32| (number > 0).then(|| ms(number));
        let (request_timeout, long_timeout) = (maybe(self.request_limit), maybe(self.long_limit));
        let longest = self.stop_limit.max(self.request_limit).max(self.long_limit);
        let max_children = self.max.max(1);
        let is_pre = self.post == 0;
        let of_pool = |number: u32| if is_pre { number.max(1) } else { 0 };
        Settings {
            alias: "Daemon".to_owned(),
            verbose: false,
            children_return: false,
            forking: if is_pre { Forking::Pre } else { Forking::Post },
            max_children,
            start_children: of_pool(self.start.min(max_children)),
            max_spare: of_pool(self.most.max(self.min)),
            min_spare: of_pool(self.min),
            given: Given::default(),
            requests: NonZeroU64::new(self.requests.into()),
            requests_jitter: self.jitter.min(self.requests.saturating_sub(1)).into(),
            fork_burst: self.burst.max(1),
            forks_per_second: self.rate.max(1),
            wait_target: ms(self.target.max(1)),
            shrink_hold: self.hold.checked_sub(1).map(ms),
            start_timeout: ms(self.start_limit.max(1)),
            shutdown_timeout: ms(self.stop_limit.max(100)),
            term: if self.term > 0 { Shutdown::Graceful } else { Shutdown::Immediate },
            lame_duck: ms(self.duck.min(self.stop_limit.max(100) / 2)),
            health_limit: Duration::from_secs(30),
            gives_up: false,
            babysit: ms(self.babysit.max(100)),
            rules: Rules {
                request_timeout,
                long_timeout,
                exit_timeout: ms(longest.max(100)),
                cpu_limit: ms(self.cpu_limit.max(1)),
                memory_limit: (self.memory_limit > 0).then(|| u64::from(self.memory_limit) << 20),
            },
            reload: Reloading {
                is_possible: true,
                load_timeout: ms(self.load_limit.max(1)),
                probation: ms(self.probation),
                surge: if self.unavailable == 0 { self.surge.max(1) } else { self.surge },
                max_unavailable: self.unavailable,
                drain_limit: ms(self.drain.max(1)),
            },
            upgrade_timeout: ms(self.upgrade_limit.max(1)),
            greeting_limit: ms(self.greeting.max(1)),
        }
    }
}

impl fmt::Display for Plan {
    /// Leaves out what is as by default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut knobs, mut default) = (self.knobs, Knobs::default());
        let mut separator = "";
        for (place, name) in Knobs::NAMES.iter().enumerate() {
            let value = *knobs.knob(place);
            if value != *default.knob(place) {
                write!(f, "{separator}{name}={value}")?;
                separator = " ";
            }
        }
        for Act { at, kind, args } in &self.acts {
            write!(f, "; {at} {}", kind.word())?;
            let used = args.iter().rposition(|arg| *arg > 0).map_or(0, |last| last + 1);
            args[..used].iter().try_for_each(|arg| write!(f, " {arg}"))?;
        }
        Ok(())
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let mut parts = text.split(';').map(str::trim);
        let mut plan = Plan::default();
        for word in parts.next().unwrap_or_default().split_whitespace() {
            let knob = word.split_once('=').and_then(|(name, value)| {
                let place = Knobs::NAMES.iter().position(|known| *known == name)?;
                Some((place, value.parse().ok()?))
            });
            let (place, value) = knob.ok_or_else(|| format!("no setting: {word}"))?;
            *plan.knobs.knob(place) = value;
        }
        for part in parts.filter(|part| !part.is_empty()) {
            plan.acts.push(act(part).ok_or_else(|| format!("no disturbance: {part}"))?);
        }
        Ok(plan)
    }
}

fn act(text: &str) -> Option<Act> {
    let mut words = text.split_whitespace();
    let at = words.next()?.parse().ok()?;
    let word = words.next()?;
    let kind = *Kind::ALL.iter().find(|kind| kind.word() == word)?;
    let mut args = [0; 3];
    for (place, word) in words.enumerate() {
        *args.get_mut(place)? = word.parse().ok()?;
    }
    Some(Act { at, kind, args })
}
