//! Forks beside wheels and listeners: whose the streams are, and who has which turn.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

use lenore::filter::Line;
use lenore::wheel::{Failure, ReadWrite, SocketFactory, WheelId};
use lenore::{Context, Error, Handle, Kernel, Result, Session};
use nix::sys::signal::{Signal, raise};

use super::{forker, say, say_forked};

/// A server of lines: says what comes, and sends it back.
#[derive(Default)]
struct Server {
    listener: Option<SocketFactory>,
    /// One more listener, of a server with two.
    first: Option<SocketFactory>,
    clients: HashMap<WheelId, ReadWrite<Line>>,
}

impl Server {
    fn listen(cx: &mut Context<'_, Server>) -> Result {
        let listener = SocketFactory::tcp("127.0.0.1:0").on_accept("accept").listen(cx)?;
        println!("listening on {}", listener.local_addr()?);
        cx.heap().listener = Some(listener);
        Ok(())
    }

    fn adopt(cx: &mut Context<'_, Server>, keep: bool) -> Result {
        let socket = cx.take::<TcpStream>(0)?;
        let wheel = ReadWrite::stream(socket, Line::new()).on_input("input").on_error("error");
        let wheel = if keep { wheel.keep_after_fork() } else { wheel }.start(cx)?;
        cx.heap().clients.insert(wheel.id(), wheel);
        Ok(())
    }

    fn echo(cx: &mut Context<'_, Server>) -> Result {
        let (line, id) = (cx.take::<String>(0)?, *cx.arg::<WheelId>(1)?);
        say(cx, &line);
        cx.heap().clients[&id].put(line);
        Ok(())
    }

    fn error(cx: &mut Context<'_, Server>) -> Result {
        let Failure { operation, errno, wheel, .. } = cx.take(0)?;
        say(cx, format!("{operation} {errno}"));
        wheel.and_then(|id| cx.heap().clients.remove(&id));
        Ok(())
    }

    fn session(keep: bool) -> Session<Server> {
        forker(Server::default())
            .state("_start", Server::listen)
            .state("accept", move |cx| Server::adopt(cx, keep))
            .state("input", Server::echo)
            .state("error", Server::error)
    }
}

