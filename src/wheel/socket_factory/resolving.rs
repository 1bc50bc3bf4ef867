//! Waiting for a resolver to look a name up, before a wheel connects.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::SockType;

use super::address::{Domain, Target, only};
use super::attempts::Attempts;
use super::builder::Problem;
use super::connecting::Connector;
use super::datagram::{Datagram, Local};
use super::report::Report;
use super::socket::{CallError, Options, Several};
use crate::component::{ResolveError, Resolved, Resolver};
use crate::kernel::{AfterFork, Core, Mailbox, Next, Readiness, Source, SourceKey, Turn, Wanted};

/// What to do with the addresses.
pub(super) struct Plan {
    pub(super) options: Options,
    pub(super) locals: Vec<Target>,
    pub(super) domain: Option<Domain>,
    pub(super) timeout: Option<Duration>,
}

/// A wheel that waits for a name, and then connects. It is a source without a descriptor, so that it keeps its session
/// alive and gets a turn for the answer.
pub(super) struct Resolving {
    report: Rc<Report>,
    resolver: Resolver,
    name: (String, u16),
    key: SourceKey,
    mailbox: Rc<Mailbox>,
    /// `None` once the answer has come.
    plan: RefCell<Option<Plan>>,
    answer: RefCell<Option<Resolved>>,
    /// The connector, once the name is looked up.
    connector: RefCell<Option<Rc<Connector>>>,
    /// Neither dropped nor finished.
    open: Cell<bool>,
}

impl Resolving {
    /// Asks the resolver, for the wheel's session.
    ///
    /// # Errors
    ///
    /// An error if the resolver has stopped, or if the kernel can't have another source.
    pub(super) fn start(
        core: &mut Core,
        report: Rc<Report>,
        resolver: Resolver,
        name: (String, u16),
        plan: Plan,
    ) -> Result<Rc<Resolving>, Problem> {
        let (owner, mailbox, mut plan, mut made) = (report.owner, core.mailbox(), Some(plan), None);
        let key = core.add_source(owner, |key| {
            let (report, name, mailbox) = (Rc::clone(&report), name.clone(), Rc::clone(&mailbox));
            let (plan, answer, connector) = (RefCell::new(plan.take()), RefCell::default(), RefCell::default());
            let open = Cell::new(true);
            made.insert(Rc::new(Resolving { report, resolver, name, key, mailbox, plan, answer, connector, open }))
                .clone()
        })?;
        let resolving: Rc<Resolving> = made.expect("add_source has made it");
        let asker: Weak<Resolving> = Rc::downgrade(&resolving);
        let asked = resolver.ask(core, name.0, name.1, move |resolved| {
            if let Some(asker) = asker.upgrade() {
                asker.answer.replace(Some(resolved));
                asker.mailbox.woken(asker.key);
            }
        });
        if let Err(error) = asked {
            core.remove_source(key);
            return Err(CallError::of_error("getaddrinfo", &error).into());
        }
        Ok(resolving)
    }

    pub(super) fn local(&self) -> io::Result<Local> {
        self.connector.borrow().as_ref().map_or_else(|| Err(Errno::ENOTCONN.into()), |connector| connector.local())
    }

    pub(super) fn let_go(&self) {
        if self.open.replace(false) {
            self.mailbox.dropped(self.key);
        }
        if let Some(connector) = self.connector.take() {
            connector.let_go();
        }
    }

    /// Connects to the addresses found, as a wheel with given addresses does.
    fn go_on(&self, cx: &mut Turn<'_>, plan: Plan, found: Vec<SocketAddr>) -> Result<(), CallError> {
        let Plan { options, locals, domain, timeout } = plan;
        let is_stream = options.kind == SockType::Stream;
        let remotes = only(domain, found)?.into_iter().map(Target::Ip).collect();
        let mut attempts = Attempts::new(options, locals, remotes);
        if is_stream {
            let connector = Connector::start(cx.core(), Rc::clone(&self.report), attempts, timeout);
            let connector = connector.map_err(|problem| match problem {
                Problem::Call(failure) => failure,
                Problem::Error(error) => CallError::of_error("connect", &error),
            })?;
            self.connector.replace(Some(connector));
            return Ok(());
        }
        let Some(((fd, _), _, remote)) = attempts.next() else { return Err(attempts.failure()) };
        self.report.succeed(cx, Datagram::new(fd, &remote).into_args(Some(remote), self.report.id));
        Ok(())
    }
}

impl Source for Resolving {
    fn fd(&self) -> RawFd {
        -1
    }

    fn wanted(&self) -> Option<Wanted> {
        None
    }

    fn turn(&self, _cx: &mut Turn<'_>, _readiness: Readiness) -> Next {
        if self.open.get() && self.answer.borrow().is_some() {
            self.open.set(false);
            return Next::Close;
        }
        Next::Wait
    }

    fn close(&self) {}

    fn closed(&self, cx: &mut Turn<'_>) {
        let (Some(plan), Some(resolved)) = (self.plan.take(), self.answer.take()) else { return };
        let gone_on = resolved.outcome.map_err(failure_of).and_then(|found| self.go_on(cx, plan, found));
        if let Err(failure) = gone_on {
            self.report.fail(cx, &failure);
        }
    }

    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        let (Report { id, on_success, .. }, (host, port)) = (&*self.report, &self.name);
        format!(
            "SocketFactory ({id}) waiting for {} to look up {host}:{port} -> {}",
            self.resolver.session(),
            on_success.get()
        )
    }
}

/// Turns a resolver's failure into a failure of the wheel.
fn failure_of(error: ResolveError) -> CallError {
    let text = error.to_string();
    match error {
        ResolveError::TimedOut { .. } => not_found(io::Error::other(Several { errno: Errno::ETIMEDOUT as i32, text })),
        ResolveError::Failed { errno, .. } if errno != 0 => not_found(io::Error::other(Several { errno, text })),
        _ => not_found(io::Error::other(text)),
    }
}

fn not_found(error: io::Error) -> CallError {
    CallError { operation: "getaddrinfo", error }
}
