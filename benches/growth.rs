//! Does anything cost more for each unit when there are very many of them?
//!
//! Each subject is measured with 10^3 to 10^6 units, and given in nanoseconds of processor time for one. A unit among 10^5 may cost twice what
//! it costs among 10^3: caches miss more often, and alarms and sorted lists take a logarithm. A cost that is searched for in a
//! list would be a hundred times as high.
//!
//! ```sh
//! cargo bench -p lenore-benches --bench growth              # or: -- al, for the subjects that have it in their name
//! cargo bench -p lenore-benches --bench growth -- stop 100000      # one size, once: for a profiler
//! ```
//!
//! What is measured runs below `timed`, so a profiler that counts instructions can count there alone. README.md beside this file
//! has the counts, and says which subjects grow by a heap's logarithm and which by cache misses.

use std::fmt::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use lenore::{Context, Error, Handle, Kernel, Name, Session, SessionId};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};

mod ratios;

use ratios::Budget;

/// How many units there are.
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// How many units each size is measured with in all, if one time does not come to as many.
const UNITS: usize = 300_000;

/// How many rounds there are at least, of which the best counts.
const ROUNDS: usize = 3;

/// A subject: its name, the most units, and what measures so many of them.
struct Subject {
    name: &'static str,
    most: usize,
    measure: fn(usize) -> Result<Duration, Error>,
}

fn main() -> Result<(), Error> {
    let most_handles = raise_descriptor_limit();
    let subject = |name, measure| Subject { name, most: usize::MAX, measure };
    let subjects = [
        subject("create", create),
        subject("post_and_dispatch", post_and_dispatch),
        subject("alarms", alarms),
        subject("peek", peek),
        subject("peek_text", peek_text),
        subject("stop", stop),
        subject("kill", kill),
        subject("broadcast", broadcast),
        subject("alias", |count| in_one(count, |cx, name| cx.alias_set(name), |cx, name| cx.alias_remove(name))),
        subject("signal_name", |count| in_one(count, watch_signal, clear_signal)),
        subject("tag", |count| in_one(count, add_tag, take_tag)),
        subject("named_delay", |count| in_one(count, set_delay, clear_delay)),
        Subject { name: "handle", most: most_handles, measure: handles },
        subject("child_watch", child_watches),
    ];
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let size = words.iter().find_map(|word| word.parse::<usize>().ok());
    let names: Vec<&String> = words.iter().filter(|word| word.parse::<usize>().is_err()).collect();
    let is_exact = names.iter().any(|word| subjects.iter().any(|subject| subject.name == *word));
    let is_wanted = |name: &str| names.is_empty() || names.iter().any(|word| is_named(name, word, is_exact));
    let wanted: Vec<Subject> = subjects.into_iter().filter(|subject| is_wanted(subject.name)).collect();
    match (size, &wanted[..]) {
        (Some(size), _) => wanted.iter().try_for_each(|subject| show_once(subject, size)),
        (None, [subject]) => show(subject),
        (None, _) => wanted.iter().try_for_each(|subject| show_in_new_process(subject.name)),
    }
}

/// A word picks the subjects that have it in their name. `peek` is a subject's whole name, so it does not pick `peek_text`.
fn is_named(name: &str, word: &str, is_exact: bool) -> bool {
    if is_exact { name == word } else { name.contains(word) }
}

/// Measures a subject with all sizes, and prints what a unit costs.
fn show(subject: &Subject) -> Result<(), Error> {
    let Subject { name, most, measure } = *subject;
    let mut costs = Vec::new();
    for size in SIZES.into_iter().map(|size| size.min(most)) {
        if costs.last().is_some_and(|(former, _)| *former == size) {
            break;
        }
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS.max(UNITS / size) {
            best = best.min(measure(size)?.as_nanos() as f64 / size as f64);
        }
        println!("time growth {name}/{size} {best:.1} ns");
        costs.push((size, best));
    }
    let compared = costs.iter().rev().find(|(size, _)| *size <= 100_000).zip(costs.first());
    if let Some(((size, cost), (first, base))) = compared.filter(|((size, _), _)| *size > SIZES[0]) {
        let ratio = cost / base;
        println!("ratio growth {name}/{size}/{first} (time) {ratio:.2}{}", Budget::AtMost(2.0).verdict(ratio));
    }
    Ok(())
}

