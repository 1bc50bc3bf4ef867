//! `peek`: every reason why a session stays alive, and the text that shows it (K-RE-11, K-GC-01, K-GC-08).

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lenore::wheel::SocketFactory;
use lenore::{Error, EventKind, Exception, Handle, Kernel, PeekedSession, Reason, Session, SessionId};
use util::diary::{Log, new_kernel, plain};

const FAR: Duration = Duration::from_secs(3600);

/// Runs the first slice, which dispatches the start-up events, and returns what is left of the first session.
fn first_session(kernel: &mut Kernel) -> Result<PeekedSession, Error> {
    assert!(kernel.run_one_timeslice()?);
    Ok(kernel.peek().sessions[0].clone())
}

#[test] // K-GC-04
fn a_new_session_is_kept_by_its_start_up_event() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(()).state("_start", |_| ()).spawn(&mut kernel)?;
    let snapshot = kernel.peek();
    assert_eq!(snapshot.sessions[0].reasons, [Reason::EventsTo(1)]);
    assert_eq!(snapshot.events[0].kind, EventKind::Internal);
    kernel.run()
}

#[test] // K-GC-01 a and b, K-GC-08: all events to a session are one unit, all those from it another
fn events_and_alarms_to_a_session_are_one_unit_those_from_it_another() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let other = plain("other", &log).spawn(&mut kernel)?;
    let id = plain("s", &log)
        .state("_start", move |cx| {
            let me = cx.session();
            cx.yield_("e", ());
            cx.signal(me, "foo", ())?;
            cx.delay_add("a", FAR, ());
            cx.delay_add("b", FAR, ());
            for _ in 0..3 {
                cx.post(other, "e", ())?;
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    let snapshot = kernel.peek();
    let reasons = [Reason::EventsTo(3), Reason::EventsFrom(3), Reason::Alarms(2)];
    assert_eq!((snapshot.sessions[1].id, &snapshot.sessions[1].reasons[..]), (id, &reasons[..]));
    assert_eq!(snapshot.sessions[1].refcount, 2);
    assert_eq!(snapshot.sessions[0].reasons, [Reason::EventsTo(4)]);
    kernel.stop();
    kernel.run()
}

#[test] // K-GC-01 c, K-GC-08: one for each descriptor, not for each mode
fn a_watched_handle_is_a_reason_whatever_the_modes() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
    let fd = ours.as_raw_fd();
    Session::new(Handle::new(ours))
        .state("_start", |cx| {
            let handle = cx.heap().clone();
            cx.select_read(&handle, "in", ())?;
            cx.select_write(&handle, "out", ())?;
            cx.select_pause_write(&handle);
            cx.select_pause_read(&handle);
            Ok(())
        })
        .spawn(&mut kernel)?;
    let session = first_session(&mut kernel)?;
    let [Reason::Handle { fd: watched, what }] = &session.reasons[..] else { panic!("{:?}", session.reasons) };
    assert_eq!((*watched, session.refcount), (fd, 1));
    assert_eq!(&**what, "select session 1 read -> in, paused; session 1 write -> out, paused");
    let snapshot = kernel.peek();
    assert_eq!((snapshot.sources.len(), snapshot.sources[0].fd), (1, fd));
    assert!(!snapshot.sources[0].is_watched, "both modes are paused");
    let description = &snapshot.sources[0].description;
    assert!(description.contains("session 1 read -> in, paused"), "{description}");
    kernel.stop();
    kernel.run()
}

#[test] // K-GC-01 d, e and f
fn aliases_children_and_extra_references_are_reasons() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let for_child = log.clone();
    plain("s", &log)
        .state("_start", move |cx| {
            let me = cx.session();
            cx.alias_set("one")?;
            cx.alias_set("another")?;
            cx.refcount_increment(me, "tag")?;
            cx.refcount_increment(me, "tag")?;
            cx.refcount_increment(me, "other tag")?;
            plain("child", &for_child)
                .state("_start", |cx| cx.alias_set("child").map_err(Exception::from))
                .spawn(cx)?;
            cx.sig("foo", "on_foo");
            Ok(())
        })
        .spawn(&mut kernel)?;
    let session = first_session(&mut kernel)?;
    let snapshot = kernel.peek();
    let child = &snapshot.sessions[1];
    let expected = [
        Reason::Alias("one".into()),
        Reason::Alias("another".into()),
        Reason::Child(child.id),
        Reason::ExtraReference("tag".into(), 2),
        Reason::ExtraReference("other tag".into(), 1),
    ];
    assert_eq!((&session.reasons[..], session.refcount), (&expected[..], 5));
    assert_eq!((session.parent, &session.children[..]), (SessionId::KERNEL, &[child.id][..]));
    assert_eq!(session.aliases, ["one", "another"]);
    assert_eq!(session.signals, [("foo".into(), "on_foo".into())], "which is no reason");
    assert_eq!((child.parent, &child.reasons[..]), (session.id, &[Reason::Alias("child".into())][..]));
    kernel.stop();
    kernel.run()
}

