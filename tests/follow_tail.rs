//! `FollowTail`: section 18 of the behaviour specification.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use lenore::filter::{Filter, FilterError, Line, Stream};
use lenore::wheel::{FollowTail, FollowTailBuilder, TailEvent, WheelId};
use lenore::{Context, Died, Error, Kernel, Name, Session, SessionId};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

mod util;

use util::in_process::{Log, Watchdog, kernel, run, run_until};

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
        self.start(move || settings(FollowTail::new(&path, Line::new()).poll_interval(INTERVAL)));
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
        .state("error", |cx| {
            is_ours(cx, 3)?;
            let (operation, errno, path) = (*cx.arg::<&str>(0)?, *cx.arg::<i32>(1)?, cx.arg::<PathBuf>(4)?.clone());
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            cx.heap().log.push(format!("error:{operation}:{errno}:{name}"));
            Ok(())
        })
        .state("drop", |cx| cx.heap().wheel = None)
        .state("die", |cx| cx.sig_handled())
        .state("_stop", |cx| cx.heap().log.push("_stop"))
}

fn is_ours(cx: &mut Context<'_, Owner>, position: usize) -> lenore::Result {
    let id = *cx.arg::<WheelId>(position)?;
    assert!(cx.heap().wheel.as_ref().is_none_or(|wheel| wheel.id() == id));
    assert_eq!(cx.caller_state().map(Name::as_str), Some("FollowTail"));
    Ok(())
}

#[test] // K-FT-02, K-FT-03: from the end on
fn following_begins_at_the_end() {
    let mut lab = Lab::new();
    lab.write("old 1\nold 2\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.append("new 1\nnew 2\n");
    assert_eq!(lab.news(), ["new 1", "new 2"]);
}

#[test] // K-FT-03: what is just being written comes whole, and nothing of the 4096 octets before it
fn a_line_without_its_end_is_kept() {
    let mut lab = Lab::new();
    lab.write(&("an old line\n".repeat(1000) + "begun"));
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.append(" and");
    assert_eq!(lab.news(), [""; 0]);
    lab.append(" ended\n");
    assert_eq!(lab.news(), ["begun and ended"]);
}

#[test] // K-FT-03: what is appended between the constructor and the first look
fn nothing_is_missed_after_the_start() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.append("at once\n");
    assert_eq!(lab.news(), ["at once"]);
}

#[test] // K-FT-04
fn following_begins_where_it_is_told() {
    for (place, expected) in [
        (SeekFrom::Start(0), &["one", "two", "three"][..]),
        (SeekFrom::Start(4), &["two", "three"]),
        (SeekFrom::Start(5), &["wo", "three"]),
        (SeekFrom::Start(1000), &[]),
        (SeekFrom::End(0), &[]),
        (SeekFrom::End(-6), &["three"]),
        (SeekFrom::End(-1000), &["one", "two", "three"]),
    ] {
        let mut lab = Lab::new();
        lab.write("one\ntwo\nthree\n");
        lab.follow_with(move |builder| builder.seek(place));
        assert_eq!(lab.news(), expected, "{place:?}");
        lab.append("four\n");
        assert_eq!(lab.news(), ["four"], "{place:?}");
    }
}

#[test] // K-FT-05, K-FT-12
fn a_file_that_is_not_there_is_waited_for() {
    let mut lab = Lab::new();
    lab.follow();
    assert_eq!(lab.news(), [""; 0], "only idle events while it is waited for");
    lab.append("one\ntwo\n");
    assert_eq!(lab.news(), ["reset", "one", "two"]);
}

#[test] // K-FT-05: its start, whatever was sought
fn a_file_that_appears_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.follow_with(|builder| builder.seek(SeekFrom::End(0)));
    lab.append("one\n");
    assert_eq!(lab.news(), ["reset", "one"]);
}

#[test] // K-FT-06: one chunk for each slice, the first at once
fn a_long_file_leaves_room_for_others() {
    const LINES: usize = 64 * 1024;
    let mut lab = Lab::new();
    lab.write(&"0123456789abcde\n".repeat(LINES));
    let (lines, ticks) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (path, count) = (lab.path(), lines.clone());
    let make =
        move || FollowTail::new(&path, Line::new()).poll_interval(Duration::from_secs(1000)).seek(SeekFrom::Start(0));
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

#[test] // K-FT-07, K-FT-08: rotation, with the rest of the old file first
fn a_replaced_file_is_read_to_its_end_first() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.append("a\n");
    assert_eq!(lab.news(), ["a"]);
    lab.append("b\n");
    fs::rename(lab.path(), lab.dir.path().join("log.1")).unwrap();
    lab.append("c\n");
    assert_eq!(lab.news(), ["b", "reset", "c"]);
    lab.append("d\n");
    assert_eq!(lab.news(), ["d"]);
}