/// Measures a subject in a process of its own. An allocator hands out memory that earlier subjects have freed in no order, and
/// then a walk over all sessions measures that disorder.
///
/// glibc is told to keep what is freed, so the best of the rounds is one that gets no new pages from the system. A large list
/// otherwise goes back at its end, and a round would measure how fast the system zeroes pages.
fn show_in_new_process(name: &str) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(|source| os("readlink", source))?;
    let keep = "glibc.malloc.trim_threshold=17179869184:glibc.malloc.mmap_threshold=17179869184";
    let status =
        Command::new(program).arg(name).env("GLIBC_TUNABLES", keep).status().map_err(|source| os("fork", source))?;
    assert!(status.success(), "{name} could not be measured: {status}");
    Ok(())
}

/// Measures a subject with one size, one time.
fn show_once(subject: &Subject, size: usize) -> Result<(), Error> {
    let size = size.min(subject.most);
    let cost = (subject.measure)(size)?.as_nanos() as f64 / size as f64;
    println!("time growth {}/{size} {cost:.1} ns", subject.name);
    Ok(())
}

type Cx<'a> = Context<'a, Vec<Name>>;

const FAR: Duration = Duration::from_secs(3600);

/// Makes a kernel with so many sessions that wait for nothing in particular, and dispatches their start-up events.
fn idle_sessions(count: usize) -> Result<(Kernel, Vec<SessionId>), Error> {
    let mut kernel = Kernel::new()?;
    let ids = (0..count).map(|_| idle(&mut kernel)).collect::<Result<_, _>>()?;
    kernel.run_one_timeslice()?;
    Ok((kernel, ids))
}

fn idle(kernel: &mut Kernel) -> Result<SessionId, Error> {
    let session = Session::new(())
        .state("_start", |cx| {
            cx.sig("growth", "e");
            cx.refcount_increment(cx.session(), "idle")?;
            Ok(())
        })
        .state("e", |_| ());
    session.spawn(kernel)
}

// A profiler finds it by its name.
#[inline(never)]
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

fn create(count: usize) -> Result<Duration, Error> {
    let mut kernel = Kernel::new()?;
    let spent = timed(&mut kernel, |kernel| (0..count).try_for_each(|_| idle(kernel).map(drop)))?;
    kernel.stop();
    Ok(spent)
}

fn post_and_dispatch(count: usize) -> Result<Duration, Error> {
    let (mut kernel, ids) = idle_sessions(count)?;
    let spent = timed(&mut kernel, |kernel| {
        ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
        kernel.run_one_timeslice().map(drop)
    })?;
    kernel.stop();
    Ok(spent)
}

/// One alarm in each session, which is set and taken back.
fn alarms(count: usize) -> Result<Duration, Error> {
    let mut kernel = Kernel::new()?;
    let session = |_| {
        let session = Session::new(())
            .state("_start", |cx| {
                let alias = format!("growth {}", cx.session().number());
                Ok(cx.alias_set(alias)?)
            })
            .state("set", |cx| cx.delay("e", FAR, ()))
            .state("clear", |cx| cx.delay_clear("e"));
        session.spawn(&mut kernel)
    };
    let ids: Vec<SessionId> = (0..count).map(session).collect::<Result<_, _>>()?;
    let spent = timed(&mut kernel, |kernel| {
        ids.iter().try_for_each(|id| kernel.call(*id, "set", ()).map(drop))?;
        ids.iter().try_for_each(|id| kernel.call(*id, "clear", ()).map(drop))
    })?;
    kernel.stop();
    Ok(spent)
}

fn peek(count: usize) -> Result<Duration, Error> {
    let (mut kernel, _) = idle_sessions(count)?;
    let spent = timed(&mut kernel, |kernel| {
        assert_eq!(kernel.peek().sessions.len(), count);
        Ok(())
    })?;
    kernel.stop();
    Ok(spent)
}

/// The text alone.
fn peek_text(count: usize) -> Result<Duration, Error> {
    let (mut kernel, ids) = idle_sessions(count)?;
    // Both ends of an event are named.
    ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
    let snapshot = kernel.peek();
    let spent = timed(&mut kernel, |_| {
        write!(Nowhere, "{snapshot:#}").expect("nothing is written");
        Ok(())
    })?;
    kernel.stop();
    Ok(spent)
}

struct Nowhere;

impl fmt::Write for Nowhere {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        std::hint::black_box(text);
        Ok(())
    }
}

