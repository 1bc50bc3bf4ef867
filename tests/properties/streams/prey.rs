//! The session whose wheel it is, and what it checks.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use lenore::filter::FilterError;
use lenore::wheel::{Failure, ReadWrite, ReadWriteBuilder, StreamEvent, WheelId};
use lenore::{Context, Died, Result, Session};
use nix::libc::EBADMSG;

use super::{Kind, Op, Parting, Peer, Place, Script};
use util::tricky::{OWN, PUT_REFUSED, Put, Told, Tricky, pattern, told};

/// What has been done, and what has been told of it.
pub(super) struct World {
    script: Script,
    input: Vec<u8>,
    sent: usize,
    ops: VecDeque<(Op, Place)>,
    /// How many steps an op that is meant for an event has waited for one.
    waited: usize,
    wheel: Option<ReadWrite<Tricky>>,
    peer: Peer,
    put: Vec<u8>,
    heard: Vec<Told>,
    /// How many lines filters have brought along, and how many of their records have come.
    own_lines: usize,
    own_records: usize,
    panics: usize,
    refused_puts: usize,
    refused_puts_told: usize,
    highs: usize,
    lows: usize,
    /// How much was put when the last flushed event came.
    flushed_at: usize,
    is_paused: bool,
    has_no_event: bool,
    input_is_shut: bool,
    end_is_told: bool,
    output_is_shut: bool,
    /// The output ends when so much is written.
    ends_at: Option<usize>,
    has_failed: bool,
    is_parting: bool,
    /// How much of what was put the peer has to get; all of it, if nothing else was agreed.
    due: Option<usize>,
    faults: Vec<String>,
    pub(super) is_over: bool,
}

type Shared = Rc<RefCell<World>>;

impl World {
    pub(super) fn new(script: Script, peer: Peer) -> World {
        World {
            input: script.input(),
            ops: script.ops.clone().into(),
            script,
            peer,
            sent: 0,
            waited: 0,
            wheel: None,
            put: Vec::new(),
            heard: Vec::new(),
            own_lines: 0,
            own_records: 0,
            panics: 0,
            refused_puts: 0,
            refused_puts_told: 0,
            highs: 0,
            lows: 0,
            flushed_at: 0,
            is_paused: false,
            has_no_event: false,
            input_is_shut: false,
            end_is_told: false,
            output_is_shut: false,
            ends_at: None,
            has_failed: false,
            is_parting: false,
            due: None,
            faults: Vec::new(),
            is_over: false,
        }
    }

    fn next_op(&mut self, is_time: impl Fn(Place) -> bool) -> Option<Op> {
        if !self.ops.front().is_some_and(|(_, place)| is_time(*place)) {
            return None;
        }
        self.ops.pop_front().map(|(op, _)| op)
    }

    /// Not an assertion, which would be a failure of a state.
    fn expect(&mut self, is_right: bool, what: &str) {
        if !is_right {
            self.faults.push(what.to_owned());
        }
    }

    /// What the input so far comes to.
    fn told(&self, has_last: bool) -> (Vec<Told>, usize) {
        told(&self.input[..self.sent], has_last)
    }

    fn all_so_far(&mut self) {
        let put = self.put.len();
        self.due.get_or_insert(put);
    }

    fn nothing_is_due(&mut self) {
        self.due = Some(0);
    }

    /// An event of the wheel has come.
    fn event_of(&mut self, id: WheelId) {
        let is_ours = self.wheel.as_ref().is_some_and(|wheel| wheel.id() == id);
        self.expect(is_ours, "events of a wheel that is there");
    }