/// T11: the twentieth client gets a child of its own; then the parent lets the others go.
pub fn streams(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    Server::session(false)
        .state("accept", |cx| {
            if cx.heap().clients.len() < 19 {
                return Server::adopt(cx, false);
            }
            let socket = cx.take::<TcpStream>(0)?;
            cx.fork("forked", "begins", (socket,));
            Ok(())
        })
        .state("forked", |cx| {
            cx.heap().clients.clear();
            say_forked(cx)
        })
        .state("begins", |cx| {
            let copies = cx.heap().clients.len();
            Server::adopt(cx, false)?;
            say(cx, format!("begins beside {copies} closed wheels"));
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T22: a client sends several records at once, the first of which makes the server fork.
pub fn batch(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forking_by_line(Server::session(false), kernel)
}

/// The same with a wheel that both processes keep, until the parent drops it on the last record.
pub fn kept(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    forking_by_line(Server::session(true), kernel)
}

/// T22: the fork comes between the end of the input and the event that tells of it, for a wheel that both processes keep.
pub fn kept_at_its_end(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.write_all(b"last\n").and_then(|()| theirs.shutdown(Shutdown::Write)).expect("there is room");
    std::mem::forget(theirs);
    Session::new(None::<ReadWrite<Line>>)
        .args((ours,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).keep_after_fork();
            *cx.heap() = Some(wheel.on_input("input").on_flushed("flushed").on_error("error").start(cx)?);
            Ok(())
        })
        .state("input", |cx| {
            let line = cx.take::<String>(0)?;
            say(cx, &line);
            cx.heap().iter().for_each(|wheel| _ = wheel.put(&*line));
            Ok(())
        })
        .state("flushed", |cx| cx.fork("forked", "begins", ()))
        .state("forked", say_forked)
        .state("begins", |cx| say(cx, "begins"))
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// T22: the fork comes before anything is written, for a wheel that both processes keep and that the parent is to shut down.
pub fn kept_at_the_high_mark(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (ours, theirs) = UnixStream::pair().expect("a pair can be made");
    let (settled, say_settled) = io::pipe().expect("a pipe can be made");
    Session::new(None::<ReadWrite<Line>>)
        .args((ours,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).keep_after_fork();
            let wheel = wheel.watermarks(1, 2).on_low("low").on_high("high").on_error("error").start(cx)?;
            wheel.put("for the peer");
            wheel.shutdown_output_after_flush();
            *cx.heap() = Some(wheel);
            Ok(())
        })
        .state("high", |cx| cx.fork("forked", "begins", ()))
        .state("forked", move |_| Ok((&settled).read_exact(&mut [0])?))
        .state("begins", |cx| cx.yield_("settled", ()))
        .state("settled", move |cx| {
            say(cx, "settled");
            *cx.heap() = None;
            Ok((&say_settled).write_all(b"x")?)
        })
        .state("low", |_| ())
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            Ok(())
        })
        .spawn(kernel)?;
    Session::new(None::<ReadWrite<Line>>)
        .args((theirs,))
        .state("_start", |cx| {
            let wheel = ReadWrite::stream(cx.take::<UnixStream>(0)?, Line::new()).on_input("input").on_error("error");
            *cx.heap() = Some(wheel.start(cx)?);
            Ok(())
        })
        .state("input", |cx| {
            say(cx, format!("got {}", cx.arg::<String>(0)?));
            Ok(())
        })
        .state("error", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            say(cx, format!("{operation} {errno}"));
            *cx.heap() = None;
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

fn forking_by_line(server: Session<Server>, kernel: &mut Kernel) -> Result<(), Error> {
    server
        .state("input", |cx| {
            match &**cx.arg::<String>(0)? {
                "fork" => cx.fork("forked", "begins", ()),
                "drop" => {
                    cx.heap().clients.clear();
                    say(cx, "drop");
                    return Ok(());
                }
                _ => {}
            }
            Server::echo(cx)
        })
        .state("begins", |cx| {
            say(cx, "begins");
            cx.yield_("settled", ());
        })
        .state("settled", |cx| say(cx, "settled"))
        .spawn(kernel)?;
    Ok(())
}

/// T22: of several clients that wait at two listeners, the first makes the server fork; the parent then stops.
pub fn accepting(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    Server::session(false)
        .state("_start", |cx| {
            Server::listen(cx)?;
            let first = cx.heap().listener.take();
            Server::listen(cx)?;
            cx.heap().first = first;
            // Not a moment before all of them wait.
            raise(Signal::SIGSTOP)?;
            Ok(())
        })
        .state("accept", |cx| {
            say(cx, "accept");
            let is_first = cx.heap().clients.is_empty() && !cx.is_child();
            Server::adopt(cx, false)?;
            if is_first {
                cx.fork("forked", "begins", ());
            }
            Ok(())
        })
        .state("forked", |_| raise(Signal::SIGSTOP).map_err(lenore::Exception::from))
        .state("begins", |cx| {
            say(cx, "begins");
            cx.yield_("next_slice", ());
        })
        .state("next_slice", |cx| say(cx, "next slice"))
        .spawn(kernel)?;
    Ok(())
}

/// T22: of two sessions that watch one descriptor, the first forks; the parent then stops.
pub fn watching(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    writer.write_all(b"x").expect("it fits");
    std::mem::forget(writer);
    let reader = Handle::new(reader);
    for is_first in [true, false] {
        let reader = reader.clone();
        forker(is_first)
            .state("_start", move |cx| Ok(cx.select_read(&reader, "readable", ())?))
            .state("readable", |cx| {
                let is_first = *cx.heap();
                say(cx, format!("readable {is_first}"));
                let handle = cx.arg::<Handle>(0)?.clone();
                cx.select_read_clear(&handle);
                if is_first {
                    cx.fork("forked", "begins", ());
                }
                Ok(())
            })
            .state("forked", |_| raise(Signal::SIGSTOP).map_err(lenore::Exception::from))
            .state("begins", |cx| {
                say(cx, "begins");
                cx.yield_("next_slice", ());
            })
            .state("next_slice", |cx| say(cx, "next slice"))
            .spawn(kernel)?;
    }
    Ok(())
}