#[test] // K-FT-08: a writer that has not reopened the file yet, until there is another
fn a_renamed_file_is_followed_until_there_is_another() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    lab.settle();
    let renamed = lab.dir.path().join("log.1");
    fs::rename(lab.path(), &renamed).unwrap();
    assert_eq!(lab.news(), [""; 0]);
    append(&renamed, "late\n");
    assert_eq!(lab.news(), ["late"]);
    append(&renamed, "latest\n");
    lab.append("new\n");
    assert_eq!(lab.news(), ["late", "latest", "reset", "new"][1..]);
}

#[test] // K-FT-07: the file is another one, although it is as long
fn a_replacement_is_recognised_whatever_its_length() {
    for second in ["x\n", "second\n", "longer than the first\n"] {
        let mut lab = Lab::new();
        lab.write("first\n");
        lab.follow();
        assert_eq!(lab.news(), [""; 0]);
        let other = lab.dir.path().join("other");
        fs::write(&other, second).unwrap();
        fs::rename(&other, lab.path()).unwrap();
        assert_eq!(lab.news(), ["reset", second.trim_end()]);
    }
}

#[test] // K-FT-07: a second name makes no other file
fn a_hard_link_is_no_replacement() {
    let mut lab = Lab::new();
    lab.write("first\n");
    lab.follow();
    lab.settle();
    fs::hard_link(lab.path(), lab.dir.path().join("backup")).unwrap();
    lab.append("second\n");
    assert_eq!(lab.news(), ["second"]);
}

#[test] // K-FT-07
fn a_truncated_file_is_read_from_its_start() {
    let mut lab = Lab::new();
    lab.write("first\nsecond\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.write("");
    assert_eq!(lab.news(), ["reset"]);
    lab.append("third\n");
    assert_eq!(lab.news(), ["third"]);
    lab.write("x\n");
    assert_eq!(lab.news(), ["reset", "x"]);
}

#[test] // K-FT-09
fn removal_is_no_event_and_the_next_file_is() {
    let mut lab = Lab::new();
    lab.write("first\n");
    lab.follow();
    lab.settle();
    fs::remove_file(lab.path()).unwrap();
    assert_eq!(lab.news(), [""; 0]);
    lab.append("second\n");
    assert_eq!(lab.news(), ["reset", "second"]);
}

#[test] // K-FT-10
fn a_handle_is_followed_and_its_name_is_not() {
    let mut lab = Lab::new();
    lab.write("first\n");
    let file = File::open(lab.path()).unwrap();
    lab.start(|| FollowTail::handle(file, Line::new()).poll_interval(INTERVAL));
    lab.append("second\n");
    assert_eq!(lab.news(), ["second"]);
    lab.write("");
    assert_eq!(lab.news(), ["reset"]);
    lab.append("third\n");
    assert_eq!(lab.news(), ["third"]);
    fs::remove_file(lab.path()).unwrap();
    lab.append("of another file\n");
    assert_eq!(lab.news(), [""; 0]);
}

#[test] // K-FT-10, K-FT-04: the handle's own place, which stays where it is
fn a_handle_is_read_without_being_moved() {
    use std::io::{Read, Seek};
    let mut lab = Lab::new();
    lab.write("one\ntwo\nthree\n");
    let mut file = File::open(lab.path()).unwrap();
    file.seek(SeekFrom::Start(4)).unwrap();
    let copy = file.try_clone().unwrap();
    lab.start(|| FollowTail::handle(copy, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Current(0)));
    assert_eq!(lab.news(), ["two", "three"]);
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "two\nthree\n");
}

