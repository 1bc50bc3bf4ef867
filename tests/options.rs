//! Options of a session, told by the log, and what becomes of exceptions.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use lenore::{Error, Exceptions, Kernel, Reply, Session, SessionOption, Switch};

use util::in_process::Log;

thread_local! {
    static RECORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static LEVEL: Cell<log::LevelFilter> = const { Cell::new(log::LevelFilter::Off) };
}

/// Keeps what each thread, and so each test, has logged of events, sessions and signals, from the level on that it asks for.
struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        matches!(metadata.target(), "lenore::events" | "lenore::sessions" | "lenore::signals")
            && metadata.level() <= LEVEL.get()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = record.args().to_string();
            // Without the position in the source.
            let text = text.split(" (tests").next().unwrap_or_default().split(" (src").next().unwrap_or_default();
            RECORDS.with_borrow_mut(|records| records.push(format!("{} {text}", record.level())));
        }
    }

    fn flush(&self) {}
}

fn records_of(run: impl FnOnce(&mut Kernel)) -> Vec<String> {
    records_at(log::LevelFilter::Info, run)
}

fn records_at(level: log::LevelFilter, run: impl FnOnce(&mut Kernel)) -> Vec<String> {
    // Fails if another test was faster; then it is installed.
    let _ = log::set_logger(&Recorder);
    log::set_max_level(log::LevelFilter::Debug);
    LEVEL.set(level);
    RECORDS.take();
    let mut kernel = Kernel::new().expect("a kernel");
    run(&mut kernel);
    drop(kernel);
    RECORDS.take()
}

#[test] // K-EV-37: the option `default` makes each dropped event a warning, `_stop` included
fn the_option_default_warns_of_dropped_events() {
    let records = records_of(|kernel| {
        let quiet = Session::new(()).state("_start", |cx| cx.yield_("nobody", ()));
        quiet.spawn(kernel).expect("a session");
        let loud = Session::new(()).option(SessionOption::Default, Switch::On).state("_start", |cx| {
            cx.alias_set("loud")?;
            cx.yield_("nothing", ());
            Ok(())
        });
        loud.spawn(kernel).expect("a session");
        kernel.run().expect("a clean end");
    });
    let expected = ["WARN session 2 (loud) has no state nothing", "WARN session 2 (loud) has no state _stop"];
    assert_eq!(records, expected);
}

#[test] // whoever looks for an event that goes nowhere finds it, without the option
fn at_debug_level_the_log_has_each_dropped_event() {
    let records = records_at(log::LevelFilter::Debug, |kernel| {
        let session = Session::new(()).state("_start", |cx| cx.yield_("nobody", ()));
        session.spawn(kernel).expect("a session");
        kernel.run().expect("a clean end");
    });
    let dropped: Vec<_> = records.iter().filter(|record| record.contains("has no state")).collect();
    assert_eq!(dropped, ["DEBUG session 1 has no state nobody"]);
}

#[test]
fn a_signal_of_the_system_by_its_c_name_is_worth_a_warning() {
    let records = records_of(|kernel| {
        let session = Session::new(()).state("_start", |cx| {
            cx.sig("SIGUSR1", "usr1");
            cx.sig("SIGNATURE", "signed");
            cx.sig("USR1", "usr1");
        });
        session.spawn(kernel).expect("a session");
    });
    assert_eq!(records[0], "WARN session 1 watches SIGUSR1, the system's signal is called USR1 here");
    assert_eq!(records.iter().filter(|record| record.contains("watches")).count(), 1, "{records:?}");
}

#[test] // K-HD-07: the option `trace` logs each event, and its redirection to `_default`
fn the_option_trace_tells_of_each_event() {
    let records = records_of(|kernel| {
        Session::new(())
            .option(SessionOption::Trace, Switch::On)
            .state("_start", |cx| {
                cx.yield_("known", ());
                cx.yield_("unknown", ());
            })
            .state("known", |_| ())
            .state("_default", |_| ())
            .spawn(kernel)
            .expect("a session");
        kernel.run().expect("a clean end");
    });
    let expected = [
        "INFO session 1 gets _start",
        "INFO session 1 gets known",
        "INFO session 1 gets unknown",
        "INFO session 1 has no state unknown: _default gets it",
        "INFO session 1 gets _stop",
        "INFO session 1 has no state _stop: _default gets it",
    ];
    assert_eq!(records, expected);
}

#[test] // K-LP-23: a program that creates sessions and never runs them is warned; an empty run suppresses it
fn sessions_that_are_never_run_are_worth_a_warning() {
    let warning = "WARN a kernel with sessions was dropped, and never run";
    for (runs_first, expected) in [(false, vec![warning]), (true, vec![])] {
        let records = records_of(|kernel| {
            if runs_first {
                kernel.run().expect("a clean end");
            }
            Session::new(()).state("_start", |_| ()).spawn(kernel).expect("a session");
        });
        assert_eq!(records, expected);
    }
}

