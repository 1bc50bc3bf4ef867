//! Time that passes when the test says so.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use lenore::filter::Line;
use lenore::testing::{Sequence, TestKernel, pair};
use lenore::wheel::ReadWrite;
use lenore::{AsKernel, Context, Error, Session};

use crate::panic_of;

const HOUR: Duration = Duration::from_secs(3600);

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Notes the event and the second at which it comes.
fn note(cx: &mut Context<'_, Sequence>) {
    let (name, now) = (cx.state_name(), cx.now());
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    cx.heap().note(format_args!("{name} at {since}"));
}

fn kernel() -> TestKernel {
    TestKernel::starting_at(SystemTime::UNIX_EPOCH)
}

/// A session that begins with `start`, and notes the events `a` to `c`.
fn session(log: &Sequence, start: impl Fn(&mut Context<'_, Sequence>) + 'static) -> Session<Sequence> {
    Session::new(log.clone()).state("_start", move |cx| start(cx)).state("a", note).state("b", note).state("c", note)
}

#[test]
fn alarm_runs_when_the_clock_reaches_its_time_and_not_before() {
    let (log, mut kernel, begin) = (Sequence::new(), kernel(), Instant::now());
    session(&log, |cx| cx.delay("a", 10 * HOUR, ())).spawn(&mut kernel).unwrap();
    kernel.advance(10 * HOUR - Duration::from_nanos(1));
    log.expect_nothing();
    assert!(kernel.has_sessions());
    kernel.advance(Duration::from_nanos(1));
    log.expect(["a at 36000"]);
    assert!(!kernel.has_sessions(), "it has nothing left to wait for");
    assert_eq!(kernel.elapsed(), 10 * HOUR);
    assert!(begin.elapsed() < HOUR, "nothing has waited");
}

#[test]
fn alarms_that_alarms_set_run_in_the_same_advance_at_their_own_times() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| cx.delay("tick", secs(2), ()))
        .state("tick", |cx| {
            note(cx);
            cx.delay("tick", secs(3), ());
            cx.delay("b", secs(1), ());
        })
        .spawn(&mut kernel)
        .unwrap();
    kernel.advance(secs(9));
    log.expect(["tick at 2", "b at 3", "tick at 5", "b at 6", "tick at 8", "b at 9"]);
    assert_eq!(kernel.now(), SystemTime::UNIX_EPOCH + secs(9));
}

#[test]
fn alarms_of_the_wall_clock_move_with_the_clock() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| {
        let now = cx.now();
        cx.alarm("a", now + 2 * HOUR, ());
        cx.alarm("b", SystemTime::UNIX_EPOCH + HOUR, ());
    })
    .spawn(&mut kernel)
    .unwrap();
    kernel.advance(HOUR);
    log.expect(["b at 3600"]);
    kernel.advance(HOUR);
    log.expect(["a at 7200"]);
}

#[test]
fn posts_run_before_the_clock_moves() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    let id = session(&log, |cx| cx.delay("a", secs(1), ())).spawn(&mut kernel).unwrap();
    kernel.post(id, "b", ()).unwrap();
    kernel.advance(secs(1));
    log.expect(["b at 0", "a at 1"]);
}

#[test]
fn postback_that_is_called_between_two_steps_runs_at_the_time_of_the_test() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    let postback = std::rc::Rc::new(std::cell::RefCell::new(None));
    let kept = std::rc::Rc::clone(&postback);
    session(&log, move |cx| {
        *kept.borrow_mut() = cx.postback("a", ()).ok();
        cx.delay("b", secs(5), ());
    })
    .spawn(&mut kernel)
    .unwrap();
    kernel.settle();
    postback.take().unwrap().call(());
    kernel.settle();
    log.expect(["a at 0"]);
    assert_eq!(kernel.now(), SystemTime::UNIX_EPOCH, "the moment of the call does not count");
    kernel.advance(secs(5));
    log.expect(["b at 5"]);
}

#[test]
fn slice_that_a_state_runs_waits_for_no_alarm() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| cx.delay("a", HOUR, ()))
        .state("slice", |cx| {
            assert!(cx.run_one_timeslice().unwrap());
            note(cx);
        })
        .spawn(&mut kernel)
        .and_then(|id| kernel.post(id, "slice", ()))
        .unwrap();
    kernel.settle();
    log.expect(["slice at 0"]);
}

#[test]
fn run_to_end_moves_the_clock_to_each_alarm() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| {
        cx.delay("b", 2 * HOUR, ());
        cx.delay("a", HOUR, ());
    })
    .spawn(&mut kernel)
    .unwrap();
    kernel.run_to_end();
    log.expect(["a at 3600", "b at 7200"]);
    assert_eq!(kernel.elapsed(), 2 * HOUR);
}

