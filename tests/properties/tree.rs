//! The session tree under whatever can happen to it (K-SE, K-GC).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use lenore::{
    AsKernel, ChildChange, Context, Error, EventKind, Exception, Kernel, PeekedSession, Reason, Session, SessionId,
};
use proptest::prelude::*;

use util::diary::new_kernel;

/// What a session does, or what is done to it. Numbers pick a session, among those that have stopped too.
#[derive(Debug, Clone)]
enum Op {
    Create { leaves_in_start: bool },
    DetachMyself,
    DetachChild(usize),
    Post(usize),
    Alias,
    Unalias,
    Hold(usize),
    Release(usize),
    KillNow(usize),
    Kill(usize),
    Call(usize, Box<Op>),
    Slice,
    Stop,
    Fail,
}

/// What the sessions know about the tree, from the notices that they get.
#[derive(Default)]
struct World {
    ids: Vec<SessionId>,
    parents: BTreeMap<SessionId, SessionId>,
    children: BTreeMap<SessionId, BTreeSet<SessionId>>,
    tags: BTreeMap<SessionId, u32>,
    /// Who has answered the roll call.
    present: BTreeSet<SessionId>,
    /// What the sessions do in `_child`, `_parent`, `_stop` and when they hear of `KILL`.
    reactions: VecDeque<Op>,
    /// Whether some session reacted; the order of notices is not mirrored then.
    is_wild: bool,
}

/// A session's heap, which counts itself.
struct Member {
    world: Rc<RefCell<World>>,
    _counted: Rc<()>,
}

fn member(world: &Rc<RefCell<World>>, counted: &Rc<()>, leaves_in_start: bool) -> Session<Member> {
    let in_a_state = Rc::clone(counted);
    Session::new(Member { world: Rc::clone(world), _counted: Rc::clone(counted) })
        .state("_start", move |cx| {
            let (me, parent) = (cx.session(), cx.sender());
            let mut world = cx.heap().world.borrow_mut();
            world.ids.push(me);
            world.parents.insert(me, parent);
            world.children.insert(me, BTreeSet::new());
            drop(world);
            cx.sig("KILL", "on_kill");
            cx.sig("roll call", "here");
            if leaves_in_start && parent != SessionId::KERNEL {
                cx.detach_myself()?;
            }
            Ok(())
        })
        .state("_child", on_child)
        .state("_parent", on_parent)
        .state("_stop", |cx| {
            let me = cx.session();
            cx.heap().world.borrow_mut().parents.remove(&me).expect("it is stopped once");
            react(cx)
        })
        .state("on_kill", react)
        .state("here", |cx| {
            let me = cx.session();
            assert!(cx.heap().world.borrow_mut().present.insert(me), "{me} is visited twice");
        })
        .state("posted", move |_| assert!(Rc::strong_count(&in_a_state) > 1))
        .state("do", |cx| {
            let op = cx.take::<Op>(0)?;
            carry_out(cx, op)
        })
}

fn on_child(cx: &mut Context<'_, Member>) -> lenore::Result {
    let (me, change, child) = (cx.session(), *cx.arg::<ChildChange>(0)?, *cx.arg::<SessionId>(1)?);
    let mut world = cx.heap().world.borrow_mut();
    let is_wild = world.is_wild;
    let children = world.children.entry(me).or_default();
    let changed = if change == ChildChange::Lose { children.remove(&child) } else { children.insert(child) };
    assert!(changed || is_wild, "{me} is told twice: {change} {child}");
    drop(world);
    react(cx)
}

fn on_parent(cx: &mut Context<'_, Member>) -> lenore::Result {
    let (me, old, new) = (cx.session(), *cx.arg::<SessionId>(0)?, *cx.arg::<SessionId>(1)?);
    let mut world = cx.heap().world.borrow_mut();
    let before = world.parents.insert(me, new);
    assert!(before == Some(old) || world.is_wild, "{me} had {before:?} and is told {old}");
    drop(world);
    react(cx)
}

fn react(cx: &mut Context<'_, Member>) -> lenore::Result {
    let mut world = cx.heap().world.borrow_mut();
    let Some(op) = world.reactions.pop_front() else { return Ok(()) };
    world.is_wild = true;
    drop(world);
    carry_out(cx, op)
}

