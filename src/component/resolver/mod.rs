//! `Resolver`: a few forked helpers look names up, so that a slow name server never blocks the loop.

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

/// A session that looks names up. This value is a handle to it, and can be copied to wherever names are used.
///
/// The system's own lookup blocks. With a slow name server, no session of the program runs for seconds. A resolver
/// gives lookups to a few helpers, which are forked processes. [`resolve`](Resolver::resolve) asks it for any session.
/// A [`SocketFactory`](crate::wheel::SocketFactoryBuilder::resolver) or a
/// [`TcpClient`](crate::component::TcpClient::resolver) that has a resolver asks it on its own.
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
/// - **Helpers.** The resolver forks one when it gets a question and no helper is free, but at most
///   [`helpers`](ResolverBuilder::helpers). Further questions wait. A helper that gets no question for
///   [`idle_timeout`](ResolverBuilder::idle_timeout) ends. All helpers end with the process, even if it is killed. A
///   process with several threads can't fork, so its questions are answered with [`ResolveError::NoHelper`].
/// - **Questions.** If the same question is asked again before its answer comes, it is looked up once. If a helper does
///   not answer within [`time_limit`](ResolverBuilder::time_limit), the resolver kills it, and the answer is
///   [`ResolveError::TimedOut`]. The resolver does not keep the program running, but a question without an answer does.
/// - **The cache.** Addresses stay in it for [`cache_for`](ResolverBuilder::cache_for), and failures for
///   [`cache_failures_for`](ResolverBuilder::cache_failures_for). The system's lookup does not say how long an answer
///   is valid. Answers from the cache, and those for numeric addresses, are posted at once.
/// - **Forked children.** In a child, such as one of a Daemon, the resolver starts with its parent's cache and without
///   helpers. Answers to the parent's questions come only in the parent.
///
/// POE: `POE::Component::Resolver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resolver {
    session: SessionId,
}

impl Resolver {
    /// Returns a builder, whose defaults suit most programs.
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

    /// Asks for the addresses of `host`, each with `port`, for the running session.
    ///
    /// The session gets `event` with ARG0 = a [`Resolved`], and then `args`. The question keeps the session alive until
    /// the answer.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the resolver has stopped, or [`Error::NoActiveSession`] if the running session has
    /// stopped.
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

    /// Asks for the addresses of `host`. `then` is called with the answer in a state of the resolver. In a process that
    /// is forked before the answer comes, it is not called.
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

    /// Discards all answers in the cache.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the resolver has stopped.
    ///
    /// POE: nothing like it. It has no cache.
    pub fn clear_cache<K: AsKernel>(self, kernel: &mut K) -> Result<(), Error> {
        kernel_of(kernel).core.post(self.session, session::CLEAR, ())
    }

    /// Stops the resolver and its helpers. Questions that wait are answered with [`ResolveError::Stopped`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the resolver has already stopped.
    ///
    /// POE: `shutdown`.
    pub fn shutdown<K: AsKernel>(self, kernel: &mut K) -> Result<(), Error> {
        kernel_of(kernel).core.post(self.session, session::SHUTDOWN, ())
    }

    /// Returns the resolver's session.
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

/// The function with which a helper looks names up.
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
    /// Sets the alias of the resolver's session. Default: `resolver N`, where N is the number of the session.
    ///
    /// POE: nothing like it.
    pub fn alias(mut self, alias: impl Into<Name>) -> Self {
        self.0.alias = Some(alias.into());
        self
    }

    /// Sets how many helpers a process may have at a time. Default: 4. Minimum: 1.
    ///
    /// POE: `max_resolvers`.
    #[doc(alias = "max_resolvers")]
    pub fn helpers(mut self, helpers: usize) -> Self {
        self.0.helpers = helpers;
        self
    }

    /// Sets how long a helper may take for a question, counted from when the helper gets it. The system tries several
    /// name servers, and each several times. The limit should be more than it needs to find one that answers. Default:
    /// 15 s. It must not be 0.
    ///
    /// POE: nothing like it.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.0.time_limit = limit;
        self
    }

    /// Sets how long a helper may wait for a question before it ends. With zero it ends after each question. Default:
    /// 15 s.
    ///
    /// POE: `idle_timeout`.
    pub fn idle_timeout(mut self, span: Duration) -> Self {
        self.0.idle_timeout = span;
        self
    }

    /// Sets how long the cache keeps addresses. With zero it keeps none. Default: 60 s.
    ///
    /// POE: nothing like it.
    pub fn cache_for(mut self, span: Duration) -> Self {
        self.0.cache_for = span;
        self
    }

    /// Sets how long the cache keeps failures to look a name up. With zero it keeps none. Default: 5 s.
    ///
    /// The cache never keeps [`ResolveError::TimedOut`] and [`ResolveError::NoHelper`].
    ///
    /// POE: nothing like it.
    pub fn cache_failures_for(mut self, span: Duration) -> Self {
        self.0.cache_failures_for = span;
        self
    }

    /// Sets how many answers the cache keeps. The oldest is dropped first. With zero there is no cache. Default: 1000.
    ///
    /// POE: nothing like it.
    pub fn cache_size(mut self, answers: usize) -> Self {
        self.0.cache_size = answers;
        self
    }

    /// Sets the function with which a helper looks a name up. It gets the host and the port, and may block. Default:
    /// the system's lookup, with [`ToSocketAddrs`].
    ///
    /// The function runs in the helper's process, so it can't change anything in the program.
    ///
    /// POE: nothing like it.
    pub fn lookup(mut self, lookup: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + 'static) -> Self {
        self.0.lookup = Rc::new(lookup);
        self
    }

    /// Creates the resolver's session, and forks no process yet.
    ///
    /// # Errors
    ///
    /// After an error nothing is created.
    ///
    /// - [`Error::InvalidSetting`] if `helpers` or `time_limit` is 0
    /// - [`Error::AliasTaken`]
    /// - [`Error::TooManySessions`]
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
