//! Postbacks and callbacks.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use lenore::wheel::ReadWrite;
use lenore::{Args, Callback, Context, Error, IntoArgs, Kernel, Postback, Reason, Session, SessionId};

use util::DEADLINE;
use util::in_process::{Log, run, run_slices};
use util::parting::Parting;

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

#[test] // K-HD-14, K-HD-15: kept in its own session's heap, with peek to say so, and weakened
fn postback_in_its_own_sessions_heap_keeps_the_session_until_it_is_weakened() {
    let mut kernel = Kernel::new().expect("a kernel");
    let log = Log::default();
    let at_end = log.clone();
    let session = Session::new(None::<Postback>)
        .state("_start", |cx| {
            let postback = cx.postback("called", ())?;
            *cx.heap() = Some(postback);
            Ok(())
        })
        .state("weaken", |cx| cx.heap().iter().for_each(Postback::weaken))
        .state("_stop", move |_| at_end.push("stopped"))
        .spawn(&mut kernel)
        .expect("it starts");
    for _ in 0..3 {
        kernel.post(session, "nothing", ()).expect("it lives");
        assert!(kernel.run_one_timeslice().expect("a slice"));
    }
    assert_eq!(log.take(), [""; 0], "it lives");
    let text = format!("{:#}", kernel.peek());
    assert!(text.contains("anon_event (postbacks and callbacks that are not dropped: 1)"), "{text}");
    kernel.post(session, "weaken", ()).expect("it lives");
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

/// Runs until something is in the log. If the kernel waits for what has happened already, an alarm wakes it: `late`.
fn run_until_told(kernel: &mut Kernel, log: &Log) {
    let late = log.clone();
    Session::new(())
        .state("_start", |cx| cx.delay("late", DEADLINE, ()))
        .state("late", move |_| late.push("late"))
        .spawn(kernel)
        .expect("a session");
    kernel.run_while(|| log.is_empty()).expect("a clean run");
}

/// Makes a wheel that belongs to a session of its own, while its handle is in the heap of another one, which ends at once. So
/// the wheel is dropped when no state runs, after the last event of a slice.
fn wheel_that_is_dropped_by_the_sweep(kernel: &mut Kernel, at_end: impl FnOnce() + 'static) {
    let wheel = wheel(kernel, at_end);
    Session::new(wheel).state("_start", |_| ()).spawn(kernel).expect("a session");
}

fn wheel(kernel: &mut Kernel, at_end: impl FnOnce() + 'static) -> ReadWrite<Parting> {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let (parts, shelf) = (Cell::new(Some((ours, at_end))), Shelf::default());
    let place = shelf.clone();
    Session::new(theirs)
        .state("_start", move |cx| {
            let (ours, at_end) = parts.take().expect("one start");
            *place.borrow_mut() = Some(ReadWrite::stream(ours, Parting::new(at_end)).on_input("input").start(cx)?);
            Ok(())
        })
        .spawn(kernel)
        .expect("a session");
    shelf.take().expect("a wheel")
}

#[test] // K-HD-11: whoever calls it, and whenever
fn a_postback_that_a_filter_calls_at_its_end_does_not_wait() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let postback = shelf.take().expect("a postback");
    wheel_that_is_dropped_by_the_sweep(&mut kernel, move || postback.call((7_u32,)));
    run_until_told(&mut kernel, &log);
    assert_eq!(log.take()[0], "bound 7 from the kernel");
    kernel.stop();
}

#[test] // K-HD-14
fn a_postback_that_a_filter_drops_at_its_end_lets_its_session_end_at_once() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let postback = shelf.take().expect("a postback");
    wheel_that_is_dropped_by_the_sweep(&mut kernel, move || drop(postback));
    run_until_told(&mut kernel, &log);
    assert_eq!(log.take(), ["stopped"]);
    kernel.stop();
}

#[test] // K-HD-11: one wheel goes with another, and that one with a third
fn a_postback_of_a_wheel_that_goes_with_another_does_not_wait() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let postback = shelf.take().expect("a postback");
    let third = wheel(&mut kernel, move || postback.call((3_u32,)));
    let second = wheel(&mut kernel, move || drop(third));
    wheel_that_is_dropped_by_the_sweep(&mut kernel, move || drop(second));
    run_until_told(&mut kernel, &log);
    assert_eq!(log.take()[0], "bound 3 from the kernel");
    kernel.stop();
}

#[test] // K-GC-03: also when the last hold goes while nothing runs
fn a_session_that_loses_its_last_hold_between_two_runs_ends_at_once() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    assert!(kernel.run_one_timeslice().expect("a slice"));
    drop(shelf.take().expect("a postback"));
    run_until_told(&mut kernel, &log);
    assert_eq!(log.take(), ["stopped"]);
    kernel.stop();
}