#[test] // K-GC-01 g: for a pid that is no child of this process, so nothing will come of it
fn waiting_for_a_child_process_is_a_reason() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            cx.sig_child(i32::MAX, "exited", ());
            cx.sig_child(i32::MAX, "exited", ());
            let session = cx.peek().sessions[0].clone();
            assert_eq!(session.reasons, [Reason::ChildProcess(i32::MAX)], "K-GC-09 as K-RE-05 wants it");
            assert_eq!(session.refcount, 1);
            cx.sig_child_clear(i32::MAX);
            assert!(cx.peek().sessions[0].reasons.is_empty());
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // design 5: a fork that was asked for keeps the session that is to hear of it
fn a_fork_to_come_is_a_reason() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            cx.fork("in parent", "in child", ());
            let session = cx.peek().sessions[0].clone();
            assert_eq!((session.reasons, session.refcount), (vec![Reason::Forks(1)], 1));
            // Before the fork point comes: this process has other threads, and is not to be forked.
            let me = cx.session();
            cx.signal_now(me, "KILL", ()).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    assert!(kernel.peek().sessions.is_empty());
    kernel.run()
}

#[test] // K-RE-11
fn a_session_without_reasons_says_so() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            let session = cx.peek().sessions[0].clone();
            assert!(session.reasons.is_empty());
            assert_eq!(session.refcount, 0);
            assert!(format!("{:#}", cx.peek()).contains("nothing keeps it alive"));
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-EV-14, K-EV-15: what waits, from whom, for whom, and since which statement
fn events_are_listed_in_the_order_of_dispatch_with_their_origin() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let other = plain("other", &log).spawn(&mut kernel)?;
    plain("s", &log)
        .state("_start", move |cx| {
            cx.delay("later", FAR, ());
            cx.post(other, "e", ())?;
            cx.signal(SessionId::KERNEL, "foo", ())?;
            cx.alarm("overdue", util::diary::past(5), ());
            Ok(())
        })
        .spawn(&mut kernel)?;
    let snapshot = kernel.peek();
    let (s, kinds) = (snapshot.sessions[1].id, [EventKind::Alarm, EventKind::Internal, EventKind::Post]);
    let names: Vec<&str> = snapshot.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["overdue", "_garbage_collect", "e", "foo", "_garbage_collect", "later"]);
    assert!(snapshot.events.iter().map(|event| event.kind).take(3).eq(kinds));
    assert_eq!(snapshot.events[3].kind, EventKind::Signal);
    let posted = &snapshot.events[2];
    assert_eq!((posted.source, posted.dest), (s, other));
    assert!(posted.caller_state.is_some_and(|state| state == "_start"));
    assert!(posted.caller.file().ends_with("peek.rs"));
    assert_eq!((snapshot.events[0].due_in, posted.due_in), (Duration::ZERO, Duration::ZERO));
    let later = snapshot.events[5].due_in;
    assert!(later > FAR - Duration::from_secs(60) && later <= FAR, "{later:?}");
    kernel.stop();
    kernel.run()
}