#[test] // K-HD-06: with the option `debug`, redefining a state is a warning
fn the_option_debug_warns_of_redefined_states() {
    let records = records_of(|kernel| {
        Session::new(())
            .state("_start", |cx| {
                cx.state("one", |_| ())?;
                cx.state("one", |_| ())?;
                cx.set_option(SessionOption::Debug, Switch::On);
                cx.state("two", |_| ())?;
                cx.state("one", |_| ())?;
                Ok(())
            })
            .spawn(kernel)
            .expect("a session");
        kernel.run().expect("a clean end");
    });
    assert_eq!(records, ["WARN session 1 redefines its state one"]);
}

#[test] // K-HD-08, K-HD-09: setting returns the former value, asking the present one
fn options_are_set_and_asked_for() {
    let log = Log::default();
    let told = log.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(())
        .option(SessionOption::Trace, Switch::On)
        .state("_start", move |cx| {
            told.push(format!("{:?}", cx.option(SessionOption::Trace)));
            told.push(format!("{:?}", cx.set_option(SessionOption::Trace, Switch::Off)));
            told.push(format!("{:?}", cx.option(SessionOption::Trace)));
            told.push(format!("{:?}", cx.set_option(SessionOption::Default, Switch::On)));
            told.push(format!("{:?}", cx.option(SessionOption::Debug)));
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("a clean end");
    assert_eq!(log.text(), "On On Off Off Off");
}

#[test] // K-HD-08: names in any case; on, yes, true and off, no, false
fn options_and_settings_are_read_from_words() {
    assert_eq!("TRACE".parse(), Ok(SessionOption::Trace));
    assert_eq!("Default".parse(), Ok(SessionOption::Default));
    for word in ["on", "YES", "true", "1"] {
        assert_eq!(word.parse(), Ok(Switch::On), "{word}");
    }
    for word in ["off", "No", "FALSE", "0"] {
        assert_eq!(word.parse(), Ok(Switch::Off), "{word}");
    }
    let error = "perhaps".parse::<Switch>().expect_err("no such setting");
    assert_eq!(error.to_string(), "no such option or setting: perhaps");
}

#[test] // K-EX-16: with catching off, an exception stops everybody after the event, without DIE, and comes out of run
fn uncaught_exceptions_end_the_run_at_once() {
    let log = Log::default();
    let mut kernel = Kernel::new().expect("a kernel");
    assert_eq!(kernel.catch_exceptions(Exceptions::EndTheRun), Exceptions::BecomeSignals);
    let told = log.clone();
    let bystander = log.clone();
    Session::new(())
        .state("_start", |cx| {
            cx.sig("DIE", "die");
            cx.delay("late", Duration::from_secs(60), ());
        })
        .state("die", move |_| bystander.push("DIE"))
        .state("_stop", move |_| told.push("stopped"))
        .spawn(&mut kernel)
        .expect("a session");
    let told = log.clone();
    Session::new(())
        .state("_start", |cx| {
            cx.yield_("fail", ());
            cx.yield_("after", ());
        })
        .state("fail", |_| -> lenore::Result { Err(lenore::Exception::new("enough")) })
        .state("after", move |_| told.push("after"))
        .spawn(&mut kernel)
        .expect("a session");
    let error = kernel.run().expect_err("the exception");
    assert!(matches!(&error, Error::Died(died) if died.exception.to_string() == "enough"), "{error}");
    assert_eq!(log.text(), "stopped");
}

#[test] // K-EX-16: a call to another session returns the exception to its caller
fn uncaught_exceptions_come_back_from_a_call() {
    let log = Log::default();
    let told = log.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    kernel.catch_exceptions(Exceptions::EndTheRun);
    let callee = Session::new(())
        .state("_start", |cx| cx.alias_set("callee").map_err(Into::into))
        .state("fail", |_| -> lenore::Result { Err(lenore::Exception::new("no")) })
        .spawn(&mut kernel)
        .expect("a session");
    Session::new(())
        .state("_start", |cx| cx.yield_("go", ()))
        .state("go", move |cx| match cx.call(callee, "fail", ()) {
            Err(Error::Exception(exception)) => told.push(exception),
            Ok(Reply::NoValue | Reply::NoHandler | Reply::Value(_)) | Err(_) => told.push("something else"),
        })
        .spawn(&mut kernel)
        .expect("a session");
    kernel.run().expect("the caller has dealt with it");
    assert_eq!(log.text(), "no");
}

#[test] // K-LP-18: slices are run while the flag is up; the sessions stay as they are when it goes down
fn run_while_stops_between_slices() {
    let log = Log::default();
    let told = log.clone();
    let mut kernel = Kernel::new().expect("a kernel");
    Session::new(0)
        .state("_start", |cx| cx.yield_("tick", ()))
        .state("tick", move |cx| {
            *cx.heap() += 1;
            told.push(*cx.heap());
            if *cx.heap() < 5 {
                cx.yield_("tick", ());
            }
        })
        .spawn(&mut kernel)
        .expect("a session");
    let mut left = 2;
    let go_on = || {
        left -= 1;
        left >= 0
    };
    kernel.run_while(go_on).expect("two slices");
    assert_eq!(log.text(), "1 2");
    assert_eq!(kernel.event_count(), 1, "the third tick still waits");
    kernel.run_while(|| true).expect("the rest");
    assert_eq!(log.text(), "1 2 3 4 5");
}
