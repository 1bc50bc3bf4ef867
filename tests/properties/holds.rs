//! What keeps sessions alive, against a naive model (K-GC, K-RC): each reason counts as long as it is there, and no longer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::{ReadWrite, StreamEvent};
use lenore::{AlarmId, Context, Handle, Kernel, Name, PeekedSession, Postback, Reason, Session, SessionId};
use proptest::prelude::*;

use util::diary::new_kernel;

/// What a session does. Numbers pick a session, among those that have stopped too, or another thing of the world.
#[derive(Debug, Clone)]
enum Op {
    Create,
    Detach,
    Post(usize),
    /// An event that has a postback among its arguments.
    PostPostback(usize),
    DelayZero,
    DelayHour,
    RemoveAlarm(usize),
    ClearAlarms,
    RemoveAllAlarms,
    Watch(usize),
    WatchWeakly(usize),
    Unwatch(usize),
    AwaitChild(i32),
    ForgetChild(i32),
    Alias(usize),
    Unalias(usize),
    Increment(usize, usize),
    Decrement(usize, usize),
    AwaitSignal(usize),
    WatchSignal(usize),
    ClearSignal(usize),
    Postback,
    CallPostback(usize),
    WeakenPostback(usize),
    DropPostback(usize),
    OpenWheel,
    ToggleWheel,
    DropWheel,
    Fork,
    Panic,
    Kill(usize),
}

/// Tags, two of them those under which the kernel keeps references itself.
const TAGS: [&str; 3] = ["tag", "anon_event", "sig"];
const SIGNALS: [&str; 2] = ["USR", "own"];
/// No process has such a pid, so nothing is reaped.
const FIRST_PID: i32 = 5_000_000;

/// What a session should be kept alive by, apart from posted events and children.
#[derive(Default)]
struct Reasons {
    parent: Option<SessionId>,
    due: u32,
    alarms: u32,
    watched: BTreeSet<usize>,
    pids: BTreeSet<i32>,
    aliases: BTreeSet<String>,
    tags: BTreeMap<&'static str, u32>,
    signals: BTreeSet<&'static str>,
    postbacks: u32,
    /// Whether its wheel has an input event, without which nothing comes of it.
    wheel: Option<bool>,
    forks: u32,
}

/// A posted event.
struct Waiting {
    dest: SessionId,
    sender: SessionId,
    /// Whose postback is among its arguments.
    carries: Option<SessionId>,
}

#[derive(Default)]
struct World {
    ids: Vec<SessionId>,
    living: BTreeMap<SessionId, Reasons>,
    waiting: Vec<Waiting>,
    alarms: Vec<AlarmId>,
    postbacks: Vec<(SessionId, Postback, bool)>,
    /// Nothing can be read from them; and whether they were watched weakly at first.
    handles: Vec<(Handle, bool)>,
    peers: Vec<UnixStream>,
    /// A wheel was changed, which the kernel notices in its next slice.
    is_unsettled: bool,
}

struct Member {
    world: Rc<RefCell<World>>,
    wheel: Option<ReadWrite<Line>>,
    counted: Rc<()>,
}

impl World {
    fn new() -> World {
        let mut world = World::default();
        for _ in 0..3 {
            let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
            world.handles.push((Handle::new(ours), false));
            world.peers.push(peer);
        }
        world
    }

    fn pick(&self, which: usize) -> SessionId {
        self.ids[which % self.ids.len()]
    }

    fn of(&mut self, id: SessionId) -> &mut Reasons {
        self.living.get_mut(&id).expect("it lives")
    }

    fn is_watched(&self, handle: usize) -> bool {
        self.living.values().any(|reasons| reasons.watched.contains(&handle))
    }

    fn watch(&mut self, me: SessionId, handle: usize, weakly: bool) {
        if !self.is_watched(handle) {
            self.handles[handle].1 = weakly;
        }
        self.of(me).watched.insert(handle);
    }