#[test] // the text form
fn the_text_shows_sessions_by_number_and_aliases() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    plain("a", &log).spawn(&mut kernel)?;
    plain("b", &log).state("_start", |cx| cx.alias_set("Daemon").map_err(Exception::from)).spawn(&mut kernel)?;
    let for_child = log.clone();
    plain("c", &log)
        .state("_start", move |cx| {
            cx.alias_set("Daemon's friend")?;
            cx.alias_set("x")?;
            cx.sig("foo", "on_foo");
            let me = cx.session();
            cx.refcount_increment(me, "tag")?;
            cx.post("Daemon", "hello", ())?;
            cx.delay("later", Duration::from_secs(90), ());
            plain("child", &for_child).state("_start", |cx| cx.alias_set("kid").map_err(Exception::from)).spawn(cx)?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    let snapshot = kernel.peek();
    let whole = format!("{snapshot:#}");
    let pid = std::process::id();
    for part in [
        format!("kernel {}, process {pid} (parent)\n", kernel.kernel_id()),
        "event queue: 6 waiting\n".into(),
        "\n    post from session 3 (Daemon's friend, x) to session 2 (Daemon), sent by state _start at ".into(),
        "sessions: 4\n".into(),
        "\n  session 1 (Diary), refcount 1\n    stays alive: 1 event to it\n    parent: the kernel\n".into(),
        "\n  session 2 (Daemon), refcount 2\n    stays alive: 2 events to it\n    stays alive: alias Daemon\n".into(),
        "\n    stays alive: 1 event from it\n    stays alive: 1 alarm\n".into(),
        "\n    stays alive: child session 4 (kid)\n    stays alive: extra reference tag (1)\n".into(),
        "\n    signals watched: foo -> on_foo\n".into(),
        "\n  session 4 (kid), refcount 2\n".into(),
        "\n    parent: session 3 (Daemon's friend, x)\n".into(),
        "sources: 0\n".into(),
    ] {
        assert!(whole.contains(&part), "no {part:?} in\n{whole}");
    }
    let queue = snapshot.to_string();
    assert!(queue.contains(": hello\n") && !queue.contains("sessions:"), "the queue alone:\n{queue}");
    kernel.stop();
    kernel.run()
}

struct Echo;

#[test] // K-RE-11: a session has a name in any case, and a descriptor says what it is
fn the_text_names_sessions_by_their_heaps_and_says_what_descriptors_are() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let listening = Session::new(None::<SocketFactory>).state("_start", |cx| {
        let factory = SocketFactory::tcp("127.0.0.1:0").on_accept("accepted").listen(cx)?;
        *cx.heap() = Some(factory);
        Ok(())
    });
    let parent = Session::new(Echo).state("_start", |cx| {
        Session::new(()).state("_start", |cx| Ok(cx.alias_set("child")?)).spawn(cx)?;
        Ok(())
    });
    let (parent, listening) = (parent.spawn(&mut kernel)?, listening.spawn(&mut kernel)?);
    let (ours, _theirs) = UnixStream::pair().expect("a socket pair");
    let handle = Handle::new(ours);
    for _ in 0..20 {
        let handle = handle.clone();
        Session::new(()).state("_start", move |cx| Ok(cx.select_read(&handle, "in", ())?)).spawn(&mut kernel)?;
    }
    kernel.run_one_timeslice()?;
    let whole = format!("{:#}", kernel.peek());
    assert!(whole.contains(&format!("\n  {parent} (Echo), refcount 1\n")), "{whole}");
    assert!(whole.contains(&format!("    parent: {parent} (Echo)\n")), "{whole}");
    assert!(
        whole.contains(&format!("\n  {listening} (Option<SocketFactory>), refcount 1\n    stays alive: descriptor ")),
        "{whole}"
    );
    let kept = whole.lines().find(|line| line.contains(" listening on 127.0.0.1:"));
    assert!(
        kept.is_some_and(|line| line.starts_with("    stays alive: descriptor ") && line.contains("(SocketFactory")),
        "{whole}"
    );
    assert!(whole.contains("\n  session 4, refcount 1\n"), "a heap without anything in it says nothing:\n{whole}");
    assert!(whole.contains("; and 12 more"), "20 watch one descriptor:\n{whole}");
    kernel.stop();
    kernel.run()
}

#[test]
fn a_session_with_many_aliases_is_shown_with_some_of_them() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| {
            (0..20).try_for_each(|number| cx.alias_set(format!("a{number}")))?;
            (0..10).try_for_each(|number| cx.alias_remove(format!("a{number}")))?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run_one_timeslice()?;
    let snapshot = kernel.peek();
    let names: Vec<String> = (10..20).map(|number| format!("a{number}")).collect();
    assert!(snapshot.sessions[0].aliases.iter().map(|name| name.as_str()).eq(names.iter().map(String::as_str)));
    let text = format!("{snapshot:#}");
    assert!(text.contains("session 1 (a10, a11, a12, a13, a14, a15, a16, a17, and 2 more), refcount 10\n"), "{text}");
    kernel.stop();
    kernel.run()
}
