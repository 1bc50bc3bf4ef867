//! What the kernel's tests share: sessions that write down what happens to them.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use lenore::{ChildChange, Context, Kernel, Name, Reply, Session, SessionId};

/// What happened, line by line, in all sessions of a test.
pub type Log = Rc<RefCell<Vec<String>>>;

/// The heap of a session that keeps a diary.
pub struct Diary {
    pub name: &'static str,
    pub log: Log,
}

impl Diary {
    /// Writes a line that begins with the session's name.
    pub fn say(&self, text: impl Display) {
        self.log.borrow_mut().push(format!("{} {text}", self.name));
    }
}

pub fn new_kernel() -> Kernel {
    Kernel::new().expect("a poller and a signal pipe")
}

/// Begins a session that does nothing by itself.
pub fn plain(name: &'static str, log: &Log) -> Session<Diary> {
    Session::new(Diary { name, log: log.clone() }).state("_start", |_| ())
}

/// Begins a session that writes down `_stop`, `_child` and `_parent`.
pub fn witness(name: &'static str, log: &Log) -> Session<Diary> {
    plain(name, log).state("_stop", |cx| cx.heap().say("_stop")).state("_child", note_child).state("_parent", |cx| {
        let (old, new) = (who(*cx.arg(0)?), who(*cx.arg(1)?));
        cx.heap().say(format_args!("_parent {old} {new}"));
        Ok(())
    })
}

/// Writes `_child lose 3`, and in brackets what the child's `_start` or `_stop` returned, if it was a text.
pub fn note_child(cx: &mut Context<'_, Diary>) -> lenore::Result {
    let (change, child) = (*cx.arg::<ChildChange>(0)?, who(*cx.arg(1)?));
    match cx.take::<Reply>(2).ok().and_then(|reply| reply.take::<&'static str>().ok()) {
        Some(text) => cx.heap().say(format_args!("_child {change} {child} ({text})")),
        None => cx.heap().say(format_args!("_child {change} {child}")),
    }
    Ok(())
}

/// A state that writes its own name down.
pub fn note(cx: &mut Context<'_, Diary>) {
    let name = cx.state_name();
    cx.heap().say(name);
}

/// Writes down who sent the event, and from which state.
pub fn note_origin(cx: &mut Context<'_, Diary>) {
    let (state, sender) = (cx.state_name(), who(cx.sender()));
    let from = cx.caller_state().map_or("outside", Name::as_str);
    cx.heap().say(format_args!("{state} from {sender}, {from}"));
}

/// A session's number, or `kernel`.
pub fn who(id: SessionId) -> String {
    if id == SessionId::KERNEL { "kernel".into() } else { id.number().to_string() }
}

/// Empties the log.
pub fn lines(log: &Log) -> Vec<String> {
    log.take()
}

/// A wall-clock time so long ago that an alarm for it is due before anything posted.
pub fn past(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(seconds)
}

pub fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Spawns `child` in the `_start` of a witness named P.
pub fn parent_of(log: &Log, child: Session<Diary>) -> Session<Diary> {
    let child = Cell::new(Some(child));
    witness("P", log).state("_start", move |cx| {
        child.take().expect("one start").spawn(cx)?;
        Ok(())
    })
}
