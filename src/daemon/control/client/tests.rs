use std::os::unix::net::UnixStream;

use super::super::dialect::Reply;
use super::*;

/// A client that has connected at that time, and its end of the connection.
fn connected(now: Instant) -> (Client, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let peer = Peer { uid: 500, gid: 500, pid: 0, groups: Vec::new() };
    (Client::new(Handle::new(ours), peer, Some(Rights::Admin), now), theirs)
}

fn send(theirs: &mut UnixStream, text: &str, client: &mut Client) {
    theirs.write_all(text.as_bytes()).unwrap();
    client.fill();
}

/// Gives an answer of so many bytes at least.
fn answer(client: &mut Client, length: usize, now: Instant) {
    let reply = Reply { verdict: "done", text: "x".repeat(length), data: "{}".to_owned() };
    client.answer(Dialect::Text, &Ok(reply));
    client.flush(now);
}

/// Reads what can be read now.
fn read_some(theirs: &mut UnixStream) -> usize {
    let mut chunk = vec![0; MOST_UNREAD];
    theirs.read(&mut chunk).unwrap_or(0)
}

#[test] // O-CT-09: however it sends a part of its command now and then
fn client_has_ten_seconds_until_its_first_command_is_complete() {
    let now = Instant::now();
    let (mut client, mut theirs) = connected(now);
    let limit = now + Duration::from_secs(10);
    for part in ["he", "l", "l", "o"] {
        send(&mut theirs, part, &mut client);
        assert_eq!((client.next_line(), client.due()), (None, Some(limit)));
    }
    send(&mut theirs, "\n", &mut client);
    assert_eq!((client.next_line(), client.due()), (Some(b"hello".to_vec()), None));
}

#[test] // O-CT-09
fn client_that_leaves_too_much_unread_is_dropped() {
    let now = Instant::now();
    let (mut client, _theirs) = connected(now);
    answer(&mut client, MOST_UNREAD, now);
    assert!(client.unwritten() > MOST_UNREAD / 2 && !client.is_over(), "{}", client.unwritten());
    answer(&mut client, MOST_UNREAD, now);
    assert!(client.is_over());
}

#[test] // O-CT-09
fn next_command_of_a_client_waits_until_the_answer_is_read() {
    let now = Instant::now();
    let (mut client, mut theirs) = connected(now);
    send(&mut theirs, "first\nsecond\n", &mut client);
    assert_eq!(client.next_line(), Some(b"first".to_vec()));
    answer(&mut client, MOST_UNREAD / 2, now);
    while client.unwritten() > 0 {
        assert_eq!((client.has_line(), client.next_line()), (false, None));
        assert!(read_some(&mut theirs) > 0);
        client.flush(now);
    }
    assert_eq!((client.has_line(), client.next_line()), (true, Some(b"second".to_vec())));
}

#[test] // O-CT-09
fn client_that_reads_nothing_of_its_answer_is_due_after_a_minute() {
    let begin = Instant::now();
    let (mut client, mut theirs) = connected(begin);
    send(&mut theirs, "status\n", &mut client);
    assert_eq!(client.next_line(), Some(b"status".to_vec()));
    let (seconds, minute) = (|seconds| begin + Duration::from_secs(seconds), Duration::from_secs(60));
    answer(&mut client, MOST_UNREAD / 2, seconds(100));
    assert_eq!(client.due(), Some(seconds(100) + minute));
    // Nothing is taken.
    client.flush(seconds(130));
    assert_eq!(client.due(), Some(seconds(100) + minute));
    assert!(read_some(&mut theirs) > 0);
    client.flush(seconds(140));
    assert_eq!(client.due(), Some(seconds(140) + minute));
    while read_some(&mut theirs) > 0 {
        client.flush(seconds(150));
    }
    assert_eq!((client.unwritten(), client.due()), (0, None));
}
