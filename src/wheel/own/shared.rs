//! A program's source as the kernel sees it. The kernel gets sound answers, whatever the source does.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Instant;

use nix::sys::socket::{getsockopt, sockopt};

use super::{AfterFork, Next, Source, Turn, Wanted};
use crate::destroy::destroy;
use crate::error::{Error, Exception};
use crate::kernel::{self, Core, Mailbox, Readiness, SourceKey, has_input, nanos, set_nonblocking};
use crate::name::Name;
use crate::wheel::WheelId;

/// What a wheel shares with the kernel.
pub(super) struct Shared<S> {
    id: WheelId,
    /// The name of the source's type. The wheel's events say that they come from it.
    name: Name,
    key: SourceKey,
    mailbox: Rc<Mailbox>,
    /// `None` once closed. A call of the source holds a copy while it runs. That copy may be the last.
    source: RefCell<Option<Rc<S>>>,
    /// The source's descriptor as of the start. A later answer of the source does not count.
    fd: RawFd,
    is_listener: bool,
    /// The source's last answer. The kernel's own steps read this, and so call no code of the program.
    wanted: Cell<Option<Wanted>>,
    /// The panic that has closed the wheel, until its session is told.
    panic: RefCell<Option<Exception>>,
}

impl<S: Source> Shared<S> {
    pub(super) fn start(source: S, core: &mut Core) -> Result<Rc<Shared<S>>, Error> {
        let owner = core.running()?;
        let fd = source.as_fd();
        let raw_fd = fd.as_raw_fd();
        set_nonblocking(fd).map_err(|error| Error::os("fcntl", format_args!("descriptor {raw_fd}"), error))?;
        let is_listener = getsockopt(&fd, sockopt::AcceptConn) == Ok(true);
        let wanted = Cell::new(source.wanted());
        let mailbox = core.mailbox();
        let make = |key| {
            let (id, name) = (WheelId::next(), Name::new(short_name::<S>()));
            let source = RefCell::new(Some(Rc::new(source)));
            Rc::new(Shared {
                id,
                name,
                key,
                mailbox,
                source,
                fd: raw_fd,
                is_listener,
                wanted,
                panic: RefCell::default(),
            })
        };
        let mut shared = None;
        core.add_source(owner, |key| shared.insert(make(key)).clone())?;
        Ok(shared.expect("add_source has made it"))
    }

    pub(super) fn id(&self) -> WheelId {
        self.id
    }

    pub(super) fn name(&self) -> Name {
        self.name
    }

    fn source(&self) -> Option<Rc<S>> {
        self.source.borrow().clone()
    }

    pub(super) fn with<T>(&self, call: impl FnOnce(&S) -> T) -> Option<T> {
        let source = self.source()?;
        let result = catch_unwind(AssertUnwindSafe(|| call(&source)));
        // A call that panics may have changed something first.
        let wanted = source.wanted();
        if self.wanted.replace(wanted) != wanted {
            self.mailbox.changed(self.key);
        }
        Some(result.unwrap_or_else(|payload| resume_unwind(payload)))
    }

    pub(super) fn wake(&self) {
        self.mailbox.woken(self.key);
    }

    /// The wheel's handle was dropped. The kernel closes the source before the next event.
    pub(super) fn let_go(&self) {
        self.mailbox.dropped(self.key);
    }

    fn panicked(&self, cx: &mut kernel::Turn<'_>, exception: Exception) -> kernel::Next {
        if cx.is_over() {
            // This may be a child that keeps the source. The source's answer has no effect any more.
            log::error!(target: "lenore::exceptions", "{} ({}) is closed: {exception}", self.name, self.id);
            self.mailbox.dropped(self.key);
        } else {
            self.panic.replace(Some(exception));
        }
        kernel::Next::Close
    }
}

impl<S: Source> kernel::Source for Shared<S> {
    fn fd(&self) -> RawFd {
        if self.source.borrow().is_some() { self.fd } else { -1 }
    }

