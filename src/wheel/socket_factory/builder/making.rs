//! How a builder resolves its addresses and makes its socket.

use std::rc::Rc;

use nix::sys::socket::SockType;

use super::{Problem, SocketFactoryBuilder, Transport, invalid};
use crate::error::Error;
use crate::inherited::Family;
use crate::kernel::{Core, Switch};
use crate::wheel::socket_factory::address::{Address, Domain, Target};
use crate::wheel::socket_factory::attempts::Attempts;
use crate::wheel::socket_factory::connecting::Connector;
use crate::wheel::socket_factory::datagram::Datagram;
use crate::wheel::socket_factory::inheriting::{set_queue, warn_of_v6_only};
use crate::wheel::socket_factory::listening::{Acceptor, Listener, Manner, Opened};
use crate::wheel::socket_factory::report::Report;
use crate::wheel::socket_factory::resolving::{Plan, Resolving};
use crate::wheel::socket_factory::socket::{self, CallError, Options};
use crate::wheel::socket_factory::{Job, SocketFactory};

impl SocketFactoryBuilder {
    pub(super) fn begin_listening(&mut self, core: &mut Core, report: &Rc<Report>) -> Result<Job, Problem> {
        let socket = self.make_listener()?;
        Ok(Job::Listening(self.accept(core, report, socket)?))
    }

    pub(super) fn make_listener(&mut self) -> Result<Opened, Problem> {
        if self.kind() != SockType::Stream {
            return Err(invalid("listen", "a datagram socket can't; bind it").into());
        }
        if self.accepts_per_turn == 0 {
            return Err(invalid("accepts_per_turn", "it is 0").into());
        }
        let (targets, family) = (self.targets()?, self.family());
        self.asked = targets.iter().map(|target| target.place().to_string()).collect();
        if let Some(socket) = self.origin.listener(family, &targets)? {
            set_queue(&socket.listener, self.listen_queue)?;
            warn_of_v6_only(&socket.listener, self.v6_only);
            return Ok(socket);
        }
        let default = if self.transport == Transport::Tcp { Switch::On } else { Switch::Off };
        let ((fd, path), local) = first(targets, |local| {
            let made = self.options(default).make(local.family(), Some(local))?;
            socket::listen(&made.0, self.listen_queue)?;
            Ok(made)
        })?;
        let findable = self.origin.findable(&local.place());
        let listener = match local {
            Target::Ip(_) => Listener::tcp(fd.into()),
            Target::Unix(..) => Listener::unix(fd.into()),
        };
        Ok(Opened { listener, path, findable })
    }

    /// Binds a socket as for a listener, and closes it without having listened.
    pub(super) fn try_listener(&self) -> Result<(), Problem> {
        first(self.targets()?, |local| self.options(Switch::On).make(local.family(), Some(local)).map(drop))?;
        Ok(())
    }

    pub(super) fn accept(&self, core: &mut Core, report: &Rc<Report>, socket: Opened) -> Result<Rc<Acceptor>, Error> {
        let manner = Manner {
            args: self.accepted_args,
            accepts_per_turn: self.accepts_per_turn,
            reports_aborted: false,
            logs_shortages: self.logs_shortages,
            rota: self.rota.clone(),
        };
        let known_as = self.origin.known_as(&self.asked);
        Acceptor::start(core, Rc::clone(report), manner, socket, known_as)
    }

    pub(super) fn begin_connecting(&self, core: &mut Core, report: &Rc<Report>) -> Result<Job, Problem> {
        if self.origin.has_no_address() {
            return Err(invalid("connect", "an inherited socket is for listening").into());
        }
        let locals = self.bind_address.as_ref().map_or(Ok(Vec::new()), |address| self.locals(address))?;
        if let (Some(resolver), Some(protocol)) = (self.resolver, self.protocol())
            && let Some(name) = self.address.remote_endpoint()?.name(protocol)?
        {
            let (options, domain, timeout) = (self.options(Switch::Off), self.domain, self.connect_timeout);
            let plan = Plan { options, locals, domain, timeout };
            return Ok(Job::Resolving(Resolving::start(core, Rc::clone(report), resolver, name, plan)?));
        }
        let mut attempts = Attempts::new(self.options(Switch::Off), locals, self.remotes()?);
        if self.kind() == SockType::Stream {
            let connector = Connector::start(core, Rc::clone(report), attempts, self.connect_timeout)?;
            return Ok(Job::Connecting(connector));
        }
        // A datagram socket sends nothing when it connects, so there is nothing to wait for.
        let Some(((fd, path), _, remote)) = attempts.next() else { return Err(attempts.failure().into()) };
        let socket = Datagram::new(fd, &remote);
        let local = socket.local().map_err(|error| CallError { operation: "getsockname", error })?;
        report.post_success(core, socket.into_args(Some(remote), report.id));
        Ok(Job::HandedOver { local, _path: path })
    }