    /// Something was told that has come of the input.
    fn hear(&mut self, what: Told) {
        // An output that has failed holds nothing, also before that is told.
        let is_held = self.script.marks.is_some_and(|marks| marks.auto_pause)
            && !self.output_is_over()
            && !self.peer.is_deaf
            && self.wheel.as_ref().is_some_and(ReadWrite::is_high);
        // A filter that is set after the end gets what the one before would not take.
        let is_own = what == Told::Record(OWN.to_owned());
        let is_in_time = !self.end_is_told || self.script.may_stall() || is_own;
        let is_wanted = !self.is_paused && !self.has_no_event && !self.input_is_shut && is_in_time;
        if !is_wanted || is_held {
            self.faults.push(format!("{what:?} only when it is wanted"));
        }
        if is_own {
            self.own_records += 1;
        } else {
            self.heard.push(what);
        }
    }

    fn put(&mut self, record: Put) {
        let Some(wheel) = &self.wheel else { return };
        match record {
            Put::Bytes(bytes) => {
                let told = wheel.put(Put::Bytes(bytes.clone()));
                let waiting = wheel.pending_output();
                if told == lenore::wheel::Put::Closed {
                    return;
                }
                self.put.extend_from_slice(&bytes);
                let has_reached = self.script.marks.is_some_and(|marks| waiting >= marks.high);
                self.expect(!told.takes_more() || !has_reached, "put tells of the high mark");
            }
            Put::Refused => {
                wheel.put(Put::Refused);
                wheel.put(Put::Refused);
                self.refused_puts += if self.output_is_over() { 0 } else { 2 };
            }
            Put::Panics => {
                wheel.put(Put::Panics);
            }
        }
    }

    fn output_is_over(&self) -> bool {
        self.has_failed || self.output_is_shut || self.ends_at.is_some()
    }

    /// Tells whether all that was put has been written, or told of.
    fn is_written(&self) -> bool {
        let waiting = self.wheel.as_ref().map_or(0, ReadWrite::pending_output);
        let (is_left, sees_end) = (self.peer.is_deaf, self.peer.from.is_none());
        match self.ends_at {
            _ if self.has_failed => true,
            _ if self.output_is_shut => sees_end,
            Some(end) => sees_end && self.flushed_at >= end,
            None if waiting > 0 || self.flushed_at < self.put.len() => false,
            None => is_left || self.peer.received.len() == self.put.len(),
        }
    }

    /// Tells whether all that was sent has been told of.
    fn is_heard(&self) -> bool {
        if self.input_is_shut || self.end_is_told {
            return true;
        }
        if self.peer.is_mute {
            return false;
        }
        self.own_records == self.own_lines
            && (self.script.may_stall() || {
                let (told, panics) = self.told(false);
                self.heard.len() >= told.len() && self.panics >= panics
            })
    }

    fn is_even(&self) -> bool {
        self.output_is_over() || self.highs == self.lows && self.refused_puts == self.refused_puts_told
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "sent {}, heard {}, put {}, received {}, flushed at {}, written {}, heard all {}, marks {}/{}, refused {}/{}, {:?}",
            self.sent,
            self.heard.len(),
            self.put.len(),
            self.peer.received.len(),
            self.flushed_at,
            self.is_written(),
            self.is_heard(),
            self.highs,
            self.lows,
            self.refused_puts,
            self.refused_puts_told,
            self.faults,
        )
    }

    /// What must be true of a whole life.
    pub(super) fn check(&self) {
        assert!(self.faults.is_empty(), "not {:?}", self.faults);
        let (told, panics) = self.told(self.script.delivers_last && self.peer.is_mute);
        let mut heard = &self.heard[..];
        // A reset may take back the end of a last record.
        if self.script.kind == Kind::Tcp && self.peer.is_deaf && heard.last().is_some_and(Told::is_last) {
            heard = &heard[..heard.len() - 1];
        }
        assert!(told.starts_with(heard), "{told:?} should begin with {heard:?}");
        assert!(self.own_records <= self.own_lines, "a record twice that a filter has brought along");
        assert!(self.panics <= panics, "{} panics of {panics}", self.panics);
        let received = &self.peer.received;
        assert!(self.put.starts_with(received), "bytes that were not put, or not there");
        let due = self.due.unwrap_or(self.put.len());
        assert!(received.len() >= due, "the peer has {} bytes of {due}", received.len());
    }
}