    fn wanted(&self) -> Option<Wanted> {
        self.wanted.get()
    }

    fn turn(&self, cx: &mut kernel::Turn<'_>, readiness: Readiness) -> kernel::Next {
        let Some(source) = self.source() else { return kernel::Next::Wait };
        let turned = cx.part(|cx| {
            catch_unwind(AssertUnwindSafe(|| {
                let next = source.turn(&mut Turn::new(cx, self.name, self.id), readiness);
                self.wanted.set(source.wanted());
                next
            }))
        });
        // The wheel may have been dropped meanwhile.
        destroy(source);
        match turned {
            Ok(Next::Wait) => kernel::Next::Wait,
            Ok(Next::Again(readiness)) => kernel::Next::Again(readiness),
            Ok(Next::At(time)) => {
                let span = time.saturating_duration_since(Instant::now());
                kernel::Next::At(cx.read_clock().saturating_add(nanos(span)))
            }
            Ok(Next::Close) => kernel::Next::Close,
            Err(payload) => self.panicked(cx, Exception::from_panic(payload)),
        }
    }

    fn closed(&self, cx: &mut kernel::Turn<'_>) {
        if let Some(exception) = self.panic.take() {
            cx.die(self.name, exception);
        }
    }

    fn is_listener(&self) -> bool {
        self.is_listener && self.source.borrow().is_some()
    }

    fn has_client(&self) -> bool {
        self.source().is_some_and(|source| has_input(&*source))
    }

    fn close(&self) {
        drop(self.source.take());
    }

    fn fork(&self) -> AfterFork {
        let Some(source) = self.source() else { return AfterFork::Close };
        let asked = catch_unwind(AssertUnwindSafe(|| {
            let fate = source.after_fork();
            self.wanted.set(source.wanted());
            fate
        }));
        asked.unwrap_or_else(|payload| {
            let exception = Exception::from_panic(payload);
            log::error!(target: "lenore::exceptions", "{} ({}) is closed in a child: {exception}", self.name, self.id);
            AfterFork::Close
        })
    }

    fn describe(&self) -> String {
        let source = self.source();
        let described = catch_unwind(AssertUnwindSafe(|| source.map_or_else(String::new, |source| source.describe())));
        let text =
            described.unwrap_or_else(|payload| format!("can't be described: {}", Exception::from_panic(payload)));
        format!("{} ({}) {text}", self.name, self.id).trim_end().to_owned()
    }
}

/// Returns the name of a type without its modules and type parameters.
fn short_name<S>() -> &'static str {
    let name = type_name::<S>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, BorrowedFd};

    use super::*;
    use crate::wheel::own::Wheel;
    use crate::{Kernel, Session};

    struct Listening(TcpListener, Rc<Cell<bool>>);

    impl AsFd for Listening {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    impl Source for Listening {
        fn turn(&self, _: &mut Turn<'_>, _: Readiness) -> Next {
            Next::Wait
        }
    }

    impl Drop for Listening {
        fn drop(&mut self) {
            self.1.set(true);
        }
    }

    #[test] // A Daemon's child that does not accept any more closes all listeners.
    fn own_wheel_that_listens_is_closed_as_a_listener() -> Result<(), Error> {
        let is_dropped = Rc::new(Cell::new(false));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let source = Listening(listener, is_dropped.clone());
        let mut kernel = Kernel::new()?;
        Session::new(None)
            .args((source,))
            .state("_start", |cx| {
                let source: Listening = cx.take(0)?;
                *cx.heap() = Some(Wheel::start(source, cx)?);
                cx.yield_("look", ());
                Ok(())
            })
            .state("look", |cx| assert_eq!(cx.heap().as_ref().and_then(|wheel| wheel.with(|_| ())), None))
            .spawn(&mut kernel)?;
        let listeners = kernel.core.sources.listeners();
        assert_eq!(listeners.len(), 1);
        listeners.into_iter().for_each(|key| kernel.core.close_listener(key));
        assert!(is_dropped.get());
        kernel.run()
    }
}