/// All sessions, each with an event that waits.
fn stop(count: usize) -> Result<Duration, Error> {
    let (mut kernel, ids) = idle_sessions(count)?;
    ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
    timed(&mut kernel, |kernel| {
        kernel.stop();
        Ok(())
    })
}

/// A `KILL` for each session, each with an event that waits and is lost.
fn kill(count: usize) -> Result<Duration, Error> {
    let (mut kernel, ids) = idle_sessions(count)?;
    timed(&mut kernel, |kernel| {
        ids.iter().try_for_each(|id| kernel.signal(*id, "KILL", ()))?;
        ids.iter().try_for_each(|id| kernel.post(*id, "e", ()))?;
        kernel.run_one_timeslice().map(drop)
    })
}

/// A signal that all sessions watch.
fn broadcast(count: usize) -> Result<Duration, Error> {
    let (mut kernel, _) = idle_sessions(count)?;
    let spent = timed(&mut kernel, |kernel| kernel.signal_now(SessionId::KERNEL, "growth", ()))?;
    kernel.stop();
    Ok(spent)
}

/// So many of something in one session, each by a name of its own, added and taken away.
fn in_one(
    count: usize,
    add: fn(&mut Cx<'_>, Name) -> Result<(), Error>,
    take: fn(&mut Cx<'_>, Name) -> Result<(), Error>,
) -> Result<Duration, Error> {
    let mut kernel = Kernel::new()?;
    let names: Vec<Name> = (0..count).map(|number| Name::from(format!("growth {number}"))).collect();
    let id = Session::new(names)
        .state("_start", |cx| Ok(cx.alias_set("one")?))
        .state("work", move |cx| {
            for place in 0..cx.heap().len() {
                let name = cx.heap()[place];
                add(cx, name)?;
            }
            for place in 0..cx.heap().len() {
                let name = cx.heap()[place];
                take(cx, name)?;
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    let spent = timed(&mut kernel, |kernel| {
        assert!(kernel.call(id, "work", ())?.was_handled());
        Ok(())
    })?;
    kernel.stop();
    Ok(spent)
}

fn watch_signal(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.sig(name, "e");
    Ok(())
}

fn clear_signal(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.sig_clear(name);
    Ok(())
}

fn add_tag(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.refcount_increment(cx.session(), name).map(drop)
}

fn take_tag(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.refcount_decrement(cx.session(), name).map(drop)
}

fn set_delay(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.delay(name, FAR, ());
    Ok(())
}

fn clear_delay(cx: &mut Cx<'_>, name: Name) -> Result<(), Error> {
    cx.delay_clear(name);
    Ok(())
}

fn handles(count: usize) -> Result<Duration, Error> {
    let mut kernel = Kernel::new()?;
    let (ours, _theirs) = UnixStream::pair().map_err(|source| os("socketpair", source))?;
    let handles = (0..count).map(|_| Handle::duplicate(ours.as_fd())).collect::<Result<Vec<Handle>, _>>();
    let id = Session::new(handles.map_err(|source| os("dup", source))?)
        .state("_start", |cx| Ok(cx.alias_set("one")?))
        .state("work", |cx| {
            let handles = std::mem::take(cx.heap());
            handles.iter().try_for_each(|handle| cx.select_read(handle, "e", ()))?;
            handles.iter().for_each(|handle| cx.select_read_clear(handle));
            *cx.heap() = handles;
            Ok(())
        })
        .spawn(&mut kernel)?;
    timed(&mut kernel, |kernel| {
        assert!(kernel.call(id, "work", ())?.was_handled());
        Ok(())
    })
}

/// Nobody has these pids, and nobody is asked about them before the next slice.
fn child_watches(count: usize) -> Result<Duration, Error> {
    let mut kernel = Kernel::new()?;
    let id = Session::new(count as i32)
        .state("_start", |cx| Ok(cx.alias_set("one")?))
        .state("work", |cx| {
            let pids = i32::MAX - *cx.heap()..i32::MAX;
            pids.clone().for_each(|pid| cx.sig_child(pid, "e", ()));
            pids.for_each(|pid| cx.sig_child_clear(pid));
        })
        .spawn(&mut kernel)?;
    timed(&mut kernel, |kernel| {
        assert!(kernel.call(id, "work", ())?.was_handled());
        Ok(())
    })
}

fn os(call: &'static str, source: std::io::Error) -> Error {
    Error::Os { call, subject: String::new(), source }
}

/// Asks for as many descriptors as this process may have, and returns how many of them the benchmark may take.
fn raise_descriptor_limit() -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(100)
}
