//! What clients of the control socket can't do to the Daemon.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use util::control::{Control, Steered};
use util::{DEADLINE, wait_until};

const CLIENTS: usize = 32;

#[test] // O-CT-09
fn client_too_many_is_told_so_and_a_slot_is_free_at_once() {
    let steered = Steered::pool(1, "");
    let mut clients: Vec<Control> = (0..CLIENTS).map(|_| steered.control()).collect();
    clients.iter_mut().for_each(|client| drop(client.ask("hello").ok()));
    let mut refused = steered.control();
    assert_eq!(refused.read_answer().code(), "busy");
    assert_eq!(refused.read_line(), None);
    // However they hang up, and whatever they have sent before.
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 3 {
            0 => client.send("hel"),
            1 => client.send("hello\nhello\n"),
            _ => client.stream().shutdown(Shutdown::Both).unwrap(),
        }
    }
    clients.clear();
    let mut clients: Vec<Control> = (0..CLIENTS).map(|_| steered.control()).collect();
    clients.iter_mut().for_each(|client| drop(client.ask("hello").ok()));
}

#[test] // O-CT-09
fn line_that_is_too_long_is_refused() {
    let steered = Steered::pool(1, "");
    let fits = format!("hello {}x=1", "x".repeat(64 * 1024 - 20));
    steered.control().ask(&fits).ok();
    for start in ["hello ", "{\"command\":\""] {
        let mut control = steered.control();
        let _ = std::io::Write::write_all(&mut control.stream(), format!("{start}{}", "x".repeat(70_000)).as_bytes());
        let line = control.read_line().unwrap();
        assert!(line.contains("too_long"), "{line}");
        assert_eq!(line.starts_with('{'), start.starts_with('{'), "{line}");
        assert_eq!(control.read_line(), None);
    }
}

#[test] // O-CT-09
fn client_that_says_nothing_is_let_go_and_one_that_has_asked_stays() {
    let steered = Steered::pool(1, "");
    let begin = Instant::now();
    let (mut silent, mut half, mut asking) = (steered.control(), steered.control(), steered.control());
    half.send("hel");
    asking.ask("hello").ok();
    silent.stream().set_read_timeout(Some(DEADLINE * 2)).unwrap();
    assert_eq!((silent.read_line(), half.read_line()), (None, None));
    let waited = begin.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    asking.ask("hello").ok();
}

#[test] // O-CT-08: `printf 'hello' | nc -U`
fn client_that_has_closed_its_side_is_still_answered() {
    let steered = Steered::pool(1, "");
    let mut control = steered.control();
    control.send("hello\nhello");
    control.stream().shutdown(Shutdown::Write).unwrap();
    control.read_answer().ok();
    control.read_answer().ok();
    assert_eq!(control.read_line(), None);
}

#[test] // O-CT-09
fn client_that_does_not_read_holds_nothing_up() {
    let steered = Steered::pool(4, "");
    let mut greedy: Vec<Control> = (0..8).map(|_| steered.control()).collect();
    let asked = "status\n".repeat(2000);
    for client in &mut greedy {
        client.stream().set_nonblocking(true).unwrap();
        // As much as the system takes.
        let _ = std::io::Write::write(&mut client.stream(), asked.as_bytes());
    }
    let mut control = steered.control();
    for _ in 0..100 {
        control.ask("hello").ok();
    }
    let before = util::proc::rss_kib(steered.pid()).unwrap();
    assert!(before < 200_000, "{before} KiB");
    drop(greedy);
    wait_until("their slots", DEADLINE, || {
        let mut clients: Vec<Control> = (0..CLIENTS - 1).map(|_| steered.control()).collect();
        clients.iter_mut().all(|client| client.ask("hello").last.starts_with("OK")).then_some(())
    });
}