    fn children(&self, id: SessionId) -> Vec<SessionId> {
        let is_child = |(_, reasons): &(&SessionId, &Reasons)| reasons.parent == Some(id);
        self.living.iter().filter(is_child).map(|(child, _)| *child).collect()
    }

    /// Takes a session out with its descendants, and what was sent by and to them.
    fn remove(&mut self, id: SessionId) {
        self.children(id).into_iter().for_each(|child| self.remove(child));
        if self.living.remove(&id).is_some() {
            self.let_go(|waiting| waiting.dest == id || waiting.sender == id);
        }
    }

    fn let_go(&mut self, is_gone: impl Fn(&Waiting) -> bool) {
        let gone: Vec<Waiting> = self.waiting.extract_if(.., |waiting| is_gone(waiting)).collect();
        for owner in gone.into_iter().filter_map(|waiting| waiting.carries) {
            self.living.get_mut(&owner).into_iter().for_each(|reasons| reasons.postbacks -= 1);
        }
    }

    /// How many extra references a session should have under a tag, with those that the kernel keeps.
    fn references(&self, id: SessionId, tag: &str) -> u32 {
        let reasons = &self.living[&id];
        let of_kernel = match tag {
            "anon_event" => reasons.postbacks,
            "sig" => reasons.signals.len() as u32,
            _ => 0,
        };
        reasons.tags.get(tag).map_or(0, |count| *count) + of_kernel
    }

    /// What a session should have in a snapshot, with the handles counted.
    fn reasons(&self, id: SessionId) -> (Vec<String>, usize) {
        let reasons = &self.living[&id];
        let to = self.waiting.iter().filter(|waiting| waiting.dest == id).count() as u32;
        let from = self.waiting.iter().filter(|waiting| waiting.sender == id && waiting.dest != id).count() as u32;
        let tags = TAGS.map(|tag| (tag, self.references(id, tag)));
        let alarms = reasons.due + reasons.alarms;
        let counts = [
            (to, Reason::EventsTo(to)),
            (from, Reason::EventsFrom(from)),
            (alarms, Reason::Alarms(alarms)),
            (reasons.forks, Reason::Forks(reasons.forks)),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0).map(|(_, reason)| reason);
        let aliases = reasons.aliases.iter().map(|alias| Reason::Alias(Name::new(alias)));
        let children = self.children(id).into_iter().map(Reason::Child);
        let tags = tags.into_iter().filter(|(_, count)| *count > 0);
        let tags = tags.map(|(tag, count)| Reason::ExtraReference(Name::new(tag), count));
        let pids = reasons.pids.iter().copied().map(Reason::ChildProcess);
        let all = counts.chain(aliases).chain(children).chain(tags).chain(pids);
        let mut texts: Vec<String> = all.map(|reason| format!("{reason:?}")).collect();
        texts.sort();
        let strong = reasons.watched.iter().filter(|handle| !self.handles[**handle].1).count();
        (texts, strong + usize::from(reasons.wheel == Some(true)))
    }

    /// What a slice does: all that is due is dispatched, and then those end whom nothing holds.
    fn slice(&mut self) {
        self.is_unsettled = false;
        self.let_go(|_| true);
        for reasons in self.living.values_mut() {
            (reasons.due, reasons.forks) = (0, 0);
        }
        while let Some(id) = self.living.keys().copied().find(|id| self.reasons(*id) == (Vec::new(), 0)) {
            self.remove(id);
        }
    }
}

fn member(world: &Rc<RefCell<World>>, counted: &Rc<()>) -> Session<Member> {
    let heap = Member { world: Rc::clone(world), wheel: None, counted: Rc::clone(counted) };
    Session::new(heap)
        .state("_start", |cx| cx.sig("DIE", "on_die"))
        .state("on_die", |cx| cx.sig_handled())
        .state("event", |_| ())
        .state("do", |cx| {
            let op = cx.take::<Op>(0)?;
            carry_out(cx, op)
        })
        .state("let go", let_go)
}

