//! Who may reach the kernel: two sealed traits, and the calls beside a borrowed heap.

use super::Kernel;
use super::alarms::AlarmId;
use super::context::Context;
use super::core::{Core, Dest};
use super::sessions::SessionId;
use crate::args::IntoArgs;
use crate::error::Error;
use crate::name::Name;
use crate::reply::Reply;

/// The kernel's calls, for use while the heap is borrowed: what [`Context::split`] returns.
///
/// It has the calls that act for the running session and the calls that name a session, as [`Context`] has. Calls that
/// run other states before they return need the context itself.
///
/// ```
/// use lenore::{Calls, Kernel, Session};
///
/// fn share_out(jobs: &mut Vec<&'static str>, calls: &mut Calls<'_>) {
///     jobs.drain(..).for_each(|job| calls.yield_("work", (job,)));
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(vec!["a", "b"])
///     .state("_start", |cx| {
///         let (jobs, mut calls) = cx.split();
///         share_out(jobs, &mut calls);
///     })
///     .state("work", |cx| assert!(["a", "b"].contains(cx.arg::<&str>(0).unwrap())))
///     .spawn(&mut kernel)?;
/// kernel.run()
/// # }
/// ```
///
/// POE: `$_[KERNEL]`.
pub struct Calls<'a> {
    core: &'a mut Core,
}

impl<'a> Calls<'a> {
    pub(crate) fn new(core: &'a mut Core) -> Calls<'a> {
        Calls { core }
    }

    #[inline]
    pub(crate) fn into_core(self) -> &'a mut Core {
        self.core
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core {
        self.core
    }

    #[inline]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        self.core
    }
}

/// A kernel, or the context of a state: what [`Session::spawn`](crate::Session::spawn), components, the handle of a Daemon and
/// [`Callback::call`](crate::Callback::call) take.
///
/// A function of your own that is to work with either takes `&mut impl AsKernel`, and can use the methods below. No
/// other type can implement this trait.
///
/// ```
/// use lenore::{AsKernel, Error, Kernel, Session, SessionId};
///
/// #[derive(Clone, Copy)]
/// struct Counter(SessionId);
///
/// impl Counter {
///     fn spawn(kernel: &mut impl AsKernel) -> Result<Counter, Error> {
///         let session = Session::new(0)
///             .state("_start", |cx| Ok(cx.alias_set("counter")?))
///             .state("add", |cx| {
///                 *cx.heap() += cx.take::<i32>(0)?;
///                 Ok(())
///             })
///             .state("total", |cx| lenore::Return(*cx.heap()));
///         session.spawn(kernel).map(Counter)
///     }
///
///     fn add(self, kernel: &mut impl AsKernel, number: i32) -> Result<(), Error> {
///         kernel.post(self.0, "add", (number,))
///     }
///
///     fn total(self, kernel: &mut impl AsKernel) -> Result<i32, Error> {
///         kernel.call(self.0, "total", ())?.take()
///     }
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// let counter = Counter::spawn(&mut kernel)?;
/// counter.add(&mut kernel, 1)?;
/// Session::new(()).state("_start", move |cx| Ok(counter.add(cx, 2)?)).spawn(&mut kernel)?;
/// kernel.run_one_timeslice()?;
/// assert_eq!(counter.total(&mut kernel)?, 3);
/// # Ok(())
/// # }
/// ```
///
/// POE: a component's object, whose methods use `$poe_kernel`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a kernel nor the context of a state",
    label = "takes `&mut kernel`, or the `cx` of a state"
)]
pub trait AsKernel: private::HasKernel {
    /// Posts `event` with `args` to a session; see [`Kernel::post`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    #[track_caller]
    fn post<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        kernel_of(self).core.post(dest, event, args)
    }

    /// Runs a state of a session before it returns; see [`Kernel::call`].
    ///
    /// # Errors
    ///
    /// As [`Kernel::call`].
    #[track_caller]
    fn call<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        event: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<Reply, Error> {
        kernel_of(self).call(dest, event, args)
    }

    /// Posts a signal to a session and its descendants; see [`Kernel::signal`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    #[track_caller]
    fn signal<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        signal: impl Into<Name>,
        args: impl IntoArgs + Clone + 'static,
    ) -> Result<(), Error> {
        kernel_of(self).core.signal(dest, signal, args)
    }

    /// Dispatches a signal before it returns; see [`Kernel::signal_now`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] when `dest` is not the id or an alias of a living session.
    fn signal_now<'d>(
        &mut self,
        dest: impl Into<Dest<'d>>,
        signal: impl Into<Name>,
        args: impl IntoArgs,
    ) -> Result<(), Error> {
        kernel_of(self).signal_now(dest, signal, args)
    }

    /// Returns the session whose state runs, or [`SessionId::KERNEL`]; see [`Kernel::session`].
    fn session(&self) -> SessionId {
        self.kernel(private::Key(())).core.session()
    }

    /// Finds the living session behind an id or an alias; see [`Kernel::alias_resolve`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if there is none.
    fn alias_resolve<'d>(&self, dest: impl Into<Dest<'d>>) -> Result<SessionId, Error> {
        self.kernel(private::Key(())).core.alias_resolve(dest)
    }

    /// Adds an extra reference to a session; see [`Kernel::refcount_increment`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped.
    fn refcount_increment(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        kernel_of(self).core.refcount_increment(session, tag)
    }

    /// Takes an extra reference away from a session; see [`Kernel::refcount_decrement`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if the session has stopped; [`Error::NoSuchTag`] if it holds none under `tag`.
    fn refcount_decrement(&mut self, session: SessionId, tag: impl Into<Name>) -> Result<u32, Error> {
        kernel_of(self).core.refcount_decrement(session, tag)
    }

    /// Takes a snapshot of the kernel; see [`Kernel::peek`].
    fn peek(&self) -> super::Snapshot {
        self.kernel(private::Key(())).core.peek()
    }

    /// Returns how many events wait; see [`Kernel::event_count`].
    fn event_count(&self) -> usize {
        self.kernel(private::Key(())).core.event_count()
    }

    /// Tells whether this process was forked from the one that made the kernel; see [`Kernel::is_child`].
    fn is_child(&self) -> bool {
        self.kernel(private::Key(())).core.is_child()
    }

    /// Returns the time as the kernel read it last; see [`Kernel::now`].
    fn now(&self) -> std::time::SystemTime {
        self.kernel(private::Key(())).core.now()
    }
}

