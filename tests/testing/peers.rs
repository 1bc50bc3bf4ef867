//! The test's end of a stream.

use lenore::testing::{Peer, pair};

use crate::panic_of;

fn both_ends() -> (Peer, Peer) {
    let (program, test) = pair();
    (Peer::new(program).unwrap(), test)
}

#[test]
fn what_is_written_at_one_end_is_read_at_the_other() {
    let (mut one, mut other) = both_ends();
    one.expect_nothing();
    one.write("ab");
    one.write(b"\0c");
    other.expect(b"ab\0c");
    other.write("answer");
    assert_eq!(one.read(), b"answer");
    assert_eq!(one.read(), b"");
}

#[test]
fn end_of_the_stream_is_told_from_silence() {
    let (mut one, mut other) = both_ends();
    let text = panic_of(|| one.expect_end());
    assert!(text.contains("has not closed the stream"), "{text}");
    other.write("last");
    other.close_write();
    let text = panic_of(|| one.expect_end());
    assert!(text.contains("written more: \"last\""), "{text}");
    one.expect_end();
    let text = panic_of(|| one.expect_nothing());
    assert!(text.contains("has closed the stream"), "{text}");
    one.write("still");
    other.expect("still");
}

#[test]
fn end_with_unread_input_is_an_end() {
    let (mut one, other) = both_ends();
    one.write("unread");
    drop(other);
    one.expect_end();
    let text = panic_of(|| one.write("more"));
    assert!(text.contains("can't write \"more\""), "{text}");
}

#[test]
fn other_bytes_are_shown_beside_the_expected_ones() {
    let (mut one, mut other) = both_ends();
    one.write("hello\r\n");
    let text = panic_of(|| other.expect("hello\n"));
    assert!(text.contains("expected \"hello\\n\"\n       got \"hello\\r\\n\""), "{text}");
    one.write(vec![b'x'; 5000]);
    let text = panic_of(|| other.expect(""));
    assert!(text.contains("(5000 bytes)") && text.len() < 1000, "{text}");
}

#[test]
fn full_stream_fails_the_test_unless_the_test_asks_how_much_it_takes() {
    let (mut one, mut other) = both_ends();
    let big = vec![b'x'; 10_000_000];
    let taken = one.write_some(&big);
    assert!(0 < taken && taken < big.len(), "{taken}");
    let text = panic_of(|| one.write("one more"));
    assert!(text.contains("the stream is full: it has taken 0 of 8 bytes"), "{text}");
    assert_eq!(other.read().len(), taken);
    one.write("one more");
    other.expect("one more");
}