#[test]
fn idle_signal_comes_only_when_the_test_runs_the_program_to_its_end() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| {
        cx.alias_set("keeper").unwrap();
        cx.sig("IDLE", "a");
    })
    .state("_stop", note)
    // It waits for a child that there is not: a kernel that runs by itself looks for it, and finds that nothing can happen.
    .state("watch", |cx| {
        let pid = cx.take(0)?;
        cx.sig_child(pid, "c", ());
        Ok(())
    })
    .spawn(&mut kernel)
    .unwrap();
    kernel.advance(HOUR);
    log.expect_nothing();
    kernel.post("keeper", "b", ()).unwrap();
    kernel.post("keeper", "watch", (kernel.fake_pid(),)).unwrap();
    kernel.settle();
    log.expect(["b at 3600"]);
    kernel.run_to_end();
    log.expect(["a at 3600", "_stop at 3600"]);
}

#[test]
fn run_to_end_does_not_wait_for_background_sessions() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| cx.delay("tick", secs(1), ()))
        .state("tick", |cx| {
            note(cx);
            cx.delay("tick", secs(1), ());
        })
        .background()
        .spawn(&mut kernel)
        .unwrap();
    session(&log, |cx| cx.delay("a", Duration::from_millis(2500), ())).spawn(&mut kernel).unwrap();
    kernel.run_to_end();
    log.expect(["tick at 1", "tick at 2", "a at 2"]);
    assert!(!kernel.has_sessions());
}

#[test]
fn run_to_end_says_what_keeps_a_program_that_waits_for_the_test() {
    let (mut kernel, (stream, mut peer)) = (TestKernel::new(), pair());
    Session::new(None)
        .args((stream,))
        .state("_start", |cx| {
            let stream: UnixStream = cx.take(0)?;
            let wheel = ReadWrite::stream(stream, Line::new()).on_input("line").start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("line", |cx| *cx.heap() = None)
        .spawn(&mut kernel)
        .unwrap();
    let text = panic_of(|| kernel.run_to_end());
    assert!(text.contains("sessions wait for what does not come by itself"), "{text}");
    assert!(text.contains("ReadWrite"), "{text}");
    peer.write("line\n");
    kernel.run_to_end();
    peer.expect_end();
}

#[test]
fn program_that_does_not_come_to_rest_fails_the_test() {
    let (log, mut kernel) = (Sequence::new(), kernel());
    session(&log, |cx| cx.yield_("again", ())).state("again", |cx| cx.yield_("again", ())).spawn(&mut kernel).unwrap();
    let text = panic_of(|| kernel.settle());
    assert!(text.contains("does not come to rest") && text.contains("again"), "{text}");
}

#[test]
fn failure_of_a_state_fails_the_test_or_is_returned() {
    let build = || {
        let mut kernel = kernel();
        let failing = session(&Sequence::new(), |cx| cx.delay("fail", secs(5), ()));
        failing.state("fail", |_| Err::<(), _>(std::io::Error::other("on purpose").into())).spawn(&mut kernel).unwrap();
        kernel
    };
    let mut kernel = build();
    let text = panic_of(|| kernel.advance(HOUR));
    assert!(text.contains("on purpose"), "{text}");
    let mut kernel = build();
    let outcome = kernel.try_advance(HOUR);
    assert!(matches!(outcome, Err(Error::Died(_))), "{outcome:?}");
    assert_eq!(kernel.elapsed(), secs(5), "the clock stays where the failure was");
}

#[test]
fn each_kernel_has_a_clock_of_its_own() {
    let (mut one, mut other) = (TestKernel::new(), TestKernel::new());
    one.advance(HOUR);
    other.advance(secs(1));
    assert_eq!((one.elapsed(), other.elapsed()), (HOUR, secs(1)));
    assert_eq!(one.now().duration_since(other.now()).unwrap(), HOUR - secs(1));
    // 2000-01-01T00:00:00Z.
    assert_eq!(one.now().duration_since(SystemTime::UNIX_EPOCH).unwrap(), secs(946_684_800) + HOUR);
}

/// A session that reads lines from a stream.
fn reader() -> (Session<Option<ReadWrite<Line>>>, lenore::testing::Peer) {
    let (stream, peer) = pair();
    let session = Session::new(None)
        .args((stream,))
        .state("_start", |cx| {
            let stream: UnixStream = cx.take(0)?;
            *cx.heap() = Some(ReadWrite::stream(stream, Line::new()).on_input("line").start(cx)?);
            cx.sig("TERM", "term");
            lenore::Result::Ok(())
        })
        .state("line", |_| ())
        .state("term", |_| ());
    (session, peer)
}

#[test]
fn settle_comes_to_an_end_when_term_ends_the_last_session_beside_unread_input() {
    let (mut kernel, (session, mut peer)) = (kernel(), reader());
    session.spawn(&mut kernel).unwrap();
    kernel.settle();
    peer.write("a\n".repeat(75_000));
    kernel.deliver_signal("TERM");
    kernel.settle();
    assert!(!kernel.has_sessions());
    kernel.advance(HOUR);
}

#[test]
fn wait_for_goes_on_looking_without_a_session() {
    let (mut kernel, (session, _peer)) = (kernel(), reader());
    session.spawn(&mut kernel).unwrap();
    kernel.deliver_signal("TERM");
    kernel.settle();
    let (mut looks, begin) = (0, Instant::now());
    kernel.wait_for("the third look", || {
        looks += 1;
        looks == 3
    });
    // It waits between two looks, instead of using up the processor.
    assert!(looks == 3 && begin.elapsed() >= Duration::from_millis(4));
}
