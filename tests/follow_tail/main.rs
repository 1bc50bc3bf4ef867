//! `FollowTail`: section 18 of the behaviour specification.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use lenore::filter::{FilterError, Line};
use lenore::wheel::{Failure, FollowTail, FollowTailBuilder, TailEvent, WheelId};
use lenore::{Context, Error, Kernel, Name, Session, SessionId};
use tempfile::TempDir;

mod failures;
#[cfg(all(feature = "inotify", target_os = "linux"))]
mod notices;
mod places;
mod records;
mod rotation;
mod streams;

use util::in_process::{Log, kernel, run, run_until};

/// Short enough for a test, and never what a test waits for.
const INTERVAL: Duration = Duration::from_millis(5);

/// A session with a wheel, which logs what the wheel sends.
struct Owner {
    log: Log,
    wheel: Option<FollowTail<Line>>,
}

/// A file in a directory of its own, a kernel, and the session that follows the file.
struct Lab {
    dir: TempDir,
    kernel: Kernel,
    log: Log,
    session: Option<SessionId>,
    /// How far the wheel has come; written down at each of its events.
    told: Rc<RefCell<Option<u64>>>,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().expect("a directory can be made");
        Lab { dir, kernel: kernel(), log: Log::default(), session: None, told: Rc::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Replaces the file's content: the same file, truncated.
    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("the file can be written");
    }

    fn append(&self, text: &str) {
        append(&self.path(), text);
    }

    /// Follows the file with all events.
    fn follow(&mut self) {
        self.follow_with(|builder| builder);
    }

    fn follow_with(&mut self, settings: impl Fn(FollowTailBuilder<Line>) -> FollowTailBuilder<Line> + 'static) {
        let path = self.path();
        let quick = move || FollowTail::path(&path, Line::new()).poll_interval(INTERVAL).rotate_wait(INTERVAL);
        self.start(move || settings(quick()));
    }

    fn start(&mut self, make: impl FnOnce() -> FollowTailBuilder<Line> + 'static) {
        let session = session(&self.log, self.told.clone(), make).spawn(&mut self.kernel);
        self.session = Some(session.expect("it starts"));
    }

    /// Runs until the log has this entry at its end, and idles after it.
    #[track_caller]
    fn settle(&mut self) {
        let idle = |log: &Log| log.count("idle");
        let before = idle(&self.log);
        // The second look after everything has come.
        let log = self.log.clone();
        run_until(&mut self.kernel, || idle(&log) >= before + 2);
    }

    /// What has come since the last time, beside idle events.
    #[track_caller]
    fn news(&mut self) -> Vec<String> {
        self.settle();
        self.log.take().into_iter().filter(|entry| entry != "idle").collect()
    }

    fn call(&mut self, state: &str) {
        self.kernel.call(self.session.expect("it was started"), state, ()).expect("the session lives");
    }
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("the file can be opened");
    file.write_all(text.as_bytes()).expect("the file can be written");
}

fn session(
    log: &Log,
    told: Rc<RefCell<Option<u64>>>,
    make: impl FnOnce() -> FollowTailBuilder<Line> + 'static,
) -> Session<Owner> {
    let make = RefCell::new(Some(make));
    Session::new(Owner { log: log.clone(), wheel: None })
        .state("_start", move |cx| {
            let make = make.take().expect("it starts once");
            let builder = make().on_input("input").on_error("error").on_reset("reset").on_idle("idle");
            let builder = builder.on_retry("retry").on_refused("refused");
            let wheel = builder.start(cx)?;
            cx.heap().wheel = Some(wheel);
            cx.sig("DIE", "die");
            Ok(())
        })
        .state("input", move |cx| {
            is_ours(cx, 1)?;
            let line = cx.take::<String>(0)?;
            cx.heap().log.push(line);
            *told.borrow_mut() = cx.heap().wheel.as_ref().and_then(FollowTail::tell);
            Ok(())
        })
        .state("reset", |cx| {
            is_ours(cx, 0)?;
            cx.heap().log.push("reset");
            Ok(())
        })
        .state("idle", |cx| {
            is_ours(cx, 0)?;
            cx.heap().log.push("idle");
            Ok(())
        })
        .state("refused", |cx| {
            is_ours(cx, 1)?;
            assert!(!cx.arg::<FilterError>(0)?.is_out_of_step());
            let name = cx.arg::<PathBuf>(2)?.file_name().map(|name| name.to_string_lossy().into_owned());
            cx.heap().log.push(format!("refused:{}", name.unwrap_or_default()));
            Ok(())
        })
        .state("error", |cx| failure(cx, "error"))
        .state("retry", |cx| failure(cx, "retry"))
        .state("drop", |cx| cx.heap().wheel = None)
        .state("stop", |cx| Ok(cx.signal(cx.session(), "KILL", ())?))
        .state("die", |cx| cx.sig_handled())
        .state("_stop", |cx| cx.heap().log.push("_stop"))
}