fn create(world: &Rc<RefCell<World>>, id: SessionId, parent: Option<SessionId>) {
    let mut world = world.borrow_mut();
    world.ids.push(id);
    world.living.insert(id, Reasons { parent, ..Reasons::default() });
    // It lives until the loop has come by once.
    world.waiting.push(Waiting { dest: id, sender: SessionId::KERNEL, carries: None });
}

/// Does it, and notes what should have changed. What is refused changes nothing.
fn carry_out(cx: &mut Context<'_, Member>, op: Op) -> lenore::Result {
    let (me, shared) = (cx.session(), Rc::clone(&cx.heap().world));
    let pick = |which: usize| shared.borrow().pick(which);
    let handle = |which: usize| shared.borrow().handles[which].0.clone();
    match op {
        Op::Create => {
            let id = member(&shared, &Rc::clone(&cx.heap().counted)).spawn(cx)?;
            create(&shared, id, Some(me));
        }
        Op::Detach => {
            if cx.detach_myself().is_ok() {
                shared.borrow_mut().of(me).parent = None;
            }
        }
        Op::Post(which) => {
            let dest = pick(which);
            if cx.post(dest, "event", ()).is_ok() {
                shared.borrow_mut().waiting.push(Waiting { dest, sender: me, carries: None });
            }
        }
        Op::PostPostback(which) => {
            let (dest, postback) = (pick(which), cx.postback("event", ())?);
            if cx.post(dest, "event", (postback,)).is_ok() {
                shared.borrow_mut().waiting.push(Waiting { dest, sender: me, carries: Some(me) });
                shared.borrow_mut().of(me).postbacks += 1;
            }
        }
        Op::DelayZero => {
            cx.delay_add("event", Duration::ZERO, ());
            shared.borrow_mut().of(me).due += 1;
        }
        Op::DelayHour => {
            let alarm = cx.delay_set("late", Duration::from_secs(3600), ());
            shared.borrow_mut().alarms.push(alarm);
            shared.borrow_mut().of(me).alarms += 1;
        }
        Op::RemoveAlarm(which) => {
            let alarm = shared.borrow().alarms.get(which).copied();
            if alarm.is_some_and(|alarm| cx.alarm_remove(alarm).is_ok()) {
                shared.borrow_mut().of(me).alarms -= 1;
            }
        }
        Op::ClearAlarms => {
            let count = cx.alarm_clear("late");
            assert_eq!(std::mem::take(&mut shared.borrow_mut().of(me).alarms) as usize, count);
        }
        Op::RemoveAllAlarms => {
            drop(cx.alarm_remove_all());
            (shared.borrow_mut().of(me).due, shared.borrow_mut().of(me).alarms) = (0, 0);
        }
        Op::Watch(which) => {
            cx.select_read(&handle(which), "event", ())?;
            shared.borrow_mut().watch(me, which, false);
        }
        Op::WatchWeakly(which) => {
            cx.select_read_weak(&handle(which), "event", ())?;
            shared.borrow_mut().watch(me, which, true);
        }
        Op::Unwatch(which) => {
            cx.select_read_clear(&handle(which));
            shared.borrow_mut().of(me).watched.remove(&which);
        }
        Op::AwaitChild(pid) => {
            cx.sig_child(pid, "event", ());
            shared.borrow_mut().of(me).pids.insert(pid);
        }
        Op::ForgetChild(pid) => {
            cx.sig_child_clear(pid);
            shared.borrow_mut().of(me).pids.remove(&pid);
        }
        Op::Alias(which) => {
            let alias = format!("alias {which}");
            if cx.alias_set(&alias).is_ok() {
                shared.borrow_mut().of(me).aliases.insert(alias);
            }
        }
        Op::Unalias(which) => {
            let alias = format!("alias {which}");
            if cx.alias_remove(&alias).is_ok() {
                shared.borrow_mut().of(me).aliases.remove(&alias);
            }
        }
        Op::Increment(which, tag) => {
            let (id, tag) = (pick(which), TAGS[tag]);
            if let Ok(count) = cx.refcount_increment(id, tag) {
                *shared.borrow_mut().of(id).tags.entry(tag).or_default() += 1;
                assert_eq!(count, shared.borrow().references(id, tag));
            }
        }
        Op::Decrement(which, tag) => {
            let (id, tag) = (pick(which), TAGS[tag]);
            if let Ok(count) = cx.refcount_decrement(id, tag) {
                *shared.borrow_mut().of(id).tags.get_mut(tag).expect("there was one") -= 1;
                assert_eq!(count, shared.borrow().references(id, tag));
            }
        }
        Op::AwaitSignal(which) => {
            cx.sig_keep_alive(SIGNALS[which], "event");
            shared.borrow_mut().of(me).signals.insert(SIGNALS[which]);
        }
        Op::WatchSignal(which) => {
            cx.sig(SIGNALS[which], "event");
            shared.borrow_mut().of(me).signals.remove(SIGNALS[which]);
        }
        Op::ClearSignal(which) => {
            cx.sig_clear(SIGNALS[which]);
            shared.borrow_mut().of(me).signals.remove(SIGNALS[which]);
        }
        Op::Postback => {
            let postback = cx.postback("event", ())?;
            shared.borrow_mut().postbacks.push((me, postback, true));
            shared.borrow_mut().of(me).postbacks += 1;
        }
        Op::CallPostback(which) => {
            let world = &mut *shared.borrow_mut();
            if let Some((dest, postback, _)) = world.postbacks.get(which) {
                postback.call(());
                if world.living.contains_key(dest) {
                    world.waiting.push(Waiting { dest: *dest, sender: me, carries: None });
                }
            }
        }
        Op::WeakenPostback(which) => {
            let world = &mut *shared.borrow_mut();
            if let Some((owner, postback, holds)) = world.postbacks.get_mut(which) {
                postback.weaken();
                let held = u32::from(std::mem::take(holds));
                world.living.get_mut(owner).into_iter().for_each(|reasons| reasons.postbacks -= held);
            }
        }
        Op::DropPostback(which) => {
            let world = &mut *shared.borrow_mut();
            if which < world.postbacks.len() {
                let (owner, _, holds) = world.postbacks.remove(which);
                world.living.get_mut(&owner).into_iter().for_each(|reasons| reasons.postbacks -= u32::from(holds));
            }
        }
        Op::OpenWheel => {
            let (ours, peer) = UnixStream::pair().expect("a pair of sockets");
            let wheel = ReadWrite::stream(ours, Line::new()).on_input("event").start(cx)?;
            // As long as it can be written, it keeps its session.
            wheel.shutdown_output();
            cx.heap().wheel = Some(wheel);
            shared.borrow_mut().peers.push(peer);
            (shared.borrow_mut().of(me).wheel, shared.borrow_mut().is_unsettled) = (Some(true), true);
        }
        Op::ToggleWheel => {
            let world = &mut *shared.borrow_mut();
            let has_input = world.living.get_mut(&me).and_then(|reasons| reasons.wheel.as_mut());
            if let Some((wheel, has_input)) = cx.heap().wheel.as_ref().zip(has_input) {
                match std::mem::replace(has_input, !*has_input) {
                    true => wheel.event_clear(StreamEvent::Input),
                    false => wheel.event(StreamEvent::Input, "event"),
                }
                world.is_unsettled = true;
            }
        }
        Op::DropWheel => {
            cx.heap().wheel = None;
            (shared.borrow_mut().of(me).wheel, shared.borrow_mut().is_unsettled) = (None, true);
        }
        Op::Fork => {
            // Refused when its time has come, see `run`.
            cx.fork("event", "event", ());
            shared.borrow_mut().of(me).forks += 1;
        }
        Op::Panic => {
            let _postback = cx.postback("event", ())?;
            shared.borrow_mut().waiting.push(Waiting { dest: me, sender: SessionId::KERNEL, carries: None });
            // Not `panic!`, which would write to standard error.
            std::panic::resume_unwind(Box::new("as told"));
        }
        Op::Kill(which) => {
            let dest = pick(which);
            if cx.signal_now(dest, "KILL", ()).is_ok() {
                shared.borrow_mut().remove(dest);
            }
        }
    }
    Ok(())
}