/// Does one thing, whatever it is.
fn act(cx: &mut Context<'_, Shared>, op: &Op) -> Result {
    let shared = Rc::clone(cx.heap());
    if let Op::Slice = op {
        cx.run_one_timeslice()?;
        return Ok(());
    }
    let mut guard = shared.borrow_mut();
    let world = &mut *guard;
    match *op {
        Op::Fail => return Err(io::Error::other("on purpose").into()),
        Op::PeerSends(most) => {
            let end = world.input.len().min(world.sent.saturating_add(most));
            world.sent += world.peer.send(&world.input[world.sent..end]);
        }
        Op::PeerReceives(most) => world.peer.receive(most),
        Op::PeerEndsOutput => world.peer.end_output(),
        Op::PeerEndsInput => world.peer.end_input(),
        Op::PeerCloses => world.peer.close(),
        Op::PeerResets => world.peer.reset(),
        Op::Put(length) => world.put(Put::Bytes(pattern(world.put.len(), length))),
        Op::PutRefused => world.put(Put::Refused),
        Op::PutPanics => world.put(Put::Panics),
        _ => {}
    }
    if world.peer.is_deaf {
        world.nothing_is_due();
    }
    let Some(wheel) = &world.wheel else { return Ok(()) };
    match op {
        Op::Flush => {
            let (left, waiting) = (wheel.flush(), wheel.pending_output());
            world.expect(left == waiting, "a flush that tells what is left");
        }
        Op::Pause => {
            wheel.pause_input();
            world.is_paused = true;
        }
        Op::Resume => {
            wheel.resume_input();
            world.is_paused = false;
        }
        Op::ClearInput => {
            wheel.event_clear(StreamEvent::Input);
            world.has_no_event = true;
        }
        Op::SetInput => {
            wheel.event(StreamEvent::Input, "input");
            world.has_no_event = false;
        }
        Op::ShutInput => {
            wheel.shutdown_input();
            world.input_is_shut = true;
            // Once both directions are shut down, the system answers what a TCP peer sends with a reset.
            if world.script.kind == Kind::Tcp {
                world.nothing_is_due();
            }
        }
        Op::ShutOutput => {
            wheel.shutdown_output();
            world.output_is_shut = true;
            world.nothing_is_due();
        }
        Op::ShutOutputAfterFlush => {
            wheel.shutdown_output_after_flush();
            let put = world.put.len();
            world.ends_at.get_or_insert(put);
            world.all_so_far();
        }
        Op::SetFilter => wheel.set_filter(Tricky::new(world.script.capacity)),
        Op::SetFilterWithLine => {
            wheel.set_input_filter(Tricky::with_line(world.script.capacity));
            world.own_lines += 1;
        }
        Op::SwitchFilter => {
            let old = world.wheel.take().expect("it is there");
            world.wheel = Some(old.switch_filter(Tricky::new(world.script.capacity)));
        }
        Op::CloseAfterFlush => {
            // A TCP socket that is closed at once with unread input takes back what it has sent.
            if world.script.kind == Kind::Tcp && !world.script.lingers {
                world.nothing_is_due();
            }
            world.all_so_far();
            world.wheel.take().expect("it is there").close_after_flush();
        }
        Op::Drop => {
            world.wheel = None;
            world.nothing_is_due();
        }
        _ => {}
    }
    Ok(())
}

/// Does one thing after the other, as long as they belong together.
fn act_all(cx: &mut Context<'_, Shared>, first: Option<Op>) -> Result {
    let mut next = first;
    while let Some(op) = next {
        act(cx, &op)?;
        next = cx.heap().borrow_mut().next_op(|place| place == Place::AtOnce);
    }
    Ok(())
}

/// Does the next thing if it is to happen in an event.
fn event(cx: &mut Context<'_, Shared>) -> Result {
    let next = cx.heap().borrow_mut().next_op(|place| place == Place::Event);
    act_all(cx, next)
}