#[test] // K-FT-11 with K-RE-25: rewritten and longer than before, between two looks
fn a_file_that_was_truncated_and_has_grown_is_recognised() {
    let mut lab = Lab::new();
    lab.write("12:00 first\n");
    lab.follow();
    assert_eq!(lab.news(), [""; 0]);
    lab.write("13:00 second, and longer\n");
    assert_eq!(lab.news(), ["reset", "13:00 second, and longer"]);
    lab.write("14:00 exactly as long...\n");
    assert_eq!(lab.news(), ["reset", "14:00 exactly as long..."]);
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

fn fifo(lab: &Lab) {
    mkfifo(&lab.path(), Mode::S_IRWXU).expect("a FIFO can be made");
}

#[test] // K-FT-13: no polling, and no end when a writer goes
fn a_fifo_is_watched_and_has_no_end() {
    let mut lab = Lab::new();
    fifo(&lab);
    lab.follow_with(|builder| builder.poll_interval(Duration::from_secs(1000)));
    let log = lab.log.clone();
    for round in ["one", "two"] {
        append(&lab.path(), &format!("{round}\n")); // opens, writes, closes
        run_until(&mut lab.kernel, || log.count(round) == 1);
    }
    lab.call("drop");
    run(&mut lab.kernel);
    assert_eq!(log.text(), "one two _stop");
}

#[test] // K-FT-05, K-FT-13
fn a_fifo_may_appear_later() {
    let mut lab = Lab::new();
    lab.follow();
    lab.settle();
    fifo(&lab);
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("reset") == 1);
    append(&lab.path(), "one\n");
    run_until(&mut lab.kernel, || log.count("one") == 1);
}

#[test] // K-FT-14: the end of a socket
fn the_end_of_a_socket_is_an_error_event() {
    let mut lab = Lab::new();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"one\ntwo\nunfinished").unwrap();
    drop(theirs);
    lab.start(|| FollowTail::handle(ours, Line::new()));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), "one two error:read:0: _stop");
}

#[test] // K-FT-14: the end of a pipe, and a last record for who wants it
fn the_end_of_a_pipe_is_an_idle_event() {
    let mut lab = Lab::new();
    let (ours, mut theirs) = std::io::pipe().unwrap();
    theirs.write_all(b"one\nunfinished").unwrap();
    drop(theirs);
    lab.start(|| FollowTail::handle(OwnedFd::from(ours), Line::new()).deliver_last());
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), "one unfinished idle _stop");
}

#[test] // K-FT-15, K-FT-02: a file that can't be read is no missing one
fn what_can_not_be_opened_ends_the_following() {
    let mut lab = Lab::new();
    // Not even root gets through a name that is no directory.
    lab.write("");
    let path = lab.path().join("log");
    lab.start(move || FollowTail::new(&path, Line::new()));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), format!("error:open:{}:log _stop", Errno::ENOTDIR as i32));
}

#[test] // K-FT-15: also later, and what is found in place of a file
fn a_directory_in_place_of_the_file_ends_the_following() {
    let mut lab = Lab::new();
    lab.write("old\n");
    lab.follow();
    lab.settle();
    fs::remove_file(lab.path()).unwrap();
    fs::create_dir(lab.path()).unwrap();
    run(&mut lab.kernel);
    lab.log.take().iter().rev().take(2).zip(["_stop", "error:open:21:log"]).for_each(|(entry, expected)| {
        assert_eq!(entry, expected);
    });
}