/// Ends everything that keeps a session alive by its own doing.
fn let_go(cx: &mut Context<'_, Member>) -> lenore::Result {
    let (me, shared) = (cx.session(), Rc::clone(&cx.heap().world));
    let reasons = std::mem::take(shared.borrow_mut().of(me));
    shared.borrow_mut().of(me).parent = reasons.parent;
    shared.borrow_mut().of(me).forks = reasons.forks;
    shared.borrow_mut().of(me).postbacks = reasons.postbacks;
    shared.borrow_mut().is_unsettled = true;
    drop(cx.alarm_remove_all());
    cx.heap().wheel = None;
    reasons.signals.into_iter().for_each(|signal| cx.sig_clear(signal));
    reasons.pids.into_iter().for_each(|pid| cx.sig_child_clear(pid));
    let handles: Vec<Handle> = shared.borrow().handles.iter().map(|(handle, _)| handle.clone()).collect();
    handles.iter().for_each(|handle| cx.select_read_clear(handle));
    for alias in reasons.aliases {
        cx.alias_remove(&alias)?;
    }
    for (tag, count) in reasons.tags {
        for _ in 0..count {
            cx.refcount_decrement(me, tag)?;
        }
    }
    Ok(())
}

/// Compares what is there with what should be. The kernel itself compares the reasons that it shows with the holds there are, see
/// `Census::session`.
fn check(kernel: &Kernel, world: &World, anchor: SessionId) {
    let snapshot = kernel.peek();
    let sessions: Vec<&PeekedSession> = snapshot.sessions.iter().filter(|session| session.id != anchor).collect();
    let living: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    let expected: Vec<SessionId> = world.living.keys().copied().filter(|id| *id != anchor).collect();
    assert_eq!(living, expected, "who lives");
    for session in sessions {
        let handles = |reason: &&Reason| matches!(reason, Reason::Handle { .. });
        let (watched, others): (Vec<&Reason>, Vec<&Reason>) = session.reasons.iter().partition(handles);
        let mut texts: Vec<String> = others.iter().map(|reason| format!("{reason:?}")).collect();
        texts.sort();
        let (expected, strong) = world.reasons(session.id);
        assert_eq!(texts, expected, "{}", session.id);
        assert!(watched.len() == strong || world.is_unsettled, "{}: {watched:?}, not {strong}", session.id);
        // Events to it are one reason, be they posted or timed.
        let is_event = |reason: &&&Reason| matches!(reason, Reason::EventsTo(_) | Reason::Alarms(_));
        let events = others.iter().filter(is_event).count();
        assert_eq!(session.refcount, session.reasons.len() - events.saturating_sub(1), "{session:?}");
    }
}

