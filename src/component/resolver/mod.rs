//! `Resolver`: names are looked up by a few forked helpers, so that a slow name server never holds the loop.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use crate::args::IntoArgs;
use crate::error::Error;
use crate::kernel::{AsKernel, Core, InState, SessionId, core_of, kernel_of};
use crate::name::Name;

mod answer;
mod cache;
mod helper;
mod session;

pub(crate) use answer::{Asker, Question};
pub use answer::{ResolveError, Resolved};

/// A session that looks names up, by the name of its alias or not: this handle of it can be copied to wherever names are used.
///
/// The system's own look-up blocks, for seconds if a name server is slow, and none of the program's sessions runs meanwhile. A
/// resolver has it done by a few helpers, forked processes that do nothing else. [`resolve`](Resolver::resolve) asks it for
/// any session. A [`SocketFactory`](crate::wheel::SocketFactoryBuilder::resolver) and a
/// [`TcpClient`](crate::component::TcpClient::resolver) that are told of it ask it by themselves.
///
/// ```
/// use std::time::Duration;
/// use lenore::component::{Resolved, Resolver};
/// use lenore::{Kernel, Session};
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let resolver = Resolver::builder().time_limit(Duration::from_secs(5)).spawn(&mut kernel)?;
/// Session::new(())
///     .state("_start", move |cx| Ok(resolver.resolve(cx, "127.0.0.1", 80, "resolved", ())?))
///     .state("resolved", |cx| {
///         let resolved: Resolved = cx.take(0)?;
///         println!("{}: {:?}", resolved.host, resolved.outcome?); // 127.0.0.1: [127.0.0.1:80]
///         Ok(())
///     })
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// *Helpers* are forked when there is something to look up and none is free, [`helpers`](ResolverBuilder::helpers) at most.
/// Further questions wait. A helper that has had nothing to do for [`idle_timeout`](ResolverBuilder::idle_timeout) ends. All end with
/// the process, also when it is killed. A process with several threads can't fork; its questions are answered with
/// [`ResolveError::NoHelper`].
///
/// *A question* that is the same as one under way is asked once. A helper that has not answered within
/// [`time_limit`](ResolverBuilder::time_limit) is killed, and its question answered with [`ResolveError::TimedOut`].
///
/// *The cache* keeps answers for [`cache_for`](ResolverBuilder::cache_for) and failures for
/// [`cache_failures_for`](ResolverBuilder::cache_failures_for): the system's look-up doesn't tell how long an answer is valid. An
/// answer from the cache, as one for a numeric address, is posted at once.
///
/// *In a forked child*, a Daemon's above all, the resolver has no helpers yet and the cache of its parent. Questions that the parent has
/// asked are the parent's: a child is not told of the answers. The resolver keeps no program running, but a question that is
/// not answered does.
///
/// POE: `POE::Component::Resolver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resolver {
    session: SessionId,
}

impl Resolver {
    /// Begins a resolver with settings that suit most programs.
    pub fn builder() -> ResolverBuilder {
        ResolverBuilder(Settings {
            alias: None,
            helpers: 4,
            time_limit: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(15),
            cache_for: Duration::from_secs(60),
            cache_failures_for: Duration::from_secs(5),
            cache_size: 1000,
            lookup: Rc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())),
        })
    }

    /// Asks for the addresses of `host`, each with `port`, for the running session, which gets `event` with them.
    ///
    /// The event gets ARG0 = a [`Resolved`] and then `args`. The question keeps the session alive until it is answered.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the resolver has stopped; [`Error::NoActiveSession`] once the running session has.
    ///
    /// POE: `resolve`, with `host`, `service`, `event` and `misc`.
    pub fn resolve(
        self,
        cx: &mut impl InState,
        host: impl Into<String>,
        port: u16,
        event: impl Into<Name>,
        args: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        let core = core_of(cx);
        core.running()?;
        let (host, postback) = (host.into(), core.postback(event, args)?);
        self.ask(core, host, port, move |resolved| postback.post((resolved,)))
    }

    /// Asks for the addresses of `host`; `then` is called with the answer in a state of the resolver, or not at all in a process
    /// that is forked before the answer comes.
    pub(crate) fn ask(
        self,
        core: &mut Core,
        host: String,
        port: u16,
        then: impl FnOnce(Resolved) + 'static,
    ) -> Result<(), Error> {
        core.resolve(self.session)?;
        let question = Question { host: host.clone(), port, pid: core.pid, asker: Asker::new(host, port, then) };
        core.post(self.session, session::RESOLVE, (question,))
    }

    /// Forgets all answers that it has kept.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the resolver has stopped.
    ///
    /// POE: nothing like it; that one keeps none.
    pub fn clear_cache<K: AsKernel>(self, kernel: &mut K) -> Result<(), Error> {
        kernel_of(kernel).core.post(self.session, session::CLEAR, ())
    }

    /// Ends the resolver and its helpers. Questions that wait are answered with [`ResolveError::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when the resolver has stopped.
    ///
    /// POE: `shutdown`.
    pub fn shutdown<K: AsKernel>(self, kernel: &mut K) -> Result<(), Error> {
        kernel_of(kernel).core.post(self.session, session::SHUTDOWN, ())
    }

    /// Returns its session.
    pub fn session(self) -> SessionId {
        self.session
    }
}

