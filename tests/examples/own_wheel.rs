//! The example `own_wheel`: what it answers, and that one datagram too strange does not end it.

use std::net::{SocketAddr, UdpSocket};

use nix::sys::signal::Signal;

use crate::{end, expect_refusal};
use util::{DEADLINE, Program, example, wait_until};

/// A client of the server at an address.
struct Client(UdpSocket);

impl Client {
    fn new(server: SocketAddr) -> Client {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Client(socket)
    }

    fn answer(&self) -> String {
        let mut answer = [0; 256];
        let length = self.0.recv(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[..length]).trim_end().to_owned()
    }

    fn ask(&self, question: &[u8]) -> String {
        self.0.send(question).unwrap();
        self.answer()
    }
}

#[test]
fn own_wheel_counts_what_its_clients_send() {
    let mut running = Program::new(example("own_wheel")).args(["--listen", "127.0.0.1:0"]).start();
    let address = running.listening_addr();
    let (one, two) = (Client::new(address), Client::new(address));
    assert_eq!(one.ask(b"apples 2"), "apples 2");
    assert_eq!(two.ask(b"apples 3\n"), "apples 5");
    for strange in [&b""[..], b"apples", b"apples -1", b"apples 99999999999999999999", b"a b c", &[0xff; 9000]] {
        assert_eq!(one.ask(strange), "expected a name and a number");
    }
    // More than one turn's worth, all of it waiting when the turn begins.
    running.signal(Signal::SIGSTOP);
    for _ in 0..200 {
        two.0.send(b"pears 1").unwrap();
    }
    running.signal(Signal::SIGCONT);
    let sums: Vec<String> = (0..200).map(|_| two.answer()).collect();
    assert_eq!(sums, (1..=200).map(|sum| format!("pears {sum}")).collect::<Vec<_>>());
    running.signal(Signal::SIGUSR2);
    let shown = format!("Datagrams (wheel 1) on {address} -> datagram");
    wait_until("a dump", DEADLINE, || running.stderr_text().contains(&shown).then_some(()));
    end(&mut running, Signal::SIGINT);
}

#[test]
fn own_wheel_says_in_one_line_that_an_address_is_in_use() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    expect_refusal("own_wheel", &["--listen", &address], 1, &format!("can't receive on {address}: "));
}
