//! What listens on inherited sockets, for `tests/change/`.
//!
//! With `--listen ADDRESS` or `--given` it is a `component::Server`, with `--mode MODE`, `--name NAME`, `--strict`, `--status ADDRESS`,
//! `--control PATH`, `--user USER`, `--descriptor-store`, `--also ADDRESS` for another listener, which the line `close` closes where there are
//! no children, and `open` opens again, and `--dir DIR` for `DIR/pid`, `DIR/log` and a start that detaches. A line is answered with the pid and
//! the line, `variables` with how many variables of systemd's a program has that the server starts, and which descriptors.
//!
//! Otherwise one wheel listens: `--tcp ADDRESS`, `--unix PATH`, `--udp ADDRESS` or `--inherited NAME`, with `--name NAME`, `--queue N`
//! and `--unlink`. It says `listens ADDRESS`, `handed over ADDRESS` of a datagram socket, and `accepted` of each client. `--bind` has it bind. `--again` has another wheel of the same
//! kind. TERM ends it.

use std::error::Error;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use lenore::component::{Connection, Processes, Protocol, Server};
use lenore::daemon::DaemonBuilder;
use lenore::filter::Line;
use lenore::wheel::{SocketFactory, SocketFactoryBuilder};
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::Flags;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    util::daemon_program::log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    match flags.text("--listen") {
        Some(address) => serve(&mut kernel, &flags, |protocol| Server::tcp(address, protocol))?,
        None if flags.has("--given") => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            serve(&mut kernel, &flags, |protocol| Server::listener(listener, protocol))?;
        }
        None => listen(&mut kernel, flags)?,
    }
    Ok(kernel.run()?)
}

fn serve(
    kernel: &mut Kernel,
    flags: &Flags,
    make: impl FnOnce(Protocol<Line, ()>) -> Server,
) -> std::result::Result<(), Box<dyn Error>> {
    let mut server = make(Protocol::new(Line::new()).on_input(answer)).daemon(daemon(flags));
    if let Some(mode) = flags.text("--mode") {
        server = server.processes(mode.parse::<Processes>()?);
    }
    if let Some(name) = flags.text("--name") {
        server = server.listener_name(name);
    }
    let serving = server.spawn(kernel)?;
    if let Some(address) = flags.text("--also") {
        also(kernel, address)?;
    }
    println!("listening on {}", serving.local_addr());
    Ok(())
}

/// Another listener, on which nobody ever accepts.
fn also(kernel: &mut Kernel, address: &str) -> std::result::Result<(), Box<dyn Error>> {
    let address = address.to_owned();
    Session::new(None)
        .state("_start", |cx| {
            cx.alias_set("also")?;
            cx.sig("daemon_shutdown", "end");
            cx.yield_("open", ());
            Ok(())
        })
        .state("open", move |cx| {
            let listener = SocketFactory::tcp(&address).on_accept("accepted").listen(cx)?;
            listener.pause_accept();
            *cx.heap() = Some(listener);
            Ok(())
        })
        .state("close", |cx| *cx.heap() = None)
        .state("end", |cx| {
            *cx.heap() = None;
            Ok(cx.alias_remove("also")?)
        })
        .spawn(kernel)?;
    Ok(())
}

fn daemon(flags: &Flags) -> DaemonBuilder {
    let mut daemon = Daemon::builder().requests(0).strict_listeners(flags.has("--strict"));
    daemon = daemon.descriptor_store(flags.has("--descriptor-store"));
    if let Some(address) = flags.text("--status") {
        daemon = daemon.status(address);
    }
    if let Some(path) = flags.text("--control") {
        daemon = daemon.control(path);
    }
    if let Some(user) = flags.text("--user") {
        daemon = daemon.user(user);
    }
    if let Some(dir) = flags.text("--dir") {
        daemon = daemon.detach(true).pid_file(format!("{dir}/pid")).logfile(format!("{dir}/log"));
    }
    daemon
}

fn answer(cx: &mut Context<'_, Connection<Line>>, line: String) -> Result {
    if ["open", "close"].contains(&line.as_str()) {
        cx.post("also", line.as_str(), ())?;
    }
    let said = if line == "variables" { variables_of_a_program()? } else { line };
    let pid = cx.pid();
    cx.heap().put(format!("{pid} {said}"));
    Ok(())
}

/// How many variables of systemd's a program has that is started here, and its descriptors as `ls` shows them.
fn variables_of_a_program() -> Result<String> {
    let script = "env | grep -c ^LISTEN_; exec ls -l /proc/self/fd";
    let said = Command::new("sh").args(["-c", script]).output()?.stdout;
    Ok(String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" "))
}

fn listen(kernel: &mut Kernel, flags: Flags) -> std::result::Result<(), Box<dyn Error>> {
    Session::new(Vec::new())
        .state("_start", move |cx: &mut Context<'_, Vec<SocketFactory>>| {
            cx.sig("TERM", "term");
            begin(cx, &flags)?;
            if flags.has("--again") { begin(cx, &flags) } else { Ok(()) }
        })
        .state("accepted", |_| println!("accepted"))
        .state("bound", |cx| {
            let socket: UdpSocket = cx.take(0)?;
            println!("handed over {}", socket.local_addr()?);
            Ok(())
        })
        .state("term", |cx| {
            cx.heap().clear();
            cx.sig_clear("TERM");
            cx.sig_handled();
        })
        .spawn(kernel)?;
    Ok(())
}

fn begin(cx: &mut Context<'_, Vec<SocketFactory>>, flags: &Flags) -> Result {
    let mut socket = wheel(flags);
    if let Some(name) = flags.text("--name") {
        socket = socket.listener_name(name);
    }
    if let Some(queue) = flags.number("--queue") {
        socket = socket.listen_queue(queue);
    }
    if flags.has("--unlink") {
        socket = socket.unlink_path();
    }
    let socket = if flags.has("--bind") || flags.has("--udp") {
        socket.on_bind("bound").bind(cx)?
    } else {
        socket.on_accept("accepted").listen(cx)?
    };
    let place = socket.local_addr().map(|address| address.to_string());
    println!("listens {}", place.or_else(|_| socket.local_path().map(|path| path.display().to_string()))?);
    cx.heap().push(socket);
    Ok(())
}

fn wheel(flags: &Flags) -> SocketFactoryBuilder {
    if let Some(address) = flags.text("--tcp") {
        SocketFactory::tcp(address)
    } else if let Some(path) = flags.text("--unix") {
        SocketFactory::unix(path)
    } else if let Some(address) = flags.text("--udp") {
        SocketFactory::udp(address)
    } else {
        SocketFactory::inherited(flags.text("--inherited").expect("something to listen on"))
    }
}