fn step(cx: &mut Context<'_, Shared>) -> Result {
    let next = {
        let mut world = cx.heap().borrow_mut();
        world.waited += 1;
        let is_late = world.waited > PATIENCE;
        let next = world.next_op(|place| place != Place::Event || is_late);
        if next.is_some() {
            world.waited = 0;
        }
        next
    };
    let is_last = cx.heap().borrow().ops.is_empty();
    cx.yield_(if is_last { "finale" } else { "step" }, ());
    act_all(cx, next)
}

fn error(cx: &mut Context<'_, Shared>) -> Result {
    let Failure { operation, errno, text, wheel, .. } = cx.take(0)?;
    {
        let mut guard = cx.heap().borrow_mut();
        let world = &mut *guard;
        world.event_of(wheel.expect("a wheel names itself"));
        match operation {
            "read" => {
                let is_wanted = !world.is_paused && !world.has_no_event && !world.input_is_shut && !world.end_is_told;
                world.expect(is_wanted, "one end of the input, when it is wanted");
                world.end_is_told = true;
                let told = world.told(world.script.delivers_last).0;
                // A reset takes back what the system has kept to send it with more; a write that has met it leaves an end.
                let is_reset = errno != 0 || world.script.kind == Kind::Tcp && world.peer.is_deaf;
                let is_whole = is_reset || world.script.may_stall() || world.heard == told;
                world.expect(is_whole, "the end after all records");
            }
            "write" => {
                world.expect(!world.has_failed, "one failure of the output");
                world.has_failed = true;
                world.nothing_is_due();
            }
            "filter" if text.ends_with(PUT_REFUSED) => world.refused_puts_told += 1,
            "filter" => {
                world.expect(errno == EBADMSG, "the errno that is documented");
                let reason = text.rsplit(": ").next().unwrap_or_default();
                world.hear(Told::OutOfStep(reason.to_owned()));
            }
            _ => world.expect(false, "an operation that is documented"),
        }
    }
    event(cx)
}

fn refused(cx: &mut Context<'_, Shared>) -> Result {
    let (error, id) = (cx.take::<FilterError>(0)?, cx.take::<WheelId>(1)?);
    {
        let mut world = cx.heap().borrow_mut();
        world.event_of(id);
        let FilterError::Malformed { reason } = error else { return Err(error.into()) };
        world.hear(Told::Refused(reason.into_owned()));
    }
    event(cx)
}

fn flushed(cx: &mut Context<'_, Shared>) -> Result {
    let id = cx.take::<WheelId>(0)?;
    {
        let mut guard = cx.heap().borrow_mut();
        let world = &mut *guard;
        world.event_of(id);
        // What was put after the end is lost, and counts as waiting for ever.
        let is_empty = world.output_is_over() || world.wheel.as_ref().is_some_and(|wheel| wheel.pending_output() == 0);
        let has_put = world.put.len() > world.flushed_at;
        world.expect(is_empty && has_put && !world.has_failed, "flushed once, when all is written");
        world.flushed_at = world.put.len();
        // What TCP has taken may be on its way.
        if world.script.kind != Kind::Tcp && world.peer.from.is_some() {
            world.peer.receive(usize::MAX);
            let has_all = world.peer.received.len() == world.put.len();
            world.expect(has_all, "flushed when the peer can read all of it");
        }
    }
    event(cx)
}

fn mark(cx: &mut Context<'_, Shared>) -> Result {
    let (id, is_high) = (cx.take::<WheelId>(0)?, cx.state_name() == "high");
    {
        let mut guard = cx.heap().borrow_mut();
        let world = &mut *guard;
        world.event_of(id);
        let is_next = world.highs == world.lows + usize::from(!is_high);
        world.expect(is_next, "the marks by turns");
        *if is_high { &mut world.highs } else { &mut world.lows } += 1;
    }
    event(cx)
}

