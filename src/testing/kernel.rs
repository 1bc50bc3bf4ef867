//! A kernel whose clock the test moves.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::error::Error;
use crate::kernel::{AsKernel, Exceptions, Kernel, catchable, nanos, private};
use crate::name::Name;

/// A kernel whose clock stands still until the test moves it.
///
/// Sessions run on a test kernel as on a [`Kernel`]. [`AsKernel`] has the calls that both have: `post`, `call`, `signal`, `peek` and
/// others, and [`Session::spawn`](crate::Session::spawn) takes either. A test kernel has no `run` that waits. The test says how
/// much time passes, and all that falls due in that time runs at once, in order.
///
/// The clock shows 2000-01-01T00:00:00Z at first, so that each run of a test sees the same times.
///
/// ```
/// use std::time::Duration;
/// use lenore::Session;
/// use lenore::testing::{Sequence, TestKernel};
///
/// let log = Sequence::new();
/// let told = log.clone();
/// let mut kernel = TestKernel::new();
/// Session::new(())
///     .state("_start", |cx| cx.delay("reminder", Duration::from_secs(3600), ()))
///     .state("reminder", move |_| told.note("reminded"))
///     .spawn(&mut kernel)
///     .unwrap();
///
/// kernel.advance(Duration::from_secs(3599));
/// log.expect_nothing();
/// kernel.advance(Duration::from_secs(1));
/// log.expect(["reminded"]);
/// ```
///
/// # Panics
///
/// Methods that run states panic when a state has failed and no session has handled the `DIE` signal: the test fails, with the
/// text of that failure. [`try_advance`](TestKernel::try_advance) returns the error instead.
///
/// POE: nothing like it.
pub struct TestKernel {
    kernel: Kernel,
}

impl TestKernel {
    /// Makes a kernel whose clock shows 2000-01-01T00:00:00Z.
    ///
    /// # Panics
    ///
    /// When the system refuses the kernel a poller or a pipe, usually because the process has run out of file descriptors.
    #[track_caller]
    pub fn new() -> TestKernel {
        TestKernel::starting_at(SystemTime::UNIX_EPOCH + Y2K)
    }

    /// Makes a kernel whose clock shows `time`.
    ///
    /// # Panics
    ///
    /// As [`new`](TestKernel::new).
    #[track_caller]
    pub fn starting_at(time: SystemTime) -> TestKernel {
        match Kernel::new_manual(time) {
            Ok(kernel) => TestKernel { kernel },
            Err(error) => panic!("the test can't have a kernel: {error}"),
        }
    }

