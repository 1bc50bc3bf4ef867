//! What `put` returns.

use crate::error::Exception;
use crate::reply::{IntoReturn, Reply, Return};

/// What has become of a record that the session put, and whether the session should put more.
///
/// `put` of [`ReadWrite`](super::ReadWrite), [`Run`](super::Run) and [`Connection`](crate::component::Connection)
/// returns it. A session that only answers requests may ignore it. A session that sends on its own, such as a file,
/// puts as long as the output [takes more](Put::takes_more), and goes on at the low event.
///
/// ```
/// use std::io::Read;
/// use std::os::unix::net::UnixStream;
/// use lenore::filter::Line;
/// use lenore::wheel::{Put, ReadWrite};
/// use lenore::{Context, Kernel, Session};
///
/// type Heap = (u32, Option<ReadWrite<Line>>);
///
/// fn send(cx: &mut Context<'_, Heap>) {
///     let (next, wheel) = cx.heap();
///     let output = wheel.as_ref().expect("it is made in _start");
///     while *next < 10_000 {
///         *next += 1;
///         if !output.put(format!("line {next}")).takes_more() {
///             return; // the low event calls again
///         }
///     }
///     *wheel = None;
/// }
///
/// # fn main() -> Result<(), lenore::Error> {
/// let (ours, mut peer) = UnixStream::pair().expect("a pair of sockets");
/// let reader = std::thread::spawn(move || peer.read_to_string(&mut String::new()));
/// let mut kernel = Kernel::new()?;
/// Session::new((0, None))
///     .args((ours,))
///     .state("_start", |cx| {
///         let ours: UnixStream = cx.take(0)?;
///         let wheel = ReadWrite::stream(ours, Line::new()).watermarks(1_000, 10_000).on_low("send").start(cx)?;
///         assert_eq!(wheel.put("the first"), Put::Accepted);
///         cx.heap().1 = Some(wheel);
///         cx.yield_("send", ());
///         Ok(())
///     })
///     .state("send", send)
///     .spawn(&mut kernel)?;
/// kernel.run()?;
/// assert!(reader.join().expect("it has read").is_ok_and(|octets| octets > 100_000));
/// # Ok(())
/// # }
/// ```
///
/// POE: what `put` returns, which is true at the high mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// The output has the record. It is below the high mark, or has no marks, so the session may put more.
    Accepted,
    /// The output has the record, and has reached the high mark. The session should put no more before the low event.
    High,
    /// Nothing is written any more. The output was shut down, an error ended it, there is none, or its descriptor is
    /// closed.
    Closed,
}

impl Put {
    /// Tells whether the session may put another record now.
    pub fn takes_more(self) -> bool {
        self == Put::Accepted
    }

    /// Tells whether the output has reached the high mark.
    pub fn is_high(self) -> bool {
        self == Put::High
    }

    /// Tells whether nothing will be written any more.
    pub fn is_closed(self) -> bool {
        self == Put::Closed
    }
}

impl IntoReturn for Put {
    fn into_return(self) -> Result<Reply, Exception> {
        Return(self).into_return()
    }

    fn without_value(self) -> Result<(), Exception> {
        Return(self).without_value()
    }
}
