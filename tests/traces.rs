//! What POE's `TRACE_*` switches give, as targets of the log.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::net::UnixStream;

use lenore::{Handle, Kernel, Session};

thread_local! {
    static RECORDS: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// Keeps everything that this thread logs.
struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let entry = (record.target().to_owned(), record.args().to_string());
        RECORDS.with_borrow_mut(|records| records.push(entry));
    }

    fn flush(&self) {}
}

#[test]
fn each_subsystem_traces_under_a_target_of_its_own() {
    let _ = log::set_logger(&Recorder);
    log::set_max_level(log::LevelFilter::Trace);
    let (near, mut far) = UnixStream::pair().expect("a pair");
    far.write_all(b"x").expect("room for an octet");
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(Handle::new(near))
        .state("_start", |cx| {
            let handle = cx.heap().clone();
            cx.select_read(&handle, "readable", ())?;
            let me = cx.session();
            Ok(cx.signal(me, "hello", ())?)
        })
        .state("readable", |cx| {
            let handle = cx.heap().clone();
            cx.select_read_clear(&handle);
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("a clean end");
    let records = RECORDS.take();
    let has = |target: &str, text: &str| records.iter().any(|(t, line)| t == target && line.contains(text));
    for (target, text) in [
        ("lenore::events", "session 1 gets readable"),
        ("lenore::sessions", "session 1 stops"),
        ("lenore::signals", "hello to session 1"),
        ("lenore::refcounts", "session 1 is held: Handle"),
        ("lenore::refcounts", "session 1 is released: Handle"),
        ("lenore::sources", "is closed"),
    ] {
        assert!(has(target, text), "{target}: {text}\n{records:#?}");
    }
}