/// Calls its postback when it is dropped: with another of these as long as there are any, for a session that is gone.
struct Chain {
    left: u32,
    to_nobody: Rc<Postback>,
    to_last: Rc<Postback>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        let Chain { left, to_nobody, to_last } = self;
        match *left {
            0 => to_last.call((0_u32,)),
            left => {
                to_nobody.call((Chain { left: left - 1, to_nobody: to_nobody.clone(), to_last: to_last.clone() },));
            }
        }
    }
}

#[test] // K-HD-13: the loop does not wait while postbacks have left something
fn a_postback_that_is_called_when_the_argument_of_another_is_dropped_is_not_kept_waiting() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let to_nobody = shelf.take().map(Rc::new).expect("a postback");
    to_nobody.weaken();
    maker(&mut kernel, &shelf, &log);
    let to_last = shelf.take().map(Rc::new).expect("a postback");
    run_slices(&mut kernel, 1);
    drop(Chain { left: 5, to_nobody, to_last });
    run(&mut kernel);
    assert_eq!(log.text(), "stopped bound 0 from the kernel stopped");
}

#[test] // K-HD-11, K-HD-13: it keeps its session until its event is in the queue
fn a_postback_that_goes_with_the_argument_of_another_keeps_its_session_for_its_event() {
    let (log, shelf) = (Log::default(), Shelf::default());
    let mut kernel = Kernel::new().expect("a kernel");
    maker(&mut kernel, &shelf, &log);
    let to_nobody = shelf.take().expect("a postback");
    to_nobody.weaken();
    run_slices(&mut kernel, 1);
    log.take();
    maker(&mut kernel, &shelf, &log);
    let last = shelf.take().expect("a postback");
    Session::new(())
        .args((to_nobody, last))
        .state("_start", |cx| {
            let (to_nobody, last): (Postback, Postback) = (cx.take(0)?, cx.take(1)?);
            cx.delay("call", Duration::from_millis(1), (to_nobody, last));
            Ok(())
        })
        .state("call", |cx| {
            let (to_nobody, last): (Postback, Postback) = (cx.take(0)?, cx.take(1)?);
            let to_nobody = Rc::new(to_nobody);
            to_nobody.call((Chain { left: 0, to_nobody: to_nobody.clone(), to_last: Rc::new(last) },));
            Ok(())
        })
        .spawn(&mut kernel)
        .expect("a session");
    run(&mut kernel);
    assert_eq!(log.text(), "bound 0 from the kernel stopped");
}

/// Reads what a postback was called with, in a function that knows nothing of states.
fn answer<T: Copy + 'static>(cx: &Context<'_, ()>) -> Result<T, Error> {
    Ok(*cx.arg::<Args>(1)?.get::<T>(0)?)
}

#[test]
fn error_of_an_argument_names_the_list_that_it_is_of() {
    let (log, mut kernel) = (Log::default(), Kernel::new().expect("a kernel"));
    let told = log.clone();
    Session::new(())
        .state("_start", |cx| {
            let callback = cx.callback("answer", ("bound",))?;
            callback.call(cx, (7_u32,))?;
            cx.postback("answer", (1_u8,))?.call((7_u32, 8_u8));
            Ok(())
        })
        .state("answer", move |cx| {
            assert_eq!(answer::<u32>(cx).expect("it is one"), 7);
            told.push(answer::<i32>(cx).expect_err("it is another type"));
            told.push(cx.arg::<Args>(0)?.get::<u16>(0).expect_err("it is another type"));
            told.push((5_u8,).into_args().get::<u16>(0).expect_err("it is another type"));
            Ok(())
        })
        .spawn(&mut kernel)
        .expect("a session");
    run(&mut kernel);
    let once = |bound| {
        [
            String::from("argument 0 of the call's arguments should be i32, but is u32"),
            format!("argument 0 of the bound arguments should be u16, but is {bound}"),
            String::from("argument 0 should be u16, but is u8"),
        ]
    };
    assert_eq!(log.take(), [once("&str"), once("u8")].concat());
}

#[test] // in vain or not yet in the queue: nothing of the kernel is left with them
fn what_postbacks_have_posted_goes_with_the_kernel() {
    let shelf = Shelf::default();
    let mut kernel = Kernel::new().expect("a kernel");
    let [first, second, third] = std::array::from_fn(|_| {
        maker(&mut kernel, &shelf, &Log::default());
        shelf.take().map(Rc::new).expect("a postback")
    });
    run_slices(&mut kernel, 1);
    let witness = Rc::new(());
    first.call((second.clone(), witness.clone()));
    drop(kernel);
    assert_eq!(Rc::strong_count(&witness), 1, "it was posted before the end");
    second.call((third.clone(), witness.clone()));
    assert_eq!(Rc::strong_count(&witness), 1, "it was posted after the end");
    assert_eq!([first, second, third].map(|postback| Rc::strong_count(&postback)), [1, 1, 1]);
}
