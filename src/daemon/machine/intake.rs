//! Which requests of a post-forking daemon get a child now, and when its application takes no more.

/// What a post-forking daemon has to do and may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Demand {
    /// All children not reaped yet, and the forks asked for but not carried out.
    pub children: u32,
    /// Requests that wait for a child, without those whose fork has been asked for.
    pub queued: usize,
    /// What the application was last told.
    pub intake: Intake,
    /// Never have more children than this.
    pub max_children: u32,
}

/// Whether the application takes new requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intake {
    /// It does: the beginning, and after `daemon_accept`.
    Open,
    /// It was sent `daemon_pause`.
    Paused,
}

/// What to tell the application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Notice {
    /// Send `daemon_pause`: the children have reached `max_children`.
    Pause,
    /// Send `daemon_accept`: there is room again, and no request waits for it.
    Accept,
    /// Nothing has changed for it.
    Nothing,
}

/// What to do about a post-forking daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PostForkDecision {
    /// Fork so many children, for the requests that have waited longest.
    pub fork: u32,
    /// Then tell the application this. It takes the forks for carried out or on their way.
    pub notice: Notice,
}

/// Decides what a post-forking daemon does: a child for each queued request while there is room, a pause exactly when
/// there is no more.
///
/// While forks fail and are put off, don't ask: there is nothing to decide.
///
/// POE: `check_scoreboard` in `POE::Component::Daemon`, once a second, so that more than `max_children` may be forked
/// in between.
pub fn postfork(demand: Demand) -> PostForkDecision {
    let room = demand.max_children.saturating_sub(demand.children);
    let fork = u32::try_from(demand.queued).unwrap_or(u32::MAX).min(room);
    // Room left over means that the queue is empty: otherwise it would have been used.
    let notice = match (demand.intake, fork == room) {
        (Intake::Open, true) => Notice::Pause,
        (Intake::Paused, false) => Notice::Accept,
        _ => Notice::Nothing,
    };
    PostForkDecision { fork, notice }
}