/// Does it; what is refused, because the session is gone or not the right one, is no failure.
fn carry_out(cx: &mut Context<'_, Member>, op: Op) -> lenore::Result {
    let pick = |cx: &mut Context<'_, Member>, which: usize| {
        let world = cx.heap().world.borrow();
        world.ids[which % world.ids.len()]
    };
    let refused = match op {
        Op::Create { leaves_in_start } => {
            let (world, counted) = (Rc::clone(&cx.heap().world), Rc::clone(&cx.heap()._counted));
            member(&world, &counted, leaves_in_start).spawn(cx).map(drop)
        }
        Op::DetachMyself => cx.detach_myself(),
        Op::DetachChild(which) => {
            let child = pick(cx, which);
            cx.detach_child(child)
        }
        Op::Post(which) => {
            let dest = pick(cx, which);
            cx.post(dest, "posted", ())
        }
        Op::Alias => {
            let alias = cx.session().to_string();
            cx.alias_set(&alias)
        }
        Op::Unalias => {
            let alias = cx.session().to_string();
            cx.alias_remove(&alias)
        }
        Op::Hold(which) => {
            let id = pick(cx, which);
            let count = cx.refcount_increment(id, "tag");
            note_tag(cx, id, count)
        }
        Op::Release(which) => {
            let id = pick(cx, which);
            let count = cx.refcount_decrement(id, "tag");
            note_tag(cx, id, count)
        }
        Op::KillNow(which) => {
            let dest = pick(cx, which);
            cx.signal_now(dest, "KILL", ())
        }
        Op::Kill(which) => {
            let dest = pick(cx, which);
            cx.signal(dest, "KILL", ())
        }
        Op::Call(which, op) => {
            let dest = pick(cx, which);
            cx.call(dest, "do", (*op,)).map(drop)
        }
        Op::Slice => slice_of(cx),
        Op::Stop => {
            cx.stop();
            Ok(())
        }
        Op::Fail => return Err(Exception::new("as told")),
    };
    match refused {
        Err(error @ Error::Exception(_)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn note_tag(cx: &mut Context<'_, Member>, id: SessionId, count: Result<u32, Error>) -> Result<(), Error> {
    let count = count?;
    cx.heap().world.borrow_mut().tags.insert(id, count);
    Ok(())
}

fn slice_of(cx: &mut Context<'_, Member>) -> Result<(), Error> {
    if cx.event_count() > 0 {
        cx.run_one_timeslice()?;
    }
    Ok(())
}

/// Runs a slice if that does not mean to wait.
fn slice(kernel: &mut Kernel) -> Result<(), Error> {
    if kernel.event_count() > 0 {
        kernel.run_one_timeslice()?;
    }
    Ok(())
}

/// Checks that the records agree with each other, and that signals find everybody.
fn check_tree(kernel: &mut Kernel, world: &RefCell<World>) {
    let living: BTreeSet<SessionId> = kernel.peek().sessions.iter().map(|session| session.id).collect();
    kernel.signal_now(SessionId::KERNEL, "roll call", ()).expect("the kernel is there");
    let present = std::mem::take(&mut world.borrow_mut().present);
    // Fewer may be left now: a signal is an occasion to act upon an exception that some `_stop` left behind.
    let snapshot = kernel.peek();
    assert_eq!(present, living, "who heard the signal, and who lives: {:?}", snapshot.sessions);
    let by_id: BTreeMap<SessionId, &PeekedSession> =
        snapshot.sessions.iter().map(|session| (session.id, session)).collect();
    let mut reached: Vec<SessionId> = Vec::new();
    let mut todo: Vec<SessionId> = snapshot
        .sessions
        .iter()
        .filter(|session| session.parent == SessionId::KERNEL)
        .map(|session| session.id)
        .collect();
    while let Some(id) = todo.pop() {
        reached.push(id);
        for child in &by_id[&id].children {
            assert_eq!(by_id[child].parent, id, "{child} is in {id}'s list");
            todo.push(*child);
        }
    }
    reached.sort_unstable();
    assert!(reached.iter().eq(by_id.keys()), "in the tree: {reached:?}, alive: {:?}", by_id.keys());
    for session in &snapshot.sessions {
        check_reasons(session, &snapshot.events);
        assert_eq!(kernel.alias_list(session.id).expect("it lives").len(), session.aliases.len());
    }
}

/// Recounts what keeps a session alive.
fn check_reasons(session: &PeekedSession, events: &[lenore::PeekedEvent]) {
    let id = session.id;
    let to = events.iter().filter(|event| event.dest == id && event.kind != EventKind::Alarm).count() as u32;
    let from = events.iter().filter(|event| event.source == id && event.dest != id).count() as u32;
    let counted = session.reasons.iter().fold((0, 0), |(to, from), reason| match reason {
        Reason::EventsTo(count) => (*count, from),
        Reason::EventsFrom(count) => (to, *count),
        _ => (to, from),
    });
    assert_eq!(counted, (to, from), "{session:?}");
    let tags = session.reasons.iter().filter(|reason| matches!(reason, Reason::ExtraReference(..))).count();
    let expected = usize::from(to > 0) + usize::from(from > 0) + session.aliases.len() + session.children.len() + tags;
    assert_eq!((session.refcount, session.reasons.len()), (expected, expected), "{session:?}");
}

/// Checks that what the sessions were told is how it is.
fn check_notices(core: &impl AsKernel, world: &World) {
    let snapshot = core.peek();
    assert_eq!(snapshot.sessions.len(), world.parents.len());
    for session in &snapshot.sessions {
        assert_eq!(world.parents.get(&session.id), Some(&session.parent), "the parent of {}", session.id);
        let children: BTreeSet<SessionId> = session.children.iter().copied().collect();
        assert_eq!(world.children[&session.id], children, "the children of {}", session.id);
        let held = session.reasons.iter().find_map(|reason| match reason {
            Reason::ExtraReference(_, count) => Some(*count),
            _ => None,
        });
        assert_eq!(world.tags.get(&session.id).copied().filter(|count| *count > 0), held);
    }
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<usize>();
    let leaf = prop_oneof![
        6 => prop::bool::weighted(0.2).prop_map(|leaves_in_start| Op::Create { leaves_in_start }),
        2 => Just(Op::DetachMyself),
        2 => which.prop_map(Op::DetachChild),
        3 => which.prop_map(Op::Post),
        3 => Just(Op::Alias),
        1 => Just(Op::Unalias),
        2 => which.prop_map(Op::Hold),
        2 => which.prop_map(Op::Release),
        2 => which.prop_map(Op::KillNow),
        1 => which.prop_map(Op::Kill),
        2 => Just(Op::Slice),
        1 => prop::bool::weighted(0.2).prop_map(|all| if all { Op::Stop } else { Op::Alias }),
    ];
    leaf.prop_recursive(2, 4, 1, move |inner| (which, inner).prop_map(|(which, op)| Op::Call(which, Box::new(op))))
}

/// Runs each operation in the session picked for it, on the kernel's own account if that one has stopped, and checks
/// the tree after each; then runs the program to its end and looks for what is left.
fn run(ops: Vec<(usize, Op)>, reactions: Vec<Op>) {
    let mut kernel = new_kernel();
    let (world, counted) = (Rc::new(RefCell::new(World::default())), Rc::new(()));
    world.borrow_mut().reactions = reactions.into();
    for (which, op) in ops {
        if world.borrow().parents.is_empty() {
            member(&world, &counted, false).spawn(&mut kernel).expect("it has a _start");
        }
        let ids = world.borrow().ids.clone();
        // What a state does to sessions on the stack, itself included, belongs to the wild runs.
        let done = match op {
            Op::KillNow(_) => kernel.signal_now(ids[which % ids.len()], "KILL", ()),
            Op::Slice => slice(&mut kernel),
            op => kernel.call(ids[which % ids.len()], "do", (op,)).map(drop),
        };
        match done {
            Ok(()) | Err(Error::NoSuchSession(_)) => {}
            Err(Error::Died(died)) => assert_eq!(died.exception.to_string(), "as told"),
            Err(error) => panic!("{error}"),
        }
        check_tree(&mut kernel, &world);
        if !world.borrow().is_wild {
            check_notices(&kernel, &world.borrow());
        }
    }
    // One that holds a reference to a session would keep the program from ending.
    world.borrow_mut().reactions.clear();
    end(&mut kernel, &world);
    assert_eq!(Rc::strong_count(&counted), 1, "a heap or a state was not dropped");
}

/// Lets go of all that is held from outside, and runs what is left.
fn end(kernel: &mut Kernel, world: &Rc<RefCell<World>>) {
    loop {
        let ids = world.borrow().ids.clone();
        for id in ids {
            while kernel.refcount_decrement(id, "tag").is_ok() {}
        }
        match slice(kernel).and_then(|()| if kernel.event_count() == 0 { kernel.run() } else { Ok(()) }) {
            Ok(()) => {}
            Err(Error::Died(died)) => assert_eq!(died.exception.to_string(), "as told"),
            Err(error) => panic!("{error}"),
        }
        if kernel.peek().sessions.is_empty() && kernel.event_count() == 0 {
            return;
        }
    }
}

/// An operation for the wild runs, in which states fail as well.
fn wild_op() -> impl Strategy<Value = Op> {
    prop_oneof![20 => op(), 1 => Just(Op::Fail)]
}

proptest! {
    #[test] // K-SE-08 to K-SE-36, K-GC-01, K-GC-08, K-GC-10
    fn the_tree_is_what_the_sessions_are_told(
        ops in prop::collection::vec((any::<usize>(), op()), 1..60),
    ) {
        run(ops, Vec::new());
    }

    #[test] // K-SE-14, K-SE-15, K-SE-27, K-LP-20, K-LP-27: in every state that the kernel runs, anything may happen
    fn nothing_that_states_do_while_sessions_stop_breaks_the_tree(
        ops in prop::collection::vec((any::<usize>(), wild_op()), 1..60),
        reactions in prop::collection::vec(wild_op(), 0..40),
    ) {
        run(ops, reactions);
    }
}