fn failure(cx: &mut Context<'_, Owner>, event: &str) -> lenore::Result {
    let Failure { operation, errno, wheel, subject, .. } = cx.take(0)?;
    is_id_ours(cx, wheel.expect("a wheel names itself"));
    let name = Path::new(&subject).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    cx.heap().log.push(format!("{event}:{operation}:{errno}:{name}"));
    Ok(())
}

fn is_ours(cx: &mut Context<'_, Owner>, position: usize) -> lenore::Result {
    let id = *cx.arg::<WheelId>(position)?;
    is_id_ours(cx, id);
    Ok(())
}

fn is_id_ours(cx: &mut Context<'_, Owner>, id: WheelId) {
    assert!(cx.heap().wheel.as_ref().is_none_or(|wheel| wheel.id() == id));
    assert_eq!(cx.caller_state().map(Name::as_str), Some("FollowTail"));
}

#[test] // K-FT-06: one chunk for each slice, the first at once
fn a_long_file_leaves_room_for_others() {
    const LINES: usize = 64 * 1024;
    let mut lab = Lab::new();
    lab.write(&"0123456789abcde\n".repeat(LINES));
    let (lines, ticks) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (path, count) = (lab.path(), lines.clone());
    let make =
        move || FollowTail::path(&path, Line::new()).poll_interval(Duration::from_secs(1000)).seek(SeekFrom::Start(0));
    session(&lab.log, lab.told.clone(), make)
        .state("input", move |cx| {
            count.set(count.get() + 1);
            if count.get() == LINES {
                cx.heap().wheel = None;
            }
        })
        .spawn(&mut lab.kernel)
        .unwrap();
    let (seen, count) = (lines.clone(), ticks.clone());
    Session::new(())
        .state("_start", |cx| cx.yield_("tick", ()))
        .state("tick", move |cx| {
            count.set(count.get() + 1);
            if seen.get() < LINES {
                cx.yield_("tick", ());
            }
        })
        .spawn(&mut lab.kernel)
        .unwrap();
    run(&mut lab.kernel);
    assert_eq!(lines.get(), LINES);
    assert!((10..200).contains(&ticks.get()), "a megabyte in pieces of at most 64 KiB: {}", ticks.get());
}

#[test] // K-FT-12
fn idle_comes_once_for_each_look_without_news() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    lab.settle();
    lab.log.take();
    lab.append("x\n");
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("x") == 1);
    lab.settle();
    let entries = lab.log.take();
    let after = entries.iter().skip_while(|entry| *entry != "x").count();
    assert_eq!(after, 3, "data, no idle for the same poll, two idle events: {entries:?}");
}

#[test] // K-FT-16
fn the_wheel_keeps_its_session_alive_and_leaves_no_timer_behind() {
    let mut lab = Lab::new();
    lab.follow_with(|builder| builder.poll_interval(Duration::from_secs(1000)));
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("idle") == 1);
    assert_eq!(lab.kernel.peek().sessions.len(), 1);
    assert_eq!(lab.kernel.event_count(), 1);
    lab.call("drop");
    run(&mut lab.kernel);
    assert_eq!(log.text(), "idle _stop");
    assert_eq!(lab.kernel.event_count(), 0);
}