#[test] // K-FT-15: a handle that can't be read
fn a_read_error_ends_the_following() {
    let mut lab = Lab::new();
    lab.write("x\n");
    let file = OpenOptions::new().append(true).open(lab.path()).unwrap();
    lab.start(|| FollowTail::handle(file, Line::new()).seek(SeekFrom::Start(0)));
    run(&mut lab.kernel);
    assert_eq!(lab.log.text(), format!("error:read:{}: _stop", Errno::EBADF as i32));
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

#[test] // K-FT-17: where another run would go on
fn tell_says_what_has_been_delivered() {
    let mut lab = Lab::new();
    lab.write("one\ntwo\nthr");
    lab.follow_with(|builder| builder.seek(SeekFrom::Start(0)));
    assert_eq!(lab.news(), ["one", "two"]);
    let told = lab.told.take().expect("it is a regular file");
    assert_eq!(told, 8);
    let mut again = Lab { dir: lab.dir, ..Lab::new() };
    again.append("ee\n");
    again.follow_with(move |builder| builder.seek(SeekFrom::Start(told)));
    assert_eq!(again.news(), ["three"]);
}

#[test] // K-FT-17: nothing to tell of what is no regular file
fn tell_knows_nothing_of_what_is_no_regular_file() {
    let mut lab = Lab::new();
    fifo(&lab);
    lab.follow();
    append(&lab.path(), "x\n");
    let log = lab.log.clone();
    run_until(&mut lab.kernel, || log.count("x") == 1);
    assert_eq!(*lab.told.borrow(), None);
}

#[test] // K-FT-17: event
fn events_can_be_changed_and_taken_away() {
    let mut lab = Lab::new();
    lab.write("1\n2\n3\n4\n");
    let path = lab.path();
    let make = move || FollowTail::new(&path, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Start(0));
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

#[test] // K-FT-18 with K-RE-25: no record is made of pieces of two files
fn an_unfinished_record_does_not_outlive_its_file() {
    for truncates in [false, true] {
        let mut lab = Lab::new();
        lab.write("");
        lab.follow();
        lab.append("whole\nunfin");
        assert_eq!(lab.news(), ["whole"]);
        if truncates {
            lab.write("a\n");
        } else {
            fs::remove_file(lab.path()).unwrap();
            lab.append("a\n");
        }
        assert_eq!(lab.news(), ["reset", "a"], "truncates: {truncates}");
    }
}

#[test] // K-FT-18 with K-RE-39
fn an_unfinished_record_is_delivered_to_who_asks_for_it() {
    let mut lab = Lab::new();
    lab.write("");
    lab.follow_with(|builder| builder.deliver_last());
    lab.append("unfinished");
    assert_eq!(lab.news(), [""; 0]);
    fs::remove_file(lab.path()).unwrap();
    lab.append("a\n");
    assert_eq!(lab.news(), ["unfinished", "reset", "a"]);
}

#[test] // K-FT-01
fn what_is_missing_or_wrong_is_an_error_of_the_constructor() {
    let mut kernel = kernel();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let outside = FollowTail::new(&path, Line::new()).on_input("input").start(&mut kernel);
    assert!(matches!(outside, Err(Error::NoActiveSession)));
    Session::new(())
        .state("_start", move |cx| {
            let text = |outcome: Result<FollowTail<Line>, Error>| outcome.err().expect("it is refused").to_string();
            let file = path.join("log");
            let start = |builder: FollowTailBuilder<Line>, cx: &mut lenore::Core| text(builder.start(cx));
            assert_eq!(start(FollowTail::new(&file, Line::new()), cx), "invalid on_input: is required");
            let zero = FollowTail::new(&file, Line::new()).on_input("input").poll_interval(Duration::ZERO);
            assert_eq!(start(zero, cx), "invalid poll_interval: must be more than zero");
            let directory = start(FollowTail::new(&path, Line::new()).on_input("input"), cx);
            assert!(directory.starts_with(&format!("open {}: Is a directory", path.display())), "{directory}");
            let handle = FollowTail::handle(File::open(&path).unwrap(), Line::new()).on_input("input");
            assert!(start(handle, cx).starts_with("open a handle: Is a directory"));
            assert!(cx.peek().sources.is_empty());
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
}

#[test] // K-FT-01: any filter
fn records_are_what_the_filter_makes_of_the_file() {
    let mut kernel = kernel();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    fs::write(&path, [0, 1, 255]).unwrap();
    let log = Log::default();
    let seen = log.clone();
    Session::new(None::<FollowTail<Stream>>)
        .state("_start", move |cx| {
            let builder = FollowTail::new(&path, Stream::new()).seek(SeekFrom::Start(0));
            *cx.heap() = Some(builder.on_input("input").start(cx)?);
            Ok(())
        })
        .state("input", move |cx| {
            seen.push(format!("{:?}", cx.take::<Vec<u8>>(0)?));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(&mut kernel)
        .unwrap();
    run(&mut kernel);
    assert_eq!(log.text(), "[0, 1, 255]");
}

#[test] // K-WH-10: a record that is refused
fn a_line_that_is_no_text_is_an_error_event_and_the_next_one_comes() {
    let mut lab = Lab::new();
    fs::write(lab.path(), b"a\n\xff\nb\n").unwrap();
    lab.follow_with(|builder| builder.seek(SeekFrom::Start(0)));
    assert_eq!(lab.news(), ["a", &format!("error:filter:{}:log", Errno::EBADMSG as i32), "b"]);
}

#[test] // K-RE-20, K-RE-21: dropped in the middle of a chunk; failing in the middle of one
fn a_chunk_is_delivered_as_long_as_the_session_goes_along() {
    for fails in [false, true] {
        let mut lab = Lab::new();
        lab.write("1\n2\n3\n");
        let path = lab.path();
        let make = move || FollowTail::new(&path, Line::new()).poll_interval(INTERVAL).seek(SeekFrom::Start(0));
        session(&lab.log, lab.told.clone(), make)
            .state("input", move |cx| {
                let line = cx.take::<String>(0)?;
                cx.heap().log.push(&line);
                match line.as_str() {
                    "2" if fails => return Err(lenore::Exception::new("not this one")),
                    "2" | "3" => cx.heap().wheel = None,
                    _ => {}
                }
                Ok(())
            })
            .spawn(&mut lab.kernel)
            .unwrap();
        run(&mut lab.kernel);
        assert_eq!(lab.log.text(), if fails { "1 2 3 _stop" } else { "1 2 _stop" });
    }
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

#[test] // K-FT-06: a partial line in each of many looks
fn a_line_may_grow_octet_by_octet() {
    let _watchdog = Watchdog::new();
    let mut lab = Lab::new();
    lab.write("");
    lab.follow();
    for octet in ["a", "b", "c", "\n", "d", "\n"] {
        lab.append(octet);
        lab.settle();
    }
    assert_eq!(lab.news(), ["abc", "d"]);
    let mut line = Line::new();
    assert_eq!(line.get(b"abc\nd\n").unwrap(), ["abc", "d"], "as the filter by itself");
}

#[test] // K-FL-12 with K-RE-28: a chunk that is longer than the filter's limit is cut, and not refused
fn a_filter_gets_no_more_than_it_has_room_for() {
    let mut lab = Lab::new();
    lab.write("1\n22\n333\n4444\n55555\n");
    let path = lab.path();
    lab.start(move || {
        let line = Line::new().max_length(8).and_then(|line| line.max_buffer(8)).expect("they fit");
        FollowTail::new(&path, line).poll_interval(INTERVAL).seek(SeekFrom::Start(0))
    });
    assert_eq!(lab.news(), ["1", "22", "333", "4444", "55555"]);
    lab.append("half of it is lo");
    lab.append("nger\nshort\n");
    assert_eq!(lab.news().last().map(String::as_str), Some("short"));
}

#[test] // K-FT-05: what is waited for has no descriptor
fn a_file_that_is_not_there_has_no_descriptor() {
    let mut lab = Lab::new();
    lab.follow();
    lab.settle();
    let text = format!("{:#}", lab.kernel.peek());
    assert!(text.contains("no descriptor") && !text.contains("descriptor -1"), "{text}");
}

/// Panics on a chunk or a record that says so.
struct Fragile(Line);

impl Filter for Fragile {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        assert!(!chunk.starts_with(b"poison"), "poisoned");
        self.0.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        let record = self.0.get_one()?;
        assert!(record.as_deref() != Some("panic"), "on purpose");
        Ok(record)
    }

    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.0.put(record, out)
    }

    fn get_pending(&self) -> &[u8] {
        self.0.get_pending()
    }

    fn clone_config(&self) -> Self {
        Fragile(self.0.clone_config())
    }
}

#[test] // K-RW-20, for this wheel: a filter's panic is a DIE signal, and the file is followed on
fn a_panic_in_the_filter_ends_nothing() {
    for poison in ["panic\n", "poison\n"] {
        let _watchdog = Watchdog::new();
        let dir = tempfile::tempdir().expect("a directory can be made");
        let path = dir.path().join("log");
        fs::write(&path, "").expect("the file can be written");
        let (mut kernel, log) = (kernel(), Log::default());
        let (followed, logged, dead) = (path.clone(), log.clone(), log.clone());
        Session::new(None::<FollowTail<Fragile>>)
            .state("_start", move |cx| {
                cx.sig("DIE", "die");
                let tail = FollowTail::new(&followed, Fragile(Line::new())).poll_interval(INTERVAL);
                *cx.heap() = Some(tail.on_input("input").start(cx)?);
                Ok(())
            })
            .state("input", move |cx| {
                logged.push(cx.take::<String>(0)?);
                Ok(())
            })
            .state("die", move |cx| {
                cx.sig_handled();
                assert!(cx.take::<Died>(1)?.exception.is_panic());
                dead.push("died");
                Ok(())
            })
            .spawn(&mut kernel)
            .expect("it starts");
        for (text, events) in [("fine\n", 1), (poison, 2), ("again\n", 3)] {
            append(&path, text);
            run_until(&mut kernel, || log.len() == events);
        }
        assert_eq!(log.take(), ["fine", "died", "again"]);
    }
}