/// Runs a slice that does not wait, as there is an event for the session that is no part of the model.
fn slice(kernel: &mut Kernel, world: &RefCell<World>, anchor: SessionId) {
    kernel.post(anchor, "event", ()).expect("it lives");
    assert!(kernel.run_one_timeslice().expect("no failure is unhandled"));
    world.borrow_mut().slice();
    check(kernel, &world.borrow(), anchor);
}

/// Runs each operation in the session picked for it, and a slice where there is none. Then the program lets go of everything,
/// or drops the kernel as it is.
fn run(ops: Vec<(usize, Option<Op>)>, lets_go: bool) {
    let mut kernel = new_kernel();
    kernel.set_fork_hook(|_| Err(io::Error::other("a test does not fork")));
    let anchor = Session::new(()).state("_start", |cx| Ok(cx.alias_set("anchor")?)).state("event", |_| ());
    let anchor = anchor.state("end", |cx| Ok(cx.alias_remove("anchor")?)).spawn(&mut kernel).expect("it starts");
    let (world, counted) = (Rc::new(RefCell::new(World::new())), Rc::new(()));
    for (which, op) in ops {
        let Some(op) = op else {
            slice(&mut kernel, &world, anchor);
            continue;
        };
        if world.borrow().living.is_empty() {
            let id = member(&world, &counted).spawn(&mut kernel).expect("it starts");
            create(&world, id, None);
        }
        let actor =
            world.borrow().living.keys().copied().nth(which % world.borrow().living.len()).expect("it is there");
        kernel.call(actor, "do", (op,)).expect("it lives");
        check(&kernel, &world.borrow(), anchor);
    }
    if lets_go {
        let everybody: Vec<SessionId> = world.borrow().living.keys().copied().collect();
        for id in everybody {
            kernel.call(id, "let go", ()).expect("it lives");
        }
        drop(std::mem::take(&mut world.borrow_mut().postbacks));
        world.borrow_mut().living.values_mut().for_each(|reasons| reasons.postbacks = 0);
        world.borrow_mut().waiting.iter_mut().for_each(|waiting| waiting.carries = None);
        slice(&mut kernel, &world, anchor);
        assert!(world.borrow().living.is_empty());
        kernel.call(anchor, "end", ()).expect("it lives");
        // Not `run`, which would wait for ever if something were left.
        kernel.run_one_timeslice().expect("no failure is unhandled");
        assert!(kernel.peek().sessions.is_empty());
    }
    drop(kernel);
    assert_eq!(Rc::strong_count(&counted), 1, "a heap was not dropped");
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<usize>();
    let (few, tag, signal) = (0..3_usize, 0..TAGS.len(), 0..SIGNALS.len());
    let (alarm, pid) = (0..12_usize, FIRST_PID..FIRST_PID + 3);
    let alive = prop_oneof![
        6 => Just(Op::Create),
        1 => Just(Op::Detach),
        3 => which.prop_map(Op::Post),
        2 => which.prop_map(Op::PostPostback),
        2 => which.prop_map(Op::Kill),
        1 => Just(Op::Panic),
        2 => Just(Op::Fork),
        2 => Just(Op::DelayZero),
        3 => Just(Op::DelayHour),
        2 => alarm.clone().prop_map(Op::RemoveAlarm),
        1 => Just(Op::ClearAlarms),
        1 => Just(Op::RemoveAllAlarms),
        2 => Just(Op::OpenWheel),
        2 => Just(Op::ToggleWheel),
        1 => Just(Op::DropWheel),
    ];
    let held = prop_oneof![
        2 => few.clone().prop_map(Op::Watch),
        2 => few.clone().prop_map(Op::WatchWeakly),
        2 => few.clone().prop_map(Op::Unwatch),
        2 => pid.clone().prop_map(Op::AwaitChild),
        2 => pid.prop_map(Op::ForgetChild),
        2 => few.clone().prop_map(Op::Alias),
        1 => few.prop_map(Op::Unalias),
        2 => (which, tag.clone()).prop_map(|(which, tag)| Op::Increment(which, tag)),
        2 => (which, tag).prop_map(|(which, tag)| Op::Decrement(which, tag)),
        2 => signal.clone().prop_map(Op::AwaitSignal),
        1 => signal.clone().prop_map(Op::WatchSignal),
        1 => signal.prop_map(Op::ClearSignal),
        2 => Just(Op::Postback),
        2 => alarm.clone().prop_map(Op::CallPostback),
        1 => alarm.clone().prop_map(Op::WeakenPostback),
        1 => alarm.prop_map(Op::DropPostback),
    ];
    prop_oneof![alive, held]
}

proptest! {
    #[test] // K-GC-01, K-RC-02, K-HD-14
    fn a_session_lives_as_long_as_the_model_has_a_reason(
        ops in prop::collection::vec((any::<usize>(), prop::option::weighted(0.8, op())), 1..80),
        lets_go: bool,
    ) {
        run(ops, lets_go);
    }
}