    pub(super) fn make_bound(&self, core: &mut Core, report: &Rc<Report>) -> Result<Job, Problem> {
        if self.kind() != SockType::Datagram && !self.origin.has_no_address() {
            return Err(invalid("bind", "a stream socket has to listen or to connect").into());
        }
        let targets = self.targets()?;
        let (socket, path) = match self.origin.datagram(self.family(), &targets)? {
            Some(socket) => (socket, None),
            None => {
                let options = self.options(Switch::Off);
                let ((fd, path), local) = first(targets, |local| options.make(local.family(), Some(local)))?;
                (Datagram::new(fd, &local), path)
            }
        };
        let local = socket.local().map_err(|error| CallError { operation: "getsockname", error })?;
        report.post_success(core, socket.into_args(None, report.id));
        Ok(Job::HandedOver { local, _path: path })
    }

    pub(super) fn finish(
        &self,
        core: &mut Core,
        report: Rc<Report>,
        outcome: Result<Job, Problem>,
        posts: bool,
    ) -> Result<SocketFactory, Error> {
        match outcome {
            Ok(job) => Ok(SocketFactory { report, job }),
            Err(Problem::Call(failure)) if posts => {
                report.post_failure(core, &failure);
                Ok(SocketFactory { report, job: Job::Failed })
            }
            Err(problem) => Err(problem.into_error(&self.address)),
        }
    }

    pub(super) fn kind(&self) -> SockType {
        match self.transport {
            Transport::Tcp | Transport::Unix => SockType::Stream,
            Transport::Udp | Transport::UnixDatagram => SockType::Datagram,
        }
    }

    pub(super) fn options(&self, reuse: Switch) -> Options {
        let reuse = self.reuse.unwrap_or(reuse);
        Options { kind: self.kind(), reuse, v6_only: self.v6_only, unlink: self.unlink }
    }

    /// Returns the protocol for looking up service names. Returns `None` if the socket has a path.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        match self.transport {
            Transport::Tcp => Some("tcp"),
            Transport::Udp => Some("udp"),
            Transport::Unix | Transport::UnixDatagram => None,
        }
    }

    pub(super) fn family(&self) -> Family {
        if self.protocol().is_some() { Family::Ip } else { Family::Unix }
    }

    /// Returns the addresses that the wheel may bind.
    pub(super) fn targets(&self) -> Result<Vec<Target>, Problem> {
        if self.origin.has_no_address() {
            return Ok(Vec::new());
        }
        let Some(protocol) = self.protocol() else { return path_target(&self.address) };
        let found = self.address.endpoint()?.resolve(self.domain, protocol)?;
        Ok(found.into_iter().map(Target::Ip).collect())
    }

    /// Returns the addresses that the wheel may connect to.
    pub(super) fn remotes(&self) -> Result<Vec<Target>, Problem> {
        let Some(protocol) = self.protocol() else { return path_target(&self.address) };
        let found = self.address.remote_endpoint()?.resolve(self.domain, protocol)?;
        Ok(found.into_iter().map(Target::Ip).collect())
    }

    /// Returns the addresses to which connecting sockets may be bound. "Any address" becomes one of each family.
    pub(super) fn locals(&self, address: &Address) -> Result<Vec<Target>, Problem> {
        let Some(protocol) = self.protocol() else { return path_target(address) };
        let endpoint = address.endpoint()?;
        let found = match self.domain {
            None if endpoint.is_any() => {
                let [v4, v6] = [Domain::Ipv4, Domain::Ipv6].map(|domain| endpoint.resolve(Some(domain), protocol));
                [v4?, v6?].concat()
            }
            domain => endpoint.resolve(domain, protocol)?,
        };
        Ok(found.into_iter().map(Target::Ip).collect())
    }
}

fn path_target(address: &Address) -> Result<Vec<Target>, Problem> {
    Ok(vec![Target::unix(address.path()?)?])
}

/// Calls `make` with one address after the other. Returns the first success, or the last failure.
fn first<T>(
    targets: Vec<Target>,
    mut make: impl FnMut(&Target) -> Result<T, CallError>,
) -> Result<(T, Target), Problem> {
    let mut failure = None;
    for target in targets {
        match make(&target) {
            Ok(made) => return Ok((made, target)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("an address that was looked up has at least one target").into())
}
