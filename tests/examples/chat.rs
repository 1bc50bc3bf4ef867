//! The example `chat`: everybody hears everybody else, and one who does not read hurts nobody.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;

use util::{Client, DEADLINE, Program, Running, example, proc};

fn start() -> (Running, std::net::SocketAddr) {
    let running = Program::new(example("chat")).arg("127.0.0.1:0").start();
    let addr = running.listening_addr();
    (running, addr)
}

/// Connects and says its name; `others` have heard of it then, and it is in the room.
fn enter(addr: std::net::SocketAddr, name: &str, others: &mut [&mut Client]) -> Client {
    let mut client = Client::connect(addr);
    assert_eq!(client.read_line(), "* what is your name?");
    client.send(format!("{name}\r\n"));
    for other in others {
        assert_eq!(other.read_line(), format!("* {name} is here"));
    }
    client
}

fn end(mut running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn what_one_says_all_others_hear() {
    let (running, addr) = start();
    let mut lenore = enter(addr, "Lenore", &mut []);
    // Not in the room before it has a name.
    let mut nameless = Client::connect(addr);
    assert_eq!(nameless.read_line(), "* what is your name?");
    let mut edgar = enter(addr, "Edgar", &mut [&mut lenore]);
    let mut raven = enter(addr, "Raven", &mut [&mut lenore, &mut edgar]);
    raven.send("Nevermore.\r\n");
    for other in [&mut lenore, &mut edgar] {
        assert_eq!(other.read_line(), "Raven: Nevermore.");
    }
    edgar.send("Quoth who?\r\n");
    assert_eq!([lenore.read_line(), raven.read_line()], ["Edgar: Quoth who?", "Edgar: Quoth who?"]);
    drop((raven, nameless));
    for other in [&mut lenore, &mut edgar] {
        assert_eq!(other.read_line(), "* Raven has left");
    }
    drop((lenore, edgar));
    end(running);
}

#[test]
fn one_who_does_not_read_hurts_nobody_and_is_told_what_it_has_missed() {
    const ROUNDS: usize = 150;
    const LINES: usize = 20;
    let (running, addr) = start();
    let mut talker = enter(addr, "T", &mut []);
    let mut reader = enter(addr, "R", &mut [&mut talker]);
    let mut sleeper = enter(addr, "S", &mut [&mut talker, &mut reader]);
    let before = proc::rss_kib(running.pid()).expect("it runs");
    let text = "x".repeat(10_000);
    for _ in 0..ROUNDS {
        talker.send(format!("{text}\r\n").repeat(LINES));
        for _ in 0..LINES {
            assert_eq!(reader.read_line().len(), "T: ".len() + text.len());
        }
    }
    let after = proc::rss_kib(running.pid()).expect("it runs");
    let grown = after.saturating_sub(before);
    // 30 MB were said.
    assert!(grown < 8 * 1024, "the server has grown by {grown} KiB");

    let (mut heard, mut missed) = (0, 0);
    while heard + missed < ROUNDS * LINES {
        let line = sleeper.read_line();
        match line.strip_prefix("* you have missed ").and_then(|rest| rest.split(' ').next()) {
            Some(number) => missed += number.parse::<usize>().expect("a number"),
            None => {
                assert!(line.starts_with("T: x"), "{line}");
                heard += 1;
            }
        }
    }
    assert_eq!(heard + missed, ROUNDS * LINES);
    assert!(heard > 0 && missed > 0, "{heard} heard, {missed} missed");
    // And is one of them again.
    talker.send("hello\r\n");
    assert_eq!([reader.read_line(), sleeper.read_line()], ["T: hello", "T: hello"]);
    drop((talker, reader, sleeper));
    end(running);
}

#[test]
fn one_who_never_ends_a_line_has_to_leave() {
    let (running, addr) = start();
    let mut lenore = enter(addr, "Lenore", &mut []);
    let mut endless = TcpStream::connect(addr).unwrap();
    endless.set_read_timeout(Some(DEADLINE)).unwrap();
    endless.set_write_timeout(Some(DEADLINE)).unwrap();
    endless.write_all(b"Endless\n").unwrap();
    assert_eq!(lenore.read_line(), "* Endless is here");
    // More than the server takes. It may have closed before all is written.
    let _ = endless.write_all(&[b'x'; 1 << 20]);
    assert_eq!(lenore.read_line(), "* Endless has left");
    match endless.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    drop((lenore, endless));
    end(running);
}

#[test]
fn one_who_does_not_read_does_not_hold_up_the_end() {
    let (running, addr) = start();
    let mut talker = enter(addr, "T", &mut []);
    let mut sleeper = enter(addr, "S", &mut [&mut talker]);
    // More than the buffers of its socket take: the rest is the server's to keep, as long as it may be kept.
    let line = "x".repeat(4000);
    for _ in 0..2000 {
        talker.send(format!("{line}\r\n"));
    }
    talker.send("done\r\n");
    sleeper.send("still here\r\n");
    assert_eq!(talker.read_line(), "S: still here");
    end(running);
}