    /// Returns how far the clock was moved since the kernel was made.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.kernel.manual_now().unsigned_abs())
    }

    /// Moves the clock by `span`, and runs what falls due on the way, in order and without waiting.
    ///
    /// Each alarm runs when the clock shows the time for which it was set. So an alarm that is set by an alarm runs as well if
    /// its time lies within `span`. Before the clock moves, and after each step, everything runs that
    /// [`settle`](TestKernel::settle) runs. With a `span` of zero this is all.
    ///
    /// # Panics
    ///
    /// When a state fails and no session handles that, and when the program does not come to rest.
    #[track_caller]
    pub fn advance(&mut self, span: Duration) {
        if let Err(error) = self.try_advance(span) {
            fail(error);
        }
    }

    /// Does what [`advance`](TestKernel::advance) does, and returns the failure of a state.
    ///
    /// # Errors
    ///
    /// [`Error::Died`] when a state has failed and no session has handled the `DIE` signal. All sessions were stopped then, and the
    /// clock stays where it was at that moment. [`Error::Os`] when the poller fails.
    ///
    /// # Panics
    ///
    /// When the program does not come to rest.
    #[track_caller]
    pub fn try_advance(&mut self, span: Duration) -> Result<(), Error> {
        let end = self.kernel.manual_now().saturating_add(nanos(span));
        self.try_settle()?;
        // Each round takes the clock on: what is due by now has run.
        while let Some(due) = self.kernel.next_manual_due().filter(|due| *due <= end) {
            self.kernel.move_clock(due);
            self.try_settle()?;
        }
        self.kernel.move_clock(end);
        Ok(())
    }

    /// Runs what can run now: events that were posted, alarms that are due, and wheels whose descriptors are ready. The clock stands
    /// still.
    ///
    /// A session that waits for nothing any more stops, as it does in a [`Kernel`]. But no session gets the signal `IDLE`, because
    /// the test can still act.
    ///
    /// # Panics
    ///
    /// When a state fails and no session handles that, and when the program does not come to rest: 100,000 slices later there is
    /// still something to do.
    #[track_caller]
    pub fn settle(&mut self) {
        if let Err(error) = self.try_settle() {
            fail(error);
        }
    }

    #[track_caller]
    fn try_settle(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_SLICES {
            // Input may be left for wheels of sessions that have ended.
            if !self.kernel.has_work()? || !self.kernel.run_one_timeslice()? {
                return Ok(());
            }
        }
        panic!(
            "the program does not come to rest: {MOST_SLICES} slices have run at one time\n{:#}",
            self.kernel.peek()
        );
    }

    /// Runs the program until its last session has ended. Whenever there is nothing to do, the clock moves to the next time at
    /// which there is.
    ///
    /// This is what [`Kernel::run`] does, without waiting. Sessions with nothing left to wait for get the signal `IDLE`.
    ///
    /// # Panics
    ///
    /// When a state fails and no session handles that. When sessions wait for what only the test can do, such as writing to a
    /// [`Peer`](super::Peer): the text says what keeps each of them. When the program does not end: after 1,000,000 alarms.
    #[track_caller]
    pub fn run_to_end(&mut self) {
        self.kernel.hold(false);
        let outcome = self.try_run_to_end();
        self.kernel.hold(true);
        if let Err(error) = outcome {
            fail(error);
        }
    }

    #[track_caller]
    fn try_run_to_end(&mut self) -> Result<(), Error> {
        for _ in 0..MOST_STEPS {
            self.try_settle()?;
            if !self.has_sessions() {
                return Ok(());
            }
            match self.kernel.next_manual_due() {
                // Alarms of background sessions keep nothing running.
                _ if self.kernel.core().is_idle() => _ = self.kernel.run_one_timeslice()?,
                Some(due) => self.kernel.move_clock(due),
                None => panic!("sessions wait for what does not come by itself\n{:#}", self.kernel.peek()),
            }
        }
        panic!("the program does not end: {MOST_STEPS} alarms have run\n{:#}", self.kernel.peek());
    }

    /// Tells whether a session lives.
    pub fn has_sessions(&self) -> bool {
        self.kernel.core().sessions.living() > 0
    }

    /// Runs the program until `done` answers `true`, and waits for the system meanwhile, for up to 10 s. The kernel's clock stands still.
    ///
    /// It is for what does not happen in this process, such as a child process that ends or a connection from elsewhere. `what` says
    /// what the test waits for.
    ///
    /// # Panics
    ///
    /// When 10 s are over; the text has `what`. When a state fails and no session handles that.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        self.settle();
        while !done() {
            if begin.elapsed() > LONGEST_WAIT {
                panic!("waited {LONGEST_WAIT:?} in vain for {what}\n{:#}", self.kernel.peek());
            }
            // `done` may look at something that the poller does not know, so a slice waits for a short time only.
            self.kernel.set_patience(LOOK);
            let outcome = self.kernel.run_one_timeslice();
            self.kernel.set_patience(Duration::ZERO);
            match outcome {
                Ok(true) => self.settle(),
                // The last session has ended, so a slice does not wait. `done` may still look at another process.
                Ok(false) => std::thread::sleep(LOOK),
                Err(error) => fail(error),
            }
        }
    }

    /// Delivers a signal as the system would: sessions that watch it get it when the kernel runs next. `TERM` and other terminal
    /// signals end the sessions, unless a state handles them.
    ///
    /// `signal` is its name without `SIG`.
    ///
    /// # Panics
    ///
    /// When the system has no such signal that a process can catch; [`AsKernel::signal`] sends signals of the program's own. When no
    /// session watches it: outside of a test, the signal would end the process or have no effect at all. For `CHLD`, which
    /// [`child_exits`](TestKernel::child_exits) delivers.
    #[track_caller]
    pub fn deliver_signal(&mut self, signal: impl Into<Name>) {
        let signal = signal.into();
        assert!(signal != "CHLD", "deliver the end of a child with `child_exits`");
        if catchable(signal).is_none() {
            let bare = signal.as_str().strip_prefix("SIG").filter(|bare| catchable(Name::new(bare)).is_some());
            match bare {
                Some(bare) => panic!("signals are named without SIG here: {bare:?}"),
                None => panic!("the system sends no signal {signal}; use `signal` for one of the program's own"),
            }
        }
        assert!(self.kernel.deliver_signal(signal), "no session watches the signal {signal}\n{:#}", self.kernel.peek());
    }

    /// Returns a pid that no process has, for a child whose end the test delivers with [`child_exits`](TestKernel::child_exits).
    ///
    /// Each call returns another one. They are greater than the greatest pid of the system.
    pub fn fake_pid(&self) -> i32 {
        static NEXT: AtomicI32 = AtomicI32::new(FIRST_FAKE_PID);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Delivers the end of the child process `pid` to the sessions that wait for it by
    /// [`sig_child`](crate::Context::sig_child), or watch `CHLD`. They get it when the kernel runs next.
    ///
    /// There need not be such a process. `code` is its exit status, from 0 to 255. For a child that a signal has killed there is
    /// [`child_ends`](TestKernel::child_ends).
    ///
    /// ```
    /// use std::process::ExitStatus;
    /// use lenore::Session;
    /// use lenore::testing::{Sequence, TestKernel};
    ///
    /// let log = Sequence::new();
    /// let told = log.clone();
    /// let mut kernel = TestKernel::new();
    /// let pid = kernel.fake_pid();
    /// Session::new(())
    ///     .state("_start", move |cx| cx.sig_child(pid, "ended", ()))
    ///     .state("ended", move |cx| {
    ///         told.note(format_args!("{}", cx.arg::<ExitStatus>(2)?));
    ///         Ok(())
    ///     })
    ///     .spawn(&mut kernel)
    ///     .unwrap();
    /// kernel.child_exits(pid, 3);
    /// kernel.settle();
    /// log.expect(["exit status: 3"]);
    /// ```
    ///
    /// # Panics
    ///
    /// When no session waits for `pid`.
    #[track_caller]
    pub fn child_exits(&mut self, pid: i32, code: u8) {
        self.child_ends(pid, ExitStatus::from_raw(i32::from(code) << 8));
    }

    /// Does what [`child_exits`](TestKernel::child_exits) does, for any `status`. `ExitStatus::from_raw(9)` is that of a child
    /// which signal 9, KILL, has killed.
    ///
    /// # Panics
    ///
    /// When no session waits for `pid`.
    #[track_caller]
    pub fn child_ends(&mut self, pid: i32, status: ExitStatus) {
        let is_awaited = self.kernel.deliver_end(pid, status);
        assert!(is_awaited, "no session waits for process {pid}\n{:#}", self.kernel.peek());
    }

    /// Says what becomes of a state that fails; see [`Kernel::catch_exceptions`].
    pub fn catch_exceptions(&mut self, exceptions: Exceptions) -> Exceptions {
        self.kernel.catch_exceptions(exceptions)
    }

    /// Stops every session at once; see [`Kernel::stop`].
    pub fn stop(&mut self) {
        self.kernel.stop();
    }
}

impl Default for TestKernel {
    fn default() -> TestKernel {
        TestKernel::new()
    }
}

impl fmt::Debug for TestKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestKernel").field("elapsed", &self.elapsed()).field("kernel", &self.kernel).finish()
    }
}

impl AsKernel for TestKernel {}

impl private::HasKernel for TestKernel {
    fn kernel(&self, _: private::Key) -> &Kernel {
        &self.kernel
    }

    fn kernel_mut(&mut self, _: private::Key) -> &mut Kernel {
        &mut self.kernel
    }
}

#[track_caller]
fn fail(error: Error) -> ! {
    panic!("the program has failed: {error}");
}

/// From 1970 to the time at which the clock begins.
const Y2K: Duration = Duration::from_secs(946_684_800);

/// How many slices may run while the clock stands still. A program that has more to do goes round in circles.
const MOST_SLICES: usize = 100_000;

/// How many times the clock moves until the program has ended.
const MOST_STEPS: usize = 1_000_000;

/// How long a test waits for the system.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a slice waits for the system before the test looks again.
const LOOK: Duration = Duration::from_millis(2);

/// Linux gives no pids above 2²² = 4,194,304.
const FIRST_FAKE_PID: i32 = 1 << 30;