#[test] // K-FT-17: event
fn events_can_be_changed_and_taken_away() {
    let mut lab = Lab::new();
    lab.write("1\n2\n3\n4\n");
    let path = lab.path();
    let make = move || FollowTail::path(&path, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Start(0));
    session(&lab.log, lab.told.clone(), make)
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            let Owner { log, wheel } = cx.heap();
            let wheel = wheel.as_ref().expect("it has a wheel");
            log.push(format!("first:{line}"));
            wheel.event(TailEvent::Input, "other");
            wheel.event(TailEvent::Idle, "at_rest");
            wheel.event_clear(TailEvent::Reset);
            Ok(())
        })
        .state("other", |cx| {
            let line = cx.take::<String>(0)?;
            let Owner { log, wheel } = cx.heap();
            log.push(format!("other:{line}"));
            if line == "3" {
                wheel.iter().for_each(|wheel| wheel.event_clear(TailEvent::Input));
                cx.delay("later", INTERVAL * 4, ());
            }
            Ok(())
        })
        .state("later", |cx| {
            cx.heap().log.push("later");
            cx.heap().wheel.iter().for_each(|wheel| wheel.event(TailEvent::Input, "other"));
        })
        .state("at_rest", |cx| {
            cx.heap().log.push("at_rest");
            cx.heap().wheel = None;
        })
        .spawn(&mut lab.kernel)
        .unwrap();
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), "first:1 other:2 other:3 later other:4 at_rest _stop");
}

#[test] // K-FT-01
fn what_is_missing_or_wrong_is_an_error_of_the_constructor() {
    let mut kernel = kernel();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    Session::new(())
        .state("_start", move |cx| {
            let text = |outcome: Result<FollowTail<Line>, Error>| outcome.expect_err("it is refused").to_string();
            let file = path.join("log");
            let start = |builder: FollowTailBuilder<Line>, cx: &mut lenore::Context<'_, ()>| text(builder.start(cx));
            assert_eq!(start(FollowTail::path(&file, Line::new()), cx), "invalid on_input: is required");
            let zero = FollowTail::path(&file, Line::new()).on_input("input").poll_interval(Duration::ZERO);
            assert_eq!(start(zero, cx), "invalid poll_interval: must be more than zero");
            let directory = start(FollowTail::path(&path, Line::new()).on_input("input"), cx);
            assert!(directory.starts_with(&format!("open {}: Is a directory", path.display())), "{directory}");
            let handle = FollowTail::file(File::open(&path).unwrap(), Line::new()).on_input("input");
            assert!(start(handle, cx).starts_with("open a handle: Is a directory"));
            let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
            let handle = FollowTail::file(datagrams, Line::new()).on_input("input");
            assert!(start(handle, cx).starts_with("invalid handle: it is a datagram socket"));
            assert!(cx.peek().sources.is_empty());
            cx.stop();
            let stopped = FollowTail::path(&file, Line::new()).on_input("input").start(cx);
            assert!(matches!(stopped, Err(Error::NoActiveSession)));
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

#[test] // what `peek` shows
fn a_picture_of_the_kernel_names_the_file() {
    let mut lab = Lab::new();
    lab.follow();
    let text = format!("{:#}", lab.kernel.peek());
    assert!(text.contains("log, which does not exist -> input"), "{text}");
    lab.append("x\n");
    lab.settle();
    let text = format!("{:#}", lab.kernel.peek());
    assert!(text.contains("log -> input"), "{text}");
}

#[test] // K-FT-05: what is waited for has no descriptor
fn a_file_that_is_not_there_has_no_descriptor() {
    let mut lab = Lab::new();
    lab.follow();
    lab.settle();
    let text = format!("{:#}", lab.kernel.peek());
    assert!(text.contains("no descriptor") && !text.contains("descriptor -1"), "{text}");
}
