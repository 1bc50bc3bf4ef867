//! Standard streams: records, ends, redirections, filters.

use std::fs::File;
use std::io::Write;

use lenore::filter::{Block, ByteLine, Filter, FilterError, Line, Stream};
use lenore::wheel::{Failure, Redirect, Run, RunEvent};
use lenore::{Error, Kernel, Reason, Session};

use super::{Scenario, cut_at, events, say, say_error, session, there_and_back, watching, wheel};

pub const SCENARIOS: &[(&str, Scenario)] = &[
    ("words", words),
    ("shell", shell),
    ("cat", cat),
    ("separate_ends", separate_ends),
    ("closes_first", closes_first),
    ("exits_first", exits_first),
    ("silent", silent),
    ("inherit", inherit),
    ("redirect_files", redirect_files),
    ("redirect_others", redirect_others),
    ("redirect_later", redirect_later),
    ("redirect_fifo", redirect_fifo),
    ("no_such_file", no_such_file),
    ("no_stdin", no_stdin),
    ("discard", discard),
    ("after_flush", after_flush),
    ("closed_stdin", closed_stdin),
    ("counts", counts),
    ("unfinished", unfinished),
    ("deliver_last", deliver_last),
    ("filters", filters),
    ("filter_switch", filter_switch),
    ("filter_types", filter_types),
    ("filter_cut", filter_cut),
    ("filter_refuses", filter_refuses),
    ("put_fails", put_fails),
    ("pause", pause),
    ("rename", rename),
    ("enable", enable),
    ("stays", stays),
    ("much", much),
    ("dropped_in_record", dropped_in_record),
];

fn words(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["/bin/echo", "a  b", "$HOME;", "*"]).stdin(Redirect::Null)).spawn(kernel).map(drop)
}

fn shell(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "echo one | tr a-z A-Z; echo two >&2; exit 3";
    watching(move || Run::shell(text).stdin(Redirect::Null)).spawn(kernel).map(drop)
}

/// Records that go through a child; it ends when its input does.
fn cat(kernel: &mut Kernel) -> Result<(), Error> {
    there_and_back(watching(|| Run::program(["cat"]))).spawn(kernel).map(drop)
}

/// Standard output ends, then standard error; only the second end is the last.
fn separate_ends(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("echo a; exec >&-; read go; echo b >&2"))
        .state("error", |cx| {
            say_error(cx)?;
            if cx.arg::<Failure>(0)?.subject == "STDOUT" {
                wheel(cx).put("go");
            }
            Ok(())
        })
        .state("stdin", |_| ())
        .state("exit", |_| ())
        .state("close", |cx| {
            println!("close");
            *cx.heap() = None;
        })
        .spawn(kernel)
        .map(drop)
}

/// The output ends while the process goes on.
fn closes_first(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("exec >&- 2>&-; read go; exit 4"))
        .state("close", |cx| {
            println!("close");
            wheel(cx).shutdown_stdin();
        })
        .spawn(kernel)
        .map(drop)
}

/// The process ends while something that it has started holds its output.
fn exits_first(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("exec 3<&0; cat <&3 & exit 3"))
        .state("exit", |cx| {
            println!("exit");
            wheel(cx).put("late");
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Nothing is watched: there is nothing whose end could be told.
fn silent(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]).stdin(Redirect::Null).on_error("error").on_close("close").on_exit("exit"))
        .spawn(kernel)
        .map(drop)
}

/// Neither event: the child writes where this program writes.
fn inherit(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::shell("echo to stdout; echo to stderr >&2").stdin(Redirect::Inherit)).spawn(kernel).map(drop)
}

