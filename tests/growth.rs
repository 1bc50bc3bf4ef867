//! Nothing costs more for each unit when there are very many of them. The benchmark `growth` says how much everything costs;
//! these tests only tell a list that is searched from one that is not.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::{Context, Error, Handle, Kernel, Name, Session, SessionId};
use nix::time::{ClockId, clock_gettime};
use util::diary::new_kernel;

const FEW: usize = 500;

const MANY: usize = 16 * FEW;

/// How much more a unit may cost among [`MANY`] than among [`FEW`]; in a list that is searched it is 16 times as much.
const TOLERATED: f64 = 5.0;

/// Other processes disturb a measurement, but not every time.
const ATTEMPTS: u32 = 10;

/// Compares what one unit costs `measure` among few and among many.
fn assert_cost_stays(what: &str, measure: impl Fn(usize) -> Result<Duration, Error>) -> Result<(), Error> {
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ATTEMPTS {
        let cost = |count: usize| Ok::<f64, Error>(measure(count)?.as_nanos() as f64 / count as f64);
        best = (best.0.min(cost(FEW)?), best.1.min(cost(MANY)?));
        if best.1 <= best.0 * TOLERATED {
            return Ok(());
        }
    }
    panic!("{what}: {:.0} ns among {FEW}, {:.0} ns among {MANY}", best.0, best.1);
}

fn timed(kernel: &mut Kernel, work: impl FnOnce(&mut Kernel) -> Result<(), Error>) -> Result<Duration, Error> {
    let start = run_time();
    work(kernel)?;
    Ok(run_time() - start)
}

/// Returns how long this thread has run. What other processes do to the machine disturbs that least.
fn run_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has this clock");
    Duration::from(time)
}

/// A kernel with so many sessions, each with an alias, an alarm, and a posted event that waits.
fn sessions(count: usize) -> Result<(Kernel, Vec<SessionId>), Error> {
    let mut kernel = new_kernel();
    let session = |number| {
        let session = Session::new(number)
            .state("_start", |cx: &mut Context<'_, usize>| {
                cx.sig("growth", "e");
                cx.delay("e", FAR, ());
                let alias = format!("growth {}", cx.heap());
                Ok(cx.alias_set(alias)?)
            })
            .state("e", |_| ());
        session.spawn(&mut kernel)
    };
    let ids: Vec<SessionId> = (0..count).map(session).collect::<Result<_, _>>()?;
    kernel.run_one_timeslice()?;
    ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
    Ok((kernel, ids))
}

const FAR: Duration = Duration::from_secs(3600);

#[test] // K-RE-11
fn a_peek_takes_time_in_proportion_to_the_sessions() -> Result<(), Error> {
    assert_cost_stays("peek", |count| {
        let (mut kernel, _) = sessions(count)?;
        let spent = timed(&mut kernel, |kernel| {
            let text = format!("{:#}", kernel.peek());
            assert!(text.lines().count() > 4 * count);
            Ok(())
        })?;
        kernel.stop();
        Ok(spent)
    })
}

#[test] // K-LP-25, K-EV-28
fn a_stop_takes_time_in_proportion_to_sessions_and_events() -> Result<(), Error> {
    assert_cost_stays("stop", |count| {
        let (mut kernel, _) = sessions(count)?;
        let spent = timed(&mut kernel, |kernel| {
            kernel.stop();
            Ok(())
        })?;
        assert_eq!(kernel.event_count(), 0);
        Ok(spent)
    })
}

#[test] // K-EV-28, K-SG-24
fn sessions_that_are_stopped_one_by_one_do_not_look_at_each_others_events() -> Result<(), Error> {
    assert_cost_stays("KILL", |count| {
        let (mut kernel, ids) = sessions(count)?;
        ids.iter().try_for_each(|id| kernel.signal(*id, "KILL", ()))?;
        ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
        let spent = timed(&mut kernel, |kernel| kernel.run_one_timeslice().map(drop))?;
        assert!(kernel.peek().sessions.is_empty());
        Ok(spent)
    })
}

#[test] // K-SG-23
fn a_broadcast_takes_time_in_proportion_to_the_sessions() -> Result<(), Error> {
    assert_cost_stays("broadcast", |count| {
        let (mut kernel, _) = sessions(count)?;
        let spent = timed(&mut kernel, |kernel| kernel.signal_now(SessionId::KERNEL, "growth", ()))?;
        kernel.stop();
        Ok(spent)
    })
}

type Cx<'a> = Context<'a, Vec<Name>>;

