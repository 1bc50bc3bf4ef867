//! Postbacks and callbacks.

use std::cell::RefCell;
use std::rc::Rc;

use lenore::{Args, Callback, Kernel, Postback, Reason, Session, SessionId};

use util::in_process::Log;

/// Where a session of a test leaves its postback for the test to use.
type Shelf<T> = Rc<RefCell<Option<T>>>;

/// A session that leaves a postback of `answer` on the shelf, and writes down what it gets.
fn maker(kernel: &mut Kernel, shelf: &Shelf<Postback>, log: &Log) -> SessionId {
    let (shelf, told, stopped) = (shelf.clone(), log.clone(), log.clone());
    Session::new(())
        .state("_start", move |cx| {
            *shelf.borrow_mut() = Some(cx.postback("answer", ("bound", 1_u8))?);
            Ok(())
        })
        .state("answer", move |cx| {
            let (bound, called) = (cx.take::<Args>(0)?, cx.take::<Args>(1)?);
            let (word, called) = (*bound.get::<&str>(0)?, *called.get::<u32>(0)?);
            told.push(format!("{word} {called} from {}", cx.sender()));
            Ok(())
        })
        .state("_stop", move |_| stopped.push("stopped"))
        .spawn(kernel)
        .expect("a session")
}

#[test] // K-HD-11, K-HD-13: ARG0 has what was bound, ARG1 what was called with; the sender is whoever calls
fn a_postback_posts_what_was_bound_and_what_it_is_called_with() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let postback = shelf.take().expect("a postback");
    postback.call((1_u32,));
    let told = log.clone();
    Session::new(Some(postback))
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| {
            told.push("go");
            // Posted between two events of this session's own: it is dispatched between them.
            cx.yield_("before", ());
            cx.heap().iter().for_each(|postback| postback.call((2_u32,)));
            cx.yield_("after", ());
            *cx.heap() = None;
        })
        .state("before", {
            let told = log.clone();
            move |_| told.push("before")
        })
        .state("after", {
            let told = log.clone();
            move |_| told.push("after")
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("a clean end");
    assert_eq!(log.take(), ["bound 1 from the kernel", "go", "before", "bound 2 from session 2", "after", "stopped"]);
}

#[test] // K-HD-12: a callback calls, and hands the value back
fn a_callback_returns_the_states_value() {
    let shelf: Shelf<Callback> = Shelf::default();
    let left = shelf.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(())
        .state("_start", move |cx| {
            *left.borrow_mut() = Some(cx.callback("add", (40_i32,))?);
            Ok(())
        })
        .state("add", |cx| {
            let (bound, called) = (cx.take::<Args>(0)?, cx.take::<Args>(1)?);
            Ok(bound.get::<i32>(0)? + called.get::<i32>(0)?)
        })
        .spawn(&mut kernel)
        .expect("a session");
    let callback = shelf.take().expect("a callback");
    let reply = callback.call(&mut kernel, (2_i32,)).expect("a living session");
    assert_eq!(reply.take::<i32>().expect("a number"), 42);
    drop(callback);
    kernel.run().expect("a clean end");
}

#[test] // K-HD-14: each holds one unit of anon_event, together one reason; the last to go lets the session end
fn postbacks_keep_their_session_alive_until_they_are_dropped() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    let maker = maker(&mut kernel, &shelf, &log);
    let first = shelf.take().expect("a postback");
    kernel.call(maker, "_start", ()).expect("another postback");
    let second = shelf.take().expect("another postback");
    // One slice, for the event of its creation; a second would wait for ever.
    assert!(kernel.run_one_timeslice().expect("a slice"));
    let session = kernel.peek().sessions.into_iter().find(|session| session.id == maker).expect("it lives");
    assert_eq!(session.reasons, [Reason::ExtraReference("anon_event".into(), 2)]);
    assert_eq!(session.refcount, 1);
    drop(first);
    drop(second);
    kernel.run().expect("a clean end");
    assert_eq!(log.take(), ["stopped"]);
}

#[test] // K-HD-15: weakened, it works while the session lives and does not keep it alive
fn a_weak_postback_lets_its_session_end() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let postback = shelf.take().expect("a postback");
    postback.weaken();
    postback.call((7_u32,));
    kernel.run().expect("a clean end");
    assert_eq!(log.take(), ["bound 7 from the kernel", "stopped"]);
}

#[test] // K-HD-16: once its session has stopped, calling and dropping it do nothing
fn a_postback_of_a_stopped_session_does_nothing() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    let maker = maker(&mut kernel, &shelf, &log);
    kernel.signal(maker, "KILL", ()).expect("a living session");
    kernel.run().expect("a clean end");
    let postback = shelf.take().expect("a postback");
    postback.call((1_u32,));
    drop(postback);
    kernel.run().expect("nothing to do");
    assert_eq!(log.take(), ["stopped"]);
}