/// `in`, `out` and `err` in the current directory, each by name, then both outputs in one file.
fn redirect_files(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::shell("cat; echo e >&2").stdin("in").stdout("out").stderr("err").on_exit("both"))
        .state("both", |cx| {
            let wheel = Run::shell("echo o; echo e >&2").stdin("in").output("both").on_exit("exit").start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// An open file, and nowhere.
fn redirect_others(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| {
        let input = File::open("in").expect("it is there");
        let output = File::create("out").expect("it can be made");
        Run::shell("cat; echo e >&2").stdin(input).stdout(output).stderr(Redirect::Null).on_exit("exit")
    })
    .spawn(kernel)
    .map(drop)
}

/// Of an event and a redirection of one stream, the later one counts.
fn redirect_later(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| {
        let builder = Run::shell("echo o; echo e >&2").stdin(Redirect::Null);
        builder.on_stdout("stdout").stdout(Redirect::Null).stderr(Redirect::Null).on_stderr("stderr").on_close("close")
    })
    .spawn(kernel)
    .map(drop)
}

/// The FIFO `fifo` in the current directory: nobody has it open, then this program has.
fn redirect_fifo(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            nix::unistd::mkfifo("fifo", nix::sys::stat::Mode::S_IRWXU)?;
            say("out", Run::program(["cat"]).stdin(Redirect::Null).stdout("fifo").start(cx));
            let wheel = Run::program(["cat"]).stdin("fifo").on_stdout("stdout").on_close("again").start(cx)?;
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("again", |cx| {
            println!("at the end");
            let writer = File::options().read(true).write(true).open("fifo")?;
            let wheel = Run::program(["cat"]).stdin("fifo").on_stdout("stdout").on_close("close").start(cx)?;
            *cx.heap() = Some(wheel);
            cx.delay("write", std::time::Duration::from_millis(30), (writer,));
            Ok(())
        })
        .state("write", |cx| Ok(writeln!(cx.take::<File>(0)?, "waited for")?))
        .spawn(kernel)
        .map(drop)
}

fn no_such_file(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            say("in", Run::program(["cat"]).stdin("missing").start(cx));
            say("out", Run::program(["cat"]).stdout("missing/out").start(cx));
        })
        .spawn(kernel)
        .map(drop)
}

/// At the end of its input at once.
fn no_stdin(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["cat"]).stdin(Redirect::Null))
        .state("started", |cx| println!("put: {:?}", wheel(cx).put("x")))
        .spawn(kernel)
        .map(drop)
}

const MEGABYTE: usize = 1 << 20;

fn megabyte() -> String {
    "x".repeat(MEGABYTE - 1)
}