/// Lets the peer send and read all, and has the wheel end in the way that the script says.
fn finale(cx: &mut Context<'_, Shared>) -> Result {
    let shared = Rc::clone(cx.heap());
    let mut guard = shared.borrow_mut();
    let world = &mut *guard;
    world.peer.receive(usize::MAX);
    let Some(wheel) = &world.wheel else {
        // Closed, or on its way to it: that reaches the peer.
        if world.peer.from.is_some() {
            cx.yield_("finale", ());
        } else {
            world.peer.close();
        }
        return Ok(());
    };
    wheel.resume_input();
    wheel.event(StreamEvent::Input, "input");
    (world.is_paused, world.has_no_event) = (false, false);
    world.sent += world.peer.send(&world.input[world.sent..]);
    let all_is_sent = world.sent == world.input.len() || world.input_is_shut || world.peer.is_mute;
    if !(all_is_sent && world.is_written() && world.is_heard() && world.is_even()) {
        cx.yield_("finale", ());
        return Ok(());
    }
    cx.yield_("part", ());
    if world.is_parting {
        return Ok(());
    }
    world.is_parting = true;
    let parting = world.script.parting;
    drop(guard);
    let put = act(cx, &Op::Put(50_000));
    match parting {
        Parting::PeerEnds => put.and_then(|()| act(cx, &Op::PeerEndsOutput)),
        Parting::Drop => act(cx, &Op::Drop),
        Parting::CloseAfterFlush => act(cx, &Op::CloseAfterFlush),
        Parting::ShutOutputAfterFlush => act(cx, &Op::ShutOutputAfterFlush),
    }
}

/// Waits for the end that was begun.
fn part(cx: &mut Context<'_, Shared>) -> Result {
    let shared = Rc::clone(cx.heap());
    let mut guard = shared.borrow_mut();
    let world = &mut *guard;
    world.peer.receive(usize::MAX);
    match world.script.parting {
        _ if world.wheel.is_none() => cx.yield_("finale", ()),
        Parting::ShutOutputAfterFlush if world.peer.from.is_none() => {
            // Now nothing can come of the wheel but the end of its input, and then the session ends.
            world.peer.close();
        }
        Parting::PeerEnds if world.is_written() && world.is_heard() => {
            world.wheel = None;
            cx.yield_("finale", ());
        }
        _ => cx.yield_("part", ()),
    }
    Ok(())
}

pub(super) fn session(world: &Shared, wheel: ReadWriteBuilder<Tricky>) -> Session<Shared> {
    Session::new(Rc::clone(world))
        .args((wheel,))
        .state("_start", |cx| {
            cx.sig("DIE", "die");
            let wheel = cx.take::<ReadWriteBuilder<Tricky>>(0)?.start(cx)?;
            cx.heap().borrow_mut().wheel = Some(wheel);
            cx.yield_("step", ());
            Ok(())
        })
        .state("step", step)
        .state("input", |cx| {
            let (record, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
            {
                let mut world = cx.heap().borrow_mut();
                world.event_of(id);
                world.hear(Told::Record(record));
            }
            event(cx)
        })
        .state("error", error)
        .state("refused", refused)
        .state("flushed", flushed)
        .state("high", mark)
        .state("low", mark)
        .state("die", |cx| {
            let died = cx.take::<Died>(1)?;
            let text = died.exception.to_string();
            let is_filter = text.contains("filter, ");
            let is_usual = is_filter || text.contains("on purpose") || text.contains("half a record");
            {
                let mut world = cx.heap().borrow_mut();
                world.panics += usize::from(is_filter);
                if !is_usual {
                    world.faults.push(text);
                }
            }
            cx.sig_handled();
            Ok(())
        })
        .state("finale", finale)
        .state("part", part)
        .state("_stop", |cx| cx.heap().borrow_mut().is_over = true)
}

/// How many steps an op waits for an event that it is to happen in.
const PATIENCE: usize = 3;