/// The settings of a [`Resolver`].
///
/// POE: the arguments of `new`.
#[must_use = "does nothing until it is spawned"]
pub struct ResolverBuilder(Settings);

struct Settings {
    alias: Option<Name>,
    helpers: usize,
    time_limit: Duration,
    idle_timeout: Duration,
    cache_for: Duration,
    cache_failures_for: Duration,
    cache_size: usize,
    lookup: Lookup,
}

/// What a helper looks names up with.
type Lookup = Rc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>>>;

impl fmt::Debug for ResolverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { alias, helpers, time_limit, .. } = &self.0;
        f.debug_struct("ResolverBuilder")
            .field("alias", alias)
            .field("helpers", helpers)
            .field("time_limit", time_limit)
            .finish_non_exhaustive()
    }
}

impl ResolverBuilder {
    /// Sets the alias of its session. Default: `resolver N`, with the number of the session.
    ///
    /// POE: nothing like it.
    pub fn alias(mut self, alias: impl Into<Name>) -> Self {
        self.0.alias = Some(alias.into());
        self
    }

    /// Sets how many helpers a process may have at a time. Default: 4. Not 0.
    ///
    /// POE: `max_resolvers`.
    #[doc(alias = "max_resolvers")]
    pub fn helpers(mut self, helpers: usize) -> Self {
        self.0.helpers = helpers;
        self
    }

    /// Sets how long a helper may take for a question, from when it gets it. Default: 15 s. Not 0.
    ///
    /// The system tries several name servers, and each several times: this should be more than it needs to find one that answers.
    ///
    /// POE: nothing like it.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.0.time_limit = limit;
        self
    }

    /// Sets after how long without a question a helper ends. Default: 15 s. With zero it ends after each question.
    ///
    /// POE: `idle_timeout`.
    pub fn idle_timeout(mut self, span: Duration) -> Self {
        self.0.idle_timeout = span;
        self
    }

    /// Sets how long addresses are kept in the cache. Default: 60 s. Zero: not at all.
    ///
    /// POE: nothing like it.
    pub fn cache_for(mut self, span: Duration) -> Self {
        self.0.cache_for = span;
        self
    }

    /// Sets how long it is kept in the cache that a name can't be looked up. Default: 5 s. Zero: not at all.
    ///
    /// That a helper took too long, or could not be had, is not kept.
    ///
    /// POE: nothing like it.
    pub fn cache_failures_for(mut self, span: Duration) -> Self {
        self.0.cache_failures_for = span;
        self
    }

    /// Sets how many answers are kept in the cache. Default: 1000. The oldest goes first. Zero: no cache.
    ///
    /// POE: nothing like it.
    pub fn cache_size(mut self, answers: usize) -> Self {
        self.0.cache_size = answers;
        self
    }

    /// Sets what a helper looks a name up with, a call that may block: it gets the host and the port. Default: the system's, by
    /// [`ToSocketAddrs`].
    ///
    /// The function runs in the helper's process, and so changes nothing in the program.
    ///
    /// POE: nothing like it.
    pub fn lookup(mut self, lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + 'static) -> Self {
        self.0.lookup = Rc::new(lookup);
        self
    }

    /// Creates the resolver's session. No process is forked yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for no helpers or no time; [`Error::AliasTaken`]; [`Error::TooManySessions`]. Nothing was created
    /// then.
    ///
    /// POE: `new`.
    pub fn spawn<K: AsKernel>(self, kernel: &mut K) -> Result<Resolver, Error> {
        let invalid = |setting| Err(Error::InvalidSetting { setting, reason: "it is 0" });
        match &self.0 {
            Settings { helpers: 0, .. } => return invalid("helpers"),
            Settings { time_limit: Duration::ZERO, .. } => return invalid("time_limit"),
            _ => {}
        }
        let kernel = kernel_of(kernel);
        super::tcp_server::check_alias(kernel, self.0.alias)?;
        Ok(Resolver { session: session::spawn(kernel, self.0)? })
    }
}