/// The context of a state, or the calls beside its heap: what the constructors of wheels take.
///
/// A kernel does not implement it, because a wheel belongs to the session whose state makes it. No other type can
/// implement this trait.
///
/// ```
/// use std::time::Duration;
/// use lenore::{InState, Kernel, Session};
///
/// fn wait_a_moment(cx: &mut impl InState) {
///     cx.calls().delay("over", Duration::from_millis(1), ());
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let mut kernel = Kernel::new()?;
/// Session::new(())
///     .state("_start", |cx| wait_a_moment(cx))
///     .state("over", |cx| wait_a_moment(&mut cx.split().1))
///     .spawn(&mut kernel)?;
/// kernel.run_one_timeslice()?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not in a state",
    label = "takes the `cx` of a state, or what `cx.split()` returns",
    note = "a call that acts for the running session needs the context of its state"
)]
pub trait InState: private::InState {
    /// Returns the kernel's calls.
    fn calls(&mut self) -> Calls<'_>;
}

impl<H> InState for Context<'_, H> {
    fn calls(&mut self) -> Calls<'_> {
        Calls::new(self.core_mut())
    }
}

impl InState for Calls<'_> {
    fn calls(&mut self) -> Calls<'_> {
        Calls::new(self.core)
    }
}

impl<H> private::InState for Context<'_, H> {}

impl private::InState for Calls<'_> {}

impl AsKernel for Kernel {}

impl<H> AsKernel for Context<'_, H> {}

impl private::HasKernel for Kernel {
    #[inline]
    fn kernel(&self, _: private::Key) -> &Kernel {
        self
    }

    #[inline]
    fn kernel_mut(&mut self, _: private::Key) -> &mut Kernel {
        self
    }
}

impl<H> private::HasKernel for Context<'_, H> {
    #[inline]
    fn kernel(&self, _: private::Key) -> &Kernel {
        self.kernel
    }

    #[inline]
    fn kernel_mut(&mut self, _: private::Key) -> &mut Kernel {
        self.kernel
    }
}

/// Returns the kernel behind a context, or itself.
#[inline]
pub(crate) fn kernel_of<K: AsKernel + ?Sized>(kernel: &mut K) -> &mut Kernel {
    kernel.kernel_mut(private::Key(()))
}

/// Returns the core of the kernel whose state runs.
#[inline]
pub(crate) fn core_of<S: InState>(state: &mut S) -> &mut Core {
    state.calls().into_core()
}

/// What keeps the two traits to this crate's types, and the kernel to this crate.
pub(crate) mod private {
    use crate::kernel::Kernel;

    /// Only this crate can make one. Generic code of a program can name the methods below, but not call them.
    #[derive(Debug)]
    pub struct Key(pub(crate) ());

    pub trait HasKernel {
        fn kernel(&self, _: Key) -> &Kernel;
        fn kernel_mut(&mut self, _: Key) -> &mut Kernel;
    }

    pub trait InState {}
}

/// What a call that acts for the running session returns when there is none.
pub(crate) trait Refusal {
    fn refusal() -> Self;
}

impl Refusal for () {
    fn refusal() {}
}

impl Refusal for bool {
    fn refusal() -> bool {
        false
    }
}

impl Refusal for usize {
    fn refusal() -> usize {
        0
    }
}

impl<T> Refusal for Vec<T> {
    fn refusal() -> Vec<T> {
        Vec::new()
    }
}

impl<T> Refusal for Result<T, Error> {
    fn refusal() -> Result<T, Error> {
        Err(Error::NoActiveSession)
    }
}

/// An id of no alarm.
impl Refusal for AlarmId {
    fn refusal() -> AlarmId {
        AlarmId::NONE
    }
}