/// Shut down with everything still to be written.
fn discard(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["wc", "-c"]))
        .state("started", |cx| {
            wheel(cx).put(megabyte());
            wheel(cx).shutdown_stdin();
            println!("put: {:?}", wheel(cx).put("x"));
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

fn after_flush(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["wc", "-c"]))
        .state("started", |cx| {
            wheel(cx).put(megabyte());
            wheel(cx).shutdown_stdin_after_flush();
            println!("put: {:?}", wheel(cx).put("x"));
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// The child does not want to hear anything.
fn closed_stdin(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("exec <&-; echo closed; exec sleep 100"))
        .state("stdout", |cx| wheel(cx).put("x"))
        .state("error", |cx| {
            say_error(cx)?;
            if cx.arg::<Failure>(0)?.operation == "write" {
                println!("put: {:?}", wheel(cx).put("y"));
                wheel(cx).kill("TERM")?;
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// What waits to be written, while the child does not read.
fn counts(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("read line; echo $line; exec wc -c"))
        .state("started", |cx| {
            let count =
                |wheel: &Run| println!("{} octets, {} records", wheel.pending_output(), wheel.driver_out_messages());
            count(wheel(cx));
            wheel(cx).put("a");
            wheel(cx).put("bc");
            count(wheel(cx));
            cx.yield_("later", ());
            Ok(())
        })
        .state("later", |cx| {
            println!("{} octets, {} records", wheel(cx).pending_output(), wheel(cx).driver_out_messages());
            wheel(cx).shutdown_stdin();
        })
        .spawn(kernel)
        .map(drop)
}

/// The last line has no end.
fn unfinished(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("printf 'whole\\nrest'").stdin(Redirect::Null))
        .state("close", |cx| {
            let pending = wheel(cx).stdout_filter(|filter| filter.get_pending().to_vec()).unwrap_or_default();
            println!("close, pending {}", String::from_utf8_lossy(&pending));
        })
        .spawn(kernel)
        .map(drop)
}

fn deliver_last(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "printf 'whole\\nrest'; printf 'no rest\\n' >&2";
    watching(move || Run::shell(text).stdin(Redirect::Null).deliver_last()).spawn(kernel).map(drop)
}

/// Records of one kind for input and output, and another kind for errors.
fn filters(kernel: &mut Kernel) -> Result<(), Error> {
    let make = || {
        let builder = Run::shell("cat; printf 'x?y?' >&2").on_stdout("stdout").on_stderr("stderr").on_exit("exit");
        builder.stdio_filter(cut_at("!")).stderr_filter(cut_at("?")).stdin_filter(cut_at(";!"))
    };
    session(make)
        .state("started", |cx| {
            wheel(cx).put("a");
            wheel(cx).put("b");
            wheel(cx).shutdown_stdin_after_flush();
            let seen =
                [wheel(cx).stdin_filter(|_| ()), wheel(cx).stdout_filter(|_| ()), wheel(cx).stderr_filter(|_| ())];
            assert_eq!(seen, [Some(()); 3]);
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Other filters, in the middle of a chunk and for what comes later.
fn filter_switch(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| {
        Run::shell("printf '1\\n2\\n3 4 5'; read line; echo \" $line \"; printf 'a\\nb:c' >&2; read line; printf :")
    })
    .state("stdout", |cx| {
        let record = cx.take::<String>(0)?;
        println!("out {record}");
        match record.as_str() {
            "2" => wheel(cx).set_stdout_filter(cut_at(" ")),
            "4" => {
                wheel(cx).set_stdin_filter(cut_at("!\n"));
                wheel(cx).put("put");
            }
            _ => {}
        }
        Ok(())
    })
    .state("stderr", |cx| {
        println!("err {}", cx.take::<String>(0)?);
        // Not in the middle of a delivery of its own: the rest has been read by then.
        cx.yield_("later", ());
        Ok(())
    })
    .state("later", |cx| {
        let pending = wheel(cx).stderr_filter(|filter| filter.get_pending().to_vec());
        if pending.as_deref() == Some(b"b:c") {
            wheel(cx).set_stderr_filter(cut_at(":"));
            wheel(cx).shutdown_stdin();
        }
    })
    .spawn(kernel)
    .map(drop)
}

/// A wheel whose filters become others of other types.
enum Changing {
    Lines(Run),
    Others(Run<Block, Stream, ByteLine>),
    Gone,
}

/// Filters of other types for all three streams, in the middle of a chunk.
fn filter_types(kernel: &mut Kernel) -> Result<(), Error> {
    let text = "printf 'e1\\n' >&2; printf '1\\n2\\nrest'; cat; printf 'e2\\n' >&2";
    Session::new(Changing::Gone)
        .state("_start", move |cx| {
            let wheel = Run::shell(text).on_stdout("line").on_stderr("error line").on_close("closed").start(cx)?;
            println!("id {}", wheel.id());
            *cx.heap() = Changing::Lines(wheel);
            Ok(())
        })
        .state("line", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "2"
                && let Changing::Lines(wheel) = std::mem::replace(cx.heap(), Changing::Gone)
            {
                wheel.put("put");
                wheel.event(RunEvent::Stdout, "chunk");
                wheel.event(RunEvent::Stderr, "error bytes");
                let wheel = wheel.switch_stdout_filter(Stream::new()).switch_stderr_filter(ByteLine::new());
                let wheel = wheel.switch_stdin_filter(Block::new());
                wheel.put(b"abc");
                wheel.shutdown_stdin_after_flush();
                println!("id {}", wheel.id());
                *cx.heap() = Changing::Others(wheel);
            }
            Ok(())
        })
        .state("chunk", |cx| {
            println!("out {:?}", String::from_utf8(cx.take(0)?)?);
            Ok(())
        })
        .state("error line", |cx| {
            println!("err {}", cx.take::<String>(0)?);
            Ok(())
        })
        .state("error bytes", |cx| {
            println!("err {}", String::from_utf8(cx.take(0)?)?);
            Ok(())
        })
        .state("closed", |cx| {
            if let Changing::Others(wheel) = std::mem::replace(cx.heap(), Changing::Gone) {
                println!("closed {}", wheel.id());
            }
        })
        .spawn(kernel)
        .map(drop)
}

/// Another filter between the two bytes of a newline, of which the child writes the second when it is told to.
fn filter_cut(kernel: &mut Kernel) -> Result<(), Error> {
    // By themselves the filters end a line at LF alone.
    session(|| events(Run::shell("printf 'one\\r'; read line; printf '\\ntwo;'")).stdio_filter(Line::new()))
        .state("stdout", |cx| {
            let record = cx.take::<String>(0)?;
            println!("out {record:?}");
            wheel(cx).set_stdout_filter(cut_at(";"));
            if record == "one" {
                wheel(cx).put("go on");
                wheel(cx).shutdown_stdin_after_flush();
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// A line that is no text, between two that are.
fn filter_refuses(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("printf 'a\\n\\377\\nb\\n'").stdin(Redirect::Null)).spawn(kernel).map(drop)
}

/// Paused after the first record of each stream; what was read already waits as well.
fn pause(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::shell("printf '1\\n2\\n3\\n'; exec >&-; read go; printf 'a\\nb\\n' >&2"))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "1" {
                wheel(cx).pause_stdout();
                wheel(cx).put("go");
            }
            Ok(())
        })
        .state("stderr", |cx| {
            let line = cx.take::<String>(0)?;
            println!("err {line}");
            if line == "a" {
                wheel(cx).pause_stderr();
                // The process ends meanwhile, and nothing more is heard of either stream.
                wheel(cx).shutdown_stdin();
            }
            Ok(())
        })
        .state("exit", |cx| {
            println!("exit");
            cx.yield_("resume", ());
        })
        .state("resume", |cx| {
            println!("resume");
            wheel(cx).resume_stderr();
            wheel(cx).resume_stdout();
        })
        .spawn(kernel)
        .map(drop)
}

/// Another event from the second record on; none at all after the third, for a while.
fn rename(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            let wheel = events(Run::shell("printf '1\\n2\\n3\\n4\\n'")).stdin(Redirect::Null).start(cx)?;
            wheel.event(RunEvent::Error, "other_error");
            wheel.event_clear(RunEvent::Close);
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("stdout", |cx| {
            println!("out {}", cx.take::<String>(0)?);
            wheel(cx).event(RunEvent::Stdout, "other");
            Ok(())
        })
        .state("other", |cx| {
            let line = cx.take::<String>(0)?;
            println!("other {line}");
            if line == "3" {
                wheel(cx).event_clear(RunEvent::Stdout);
                cx.delay("again", std::time::Duration::from_millis(30), ());
            }
            Ok(())
        })
        .state("other_error", |cx| {
            println!("other error {}", cx.arg::<Failure>(0)?.subject);
            Ok(())
        })
        .state("again", |cx| {
            println!("again");
            wheel(cx).event(RunEvent::Stdout, "other");
        })
        .spawn(kernel)
        .map(drop)
}

/// An event for a stream that is no pipe.
fn enable(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::shell("read go; echo inherited").on_exit("exit"))
        .state("started", |cx| {
            wheel(cx).event(RunEvent::Stdout, "stdout");
            wheel(cx).event(RunEvent::Close, "close");
            wheel(cx).event(RunEvent::Stdin, "stdin");
            wheel(cx).put("go");
            Ok(())
        })
        .state("exit", |cx| *cx.heap() = None)
        .spawn(kernel)
        .map(drop)
}

/// After the close event there is nothing left but the pipe to a child that has ended.
fn stays(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["true"]))
        .state("exit", |cx| {
            println!("exit");
            // Long after everything has come that could come.
            cx.delay("look", std::time::Duration::from_millis(30), ());
        })
        .state("look", |cx| {
            let snapshot = cx.peek();
            let reasons = &snapshot.sessions[0].reasons;
            assert!(matches!(reasons[..], [Reason::Handle { .. }]), "{reasons:?}");
            assert!(snapshot.sources[0].description.contains("STDIN of process"), "{snapshot:#}");
            println!("still here");
            *cx.heap() = None;
        })
        .spawn(kernel)
        .map(drop)
}

/// More than a pipe holds, both ways at once.
fn much(kernel: &mut Kernel) -> Result<(), Error> {
    watching(|| Run::program(["cat"]))
        .state("started", |cx| {
            for number in 0..20_000 {
                wheel(cx).put(format!("{number:060}"));
            }
            wheel(cx).shutdown_stdin_after_flush();
            Ok(())
        })
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            if line.ends_with("0000") {
                println!("out {}", line.trim_start_matches('0'));
            }
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// The wheel goes in the middle of a chunk.
fn dropped_in_record(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| events(Run::shell("printf '1\\n2\\n3\\n'; exec sleep 0.01")))
        .state("stdout", |cx| {
            println!("out {}", cx.take::<String>(0)?);
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)
        .map(drop)
}

/// Lines, one of which is half written when the filter fails or panics.
struct HalfHearted;

impl Filter for HalfHearted {
    type Input = String;
    type Output = str;

    fn get_one_start(&mut self, _: &[u8]) -> Result<(), FilterError> {
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        Ok(None)
    }

    fn put(&mut self, record: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(b"HALF:");
        match record {
            "fails" => return Err(FilterError::Malformed { reason: "on purpose".into() }),
            "panics" => panic!("on purpose"),
            _ => out.extend_from_slice(record.as_bytes()),
        }
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &[]
    }

    fn clone_config(&self) -> Self {
        HalfHearted
    }
}

/// What the child gets when two of the records can't be put.
fn put_fails(kernel: &mut Kernel) -> Result<(), Error> {
    type Heap = Option<Run<HalfHearted, Line, Line>>;
    fn put(cx: &mut lenore::Context<'_, Heap>, record: &str) -> lenore::Result {
        cx.heap().as_ref().expect("it is kept").put(record);
        Ok(())
    }
    Session::new(None::<Run<HalfHearted, Line, Line>>)
        .state("_start", |cx| {
            cx.sig("DIE", "die");
            let wheel = Run::program(["cat"]).stdin_filter(HalfHearted).on_stdout("stdout").on_error("error");
            *cx.heap() = Some(wheel.start(cx)?);
            for event in ["fails", "panics", "fine"] {
                cx.yield_(event, ());
            }
            Ok(())
        })
        .state("fails", |cx| put(cx, "fails"))
        .state("panics", |cx| put(cx, "panics"))
        .state("fine", |cx| {
            put(cx, "fine\n")?;
            cx.heap().as_ref().expect("it is kept").shutdown_stdin_after_flush();
            Ok(())
        })
        .state("stdout", |cx| {
            println!("out {}", cx.arg::<String>(0)?);
            Ok(())
        })
        .state("error", |cx| {
            println!("error {}", cx.arg::<Failure>(0)?.operation);
            Ok(())
        })
        .state("die", |cx| {
            cx.sig_handled();
            println!("died");
        })
        .spawn(kernel)
        .map(drop)
}
