//! The handle of a wheel that a program has written.

use std::fmt;
use std::rc::Rc;

use super::Source;
use super::shared::Shared;
use crate::error::Error;
use crate::kernel::{InState, core_of};
use crate::wheel::WheelId;

/// A wheel around a [`Source`] that the program has written. [The module](super) says how to write one.
///
/// The wheel belongs to the session that starts it, and keeps that session alive until the wheel is closed. It is
/// closed when the handle is dropped, when the source answers [`Next::Close`](super::Next::Close) or panics, and in a
/// forked child that does not keep it. After the handle is dropped, the kernel closes the wheel before the next event.
///
/// ```
/// use std::io::{ErrorKind, PipeReader, Read, Write};
/// use std::os::fd::{AsFd, BorrowedFd};
/// use lenore::wheel::own::{Delivery, Next, Source, Turn, Wheel};
/// use lenore::{Kernel, Readiness, Session};
///
/// /// Sends the event "byte" for each byte of a pipe, and "end".
/// struct Bytes(PipeReader);
///
/// impl AsFd for Bytes {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.0.as_fd()
///     }
/// }
///
/// impl Source for Bytes {
///     fn turn(&self, cx: &mut Turn<'_>, _: Readiness) -> Next {
///         // So many at most, for the sake of the other sources.
///         for _ in 0..100 {
///             let mut byte = [0];
///             let (event, id) = match (&self.0).read(&mut byte) {
///                 Ok(0) => ("end", cx.id()),
///                 Ok(_) => ("byte", cx.id()),
///                 Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
///                 Err(_) => return Next::Close,
///             };
///             match cx.deliver(event, (byte[0], id)) {
///                 Delivery::Done if event == "byte" => {}
///                 Delivery::Failed => break,
///                 Delivery::Done | Delivery::Over => return Next::Close,
///             }
///         }
///         Next::Again(Readiness::Read)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (reader, mut writer) = std::io::pipe()?;
/// writer.write_all(b"abc")?;
/// drop(writer);
/// let mut kernel = Kernel::new()?;
/// Session::new((None, Vec::new()))
///     .args((reader,))
///     .state("_start", |cx| {
///         let reader: PipeReader = cx.take(0)?;
///         cx.heap().0 = Some(Wheel::start(Bytes(reader), cx)?);
///         Ok(())
///     })
///     .state("byte", |cx| {
///         let byte: u8 = cx.take(0)?;
///         cx.heap().1.push(byte);
///         Ok(())
///     })
///     .state("end", |cx| assert_eq!(cx.heap().1, b"abc"))
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// # Ok(())
/// # }
/// ```
///
/// POE: an object of a subclass of `POE::Wheel`.
#[must_use = "a wheel that is dropped is closed: keep it in the heap"]
pub struct Wheel<S: Source> {
    shared: Rc<Shared<S>>,
}

impl<S: Source> Wheel<S> {
    /// Makes the descriptor non-blocking, and starts to watch it for the running session.
    ///
    /// # Errors
    ///
    /// After an error the source is dropped.
    ///
    /// - [`Error::Os`] if the descriptor can't be watched, as when another wheel or `select_read` watches it already
    /// - [`Error::NoActiveSession`] once the session has stopped
    ///
    /// POE: `new` of a wheel, with `allocate_wheel_id`.
    #[doc(alias = "allocate_wheel_id")]
    pub fn start(source: S, cx: &mut impl InState) -> Result<Wheel<S>, Error> {
        Ok(Wheel { shared: Shared::start(source, core_of(cx))? })
    }

    /// Returns the id of the wheel. The source gets it from [`Turn::id`](super::Turn::id).
    ///
    /// POE: `ID`.
    #[doc(alias = "ID")]
    pub fn id(&self) -> WheelId {
        self.shared.id()
    }

    /// Calls `call` with the source, and returns what `call` returns. Then the kernel reads what the source
    /// [wants](Source::wanted), so `call` may change that. It may pause the source, or queue output.
    ///
    /// Returns `None`, without a call, once the wheel is closed.
    ///
    /// POE: a method of the wheel, which calls `select_read` or `select_write` for a change.
    pub fn with<T>(&self, call: impl FnOnce(&S) -> T) -> Option<T> {
        self.shared.with(call)
    }

    /// Gives the source a turn for reading in the next slice, even if the descriptor is not ready. Use it to set the
    /// first [time](super::Next::At). It has no effect on a closed wheel.
    ///
    /// POE: `yield` to a hidden handler of the wheel.
    pub fn wake(&self) {
        self.shared.wake();
    }
}

impl<S: Source> Drop for Wheel<S> {
    fn drop(&mut self) {
        self.shared.let_go();
    }
}

impl<S: Source> fmt::Debug for Wheel<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.shared.name(), self.id())
    }
}