type Step = fn(&mut Cx<'_>, Name) -> Result<(), Error>;

#[test] // K-AL-02, K-RC-01, K-SG-01, K-TM-10: in one session
fn what_a_session_has_many_of_is_found_without_a_search() -> Result<(), Error> {
    let kinds: [(&str, Step, Step); 5] = [
        ("alias", |cx, name| cx.alias_set(name), |cx, name| cx.alias_remove(name)),
        (
            "tag",
            |cx, name| cx.refcount_increment(cx.session(), name).map(drop),
            |cx, name| cx.refcount_decrement(cx.session(), name).map(drop),
        ),
        (
            "signal",
            |cx, name| {
                cx.sig(name, "e");
                Ok(())
            },
            |cx, name| {
                cx.sig_clear(name);
                Ok(())
            },
        ),
        (
            "delay",
            |cx, name| {
                cx.delay(name, FAR, ());
                Ok(())
            },
            |cx, name| {
                cx.delay(name, FAR, ());
                cx.delay_clear(name);
                Ok(())
            },
        ),
        (
            "overdue alarm",
            |cx, name| {
                cx.delay(name, Duration::ZERO, ());
                Ok(())
            },
            |cx, name| {
                cx.delay_clear(name);
                Ok(())
            },
        ),
    ];
    for (what, add, take) in kinds {
        assert_cost_stays(what, |count| {
            let mut kernel = new_kernel();
            let names: Vec<Name> = (0..count).map(|number| Name::from(format!("growth {number}"))).collect();
            let id = Session::new(names)
                .state("_start", |cx| Ok(cx.alias_set("one")?))
                .state("work", move |cx| {
                    let names = cx.heap().clone();
                    names.iter().try_for_each(|name| add(cx, *name))?;
                    names.iter().try_for_each(|name| take(cx, *name))?;
                    Ok(())
                })
                .spawn(&mut kernel)?;
            // By the queue: what is due then waits for the next phase.
            kernel.post(id, "work", ())?;
            let spent = timed(&mut kernel, |kernel| kernel.run_one_timeslice().map(drop))?;
            assert_eq!(kernel.peek().sessions[0].refcount, 1, "the alias of its own is left");
            kernel.stop();
            Ok(spent)
        })?;
    }
    Ok(())
}

#[test] // K-SG-48, K-IO-14: in one session, and in a session each
fn child_watches_and_handles_are_found_without_a_search() -> Result<(), Error> {
    assert_cost_stays("child watches", |count| {
        let mut kernel = new_kernel();
        let id = Session::new(count as i32)
            .state("_start", |cx| Ok(cx.alias_set("one")?))
            .state("work", |cx| {
                let pids = i32::MAX - *cx.heap()..i32::MAX;
                pids.clone().for_each(|pid| cx.sig_child(pid, "e", ()));
                pids.for_each(|pid| cx.sig_child_clear(pid));
            })
            .spawn(&mut kernel)?;
        timed(&mut kernel, |kernel| kernel.call(id, "work", ()).map(drop))
    })?;
    assert_cost_stays("one handle, watched by many", |count| {
        let (mut kernel, (ours, _theirs)) = (new_kernel(), UnixStream::pair().expect("a socket pair"));
        let handle = Handle::duplicate(ours.as_fd()).expect("a descriptor to spare");
        let session = |_| {
            let handle = handle.clone();
            let session = Session::new(()).state("_start", move |cx| Ok(cx.select_read(&handle, "e", ())?));
            session.spawn(&mut kernel)
        };
        let start = run_time();
        let ids: Vec<SessionId> = (0..count).map(session).collect::<Result<_, _>>()?;
        assert_eq!(kernel.peek().sources.len(), 1);
        ids.iter().try_for_each(|id| kernel.signal_now(*id, "KILL", ()))?;
        Ok(run_time() - start)
    })
}

#[test] // K-HD-01: the table is made once, however many states it has
fn a_session_with_many_states_is_made_in_proportion_to_them() -> Result<(), Error> {
    assert_cost_stays("states", |count| {
        let mut kernel = new_kernel();
        let names: Vec<Name> = (0..count).map(|number| Name::from(format!("growth {number}"))).collect();
        let start = run_time();
        let session = Session::new(()).state("_start", |_| ());
        let session = names.iter().fold(session, |session, name| session.state(*name, |_| 1_u8).state(*name, |_| 2_u8));
        let id = session.spawn(&mut kernel)?;
        let spent = run_time() - start;
        for name in [names[0], names[count / 2], names[count - 1]] {
            assert_eq!(kernel.call(id, name, ())?.take::<u8>()?, 2, "the last state of a name counts");
        }
        kernel.stop();
        Ok(spent)
    })
}
