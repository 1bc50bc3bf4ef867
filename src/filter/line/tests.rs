use super::*;

/// Records and errors in the order the filter reports them.
type Items = Vec<Result<Vec<u8>, FilterError>>;

fn text(filter: &mut Line, chunk: &str) -> Vec<String> {
    filter.get(chunk.as_bytes()).expect("no limit is near and the input is text")
}

fn put(filter: &mut Line, records: &[&str]) -> String {
    let mut out = Vec::new();
    for record in records {
        filter.put(record, &mut out).expect("every text can be sent");
    }
    String::from_utf8(out).expect("what was put is text")
}

/// Takes what there is, errors included, until the filter has no more.
fn drain(filter: &mut ByteLine, items: &mut Items) {
    while let Some(item) = filter.get_one().transpose() {
        items.push(item);
    }
}

fn too_long(limit: usize, length: usize) -> FilterError {
    FilterError::RecordTooLong { limit, length }
}

#[test] // K-FI-02: get_one_start appends and parses nothing
fn get_one_start_parses_nothing() -> Result<(), FilterError> {
    let mut filter = Line::new();
    for chunk in [&b"a\r\n"[..], b"", b"\xff\nb"] {
        filter.get_one_start(chunk)?;
    }
    assert_eq!(filter.get_pending(), b"a\r\n\xff\nb");
    Ok(())
}

#[test] // K-FI-03: get_one gives one record, or nothing while none is complete
fn get_one_gives_one_record_at_a_time() -> Result<(), FilterError> {
    let mut filter = Line::new();
    assert_eq!(filter.get_one()?, None);
    filter.get_one_start(b"a\nb\nc")?;
    assert_eq!(filter.get_one()?.as_deref(), Some("a"));
    assert_eq!(filter.get_one()?.as_deref(), Some("b"));
    assert_eq!(filter.get_one()?, None);
    Ok(())
}

#[test] // K-FI-04: get takes all complete records, those of earlier chunks included
fn get_takes_all_records() -> Result<(), FilterError> {
    let mut filter = Line::new();
    filter.get_one_start(b"a\nb")?;
    assert_eq!(text(&mut filter, "c\nd\ne"), ["a", "bc", "d"]);
    Ok(())
}

#[test] // K-FI-05: put gives raw bytes, here appended to what the caller has
fn put_appends_to_the_output() -> Result<(), FilterError> {
    let mut out = b"kept".to_vec();
    Line::new().put("a", &mut out)?;
    assert_eq!(out, b"kepta\r\n");
    Ok(())
}

#[test] // K-FI-06: get_pending is the unparsed input, which stays
fn pending_input_stays_in_the_filter() {
    let mut filter = Line::new();
    assert!(filter.get_pending().is_empty());
    text(&mut filter, "a\nbc");
    assert_eq!(filter.get_pending(), b"bc");
    assert_eq!(text(&mut filter, "d\n"), ["bcd"]);
    assert!(filter.get_pending().is_empty());
}

#[test] // K-FI-06, K-RE-27: the second octet of a terminator is no input, whether it has come yet or not
fn pending_input_never_has_half_a_newline() -> Result<(), FilterError> {
    let mut filter = Line::new();
    filter.get_one_start(b"a\r\nb")?;
    filter.get_one()?;
    assert_eq!(filter.get_pending(), b"b");
    filter.get_one_start(b"\n")?;
    filter.get_one()?;
    assert_eq!(filter.get_pending(), b"");
    filter.get_one_start(b"\rc")?;
    assert_eq!(filter.get_pending(), b"c");
    Ok(())
}

#[test] // K-FI-07: a clone has the same settings and an empty buffer
fn a_clone_has_the_settings_and_no_input() -> Result<(), FilterError> {
    let mut filter = Line::literal(";")?.output_literal("!").max_length(3)?.max_buffer(5)?;
    text(&mut filter, "a;bc");
    let mut clone = filter.clone_config();
    assert!(clone.get_pending().is_empty());
    assert_eq!(text(&mut clone, "d;e"), ["d"]);
    assert_eq!(put(&mut clone, &["f"]), "f!");
    assert_eq!(clone.get(b"abc;"), Err(too_long(3, 4)));
    assert_eq!(clone.get(b"abcdef"), Err(FilterError::BufferFull { limit: 5, needed: 6 }));
    assert_eq!(filter.get_pending(), b"bc");

    let mut parent = Line::autodetect();
    text(&mut parent, "a\r\n");
    assert_eq!(text(&mut parent.clone_config(), "a\nb\r\n"), ["a", "b\r"]);
    Ok(())
}

#[test] // K-FI-09: limits are positive, and the buffer's is at least the record's
fn senseless_limits_are_refused() -> Result<(), FilterError> {
    let refused = |made: Result<Line, FilterError>, wanted: &str| {
        assert_eq!(made.expect_err(wanted).to_string(), wanted);
    };
    refused(Line::new().max_length(0), "invalid max_length: must not be zero");
    refused(Line::new().max_buffer(0), "invalid max_buffer: must not be zero");
    let small = || Line::new().max_length(4)?.max_buffer(4);
    refused(small()?.max_length(5), "invalid max_length: must not be more than max_buffer");
    refused(small()?.max_buffer(3), "invalid max_buffer: must not be less than max_length");
    Ok(())
}

#[test] // K-FL-01: the defaults are 64 MiB and 512 MiB
fn default_limits_are_those_of_poe() {
    let limits = Line::new().bytes().input.limits;
    assert_eq!((limits.length, limits.buffer), (67_108_864, 536_870_912));
}

#[test] // K-FL-01: Literal is for both directions, and is not empty
fn literal_is_for_both_directions() -> Result<(), FilterError> {
    let mut filter = Line::literal("END")?;
    assert_eq!(text(&mut filter, "a\r\nENDENDb"), ["a\r\n", ""]);
    assert_eq!(put(&mut filter, &["c"]), "cEND");
    assert_eq!(Line::literal("").expect_err("empty").to_string(), "invalid literal: must not be empty");
    Ok(())
}

#[test] // K-FL-02, K-FL-03: any newline ends a line, pairs count once, lines may be empty
fn any_newline_ends_a_line() {
    let mut filter = Line::new();
    assert_eq!(text(&mut filter, "a\r\nb\n"), ["a", "b"]);
    let mut filter = Line::new();
    assert_eq!(text(&mut filter, "c\n\rd\n\ne\r\rf"), ["c", "d", "", "e", ""]);
    assert_eq!(filter.get_pending(), b"f");
}

#[test] // K-FL-04 as K-RE-27 wants it: a pair that two reads cut in half makes no empty record
fn a_split_pair_makes_no_empty_record() {
    let mut filter = Line::new();
    assert_eq!(text(&mut filter, "a\r"), ["a"], "delivered without waiting for more");
    assert!(text(&mut filter, "").is_empty());
    assert_eq!(text(&mut filter, "\nb\r\n"), ["b"]);
    assert_eq!(text(&mut filter, "c\n"), ["c"]);
    assert_eq!(text(&mut filter, "\nd\r"), ["", "d"], "LF LF is no pair");
}

#[test] // K-FL-05: an empty InputLiteral means autodetection: the first newline seen is the terminator from then on
fn the_first_newline_is_the_terminator() {
    for (input, second) in [
        ("one\r\ntw\n\ro\r\n", "tw\n\ro"),
        ("one\n\rtw\r\no\n\r", "tw\r\no"),
        ("one\rtw\no\r", "tw\no"),
        ("one\ntw\ro\n", "tw\ro"),
    ] {
        for mut filter in [Line::autodetect(), Line::new().input_literal("")] {
            assert_eq!(text(&mut filter, input), ["one", second]);
            assert_eq!(put(&mut filter, &["three"]), "three\r\n");
        }
    }
}

#[test] // K-FL-06: a single newline at the end of the buffer is decided by the next octet, not the next chunk
fn the_next_octet_decides_what_was_detected() {
    let mut filter = Line::autodetect();
    assert_eq!(text(&mut filter, "one\r"), ["one"]);
    assert!(text(&mut filter, "").is_empty());
    assert_eq!(text(&mut filter, "\ntwo\r\nthree\nfour\r\n"), ["two", "three\nfour"]);

    let mut filter = Line::autodetect();
    assert_eq!(text(&mut filter, "one\r"), ["one"]);
    assert_eq!(text(&mut filter, "two\r\nthree\r"), ["two", "\nthree"]);
}

#[test] // K-FL-07
fn a_detected_single_newline_is_no_pair() {
    let mut filter = Line::autodetect();
    assert_eq!(text(&mut filter, "one\n"), ["one"]);
    assert_eq!(text(&mut filter, "two\r\n"), ["two\r"]);
}

#[test] // K-FL-08: a literal is matched literally
fn a_literal_is_no_pattern() -> Result<(), FilterError> {
    assert_eq!(text(&mut Line::literal(".*")?, "ab.c.*d*.*"), ["ab.c", "d*"]);
    Ok(())
}

#[test] // K-FL-09: put appends to each record, also to empty ones, and does not look inside
fn put_ends_every_record() {
    assert_eq!(put(&mut Line::new(), &["a", "", "b\nc\r\n"]), "a\r\n\r\nb\nc\r\n\r\n");
}

#[test] // K-FL-10: InputLiteral leaves the output's CR LF alone; an empty OutputLiteral appends nothing
fn the_directions_are_independent() {
    assert_eq!(put(&mut Line::new().input_literal(";"), &["a"]), "a\r\n");
    assert_eq!(put(&mut Line::new().output_literal(""), &["a", "b"]), "ab");
    assert_eq!(text(&mut Line::new().output_literal(";"), "a;\nb\n"), ["a;", "b"]);
}

#[test] // K-FL-11, K-FI-11: an over-long line is removed and reported when complete; parsing goes on after it
fn an_over_long_line_is_reported_once() -> Result<(), FilterError> {
    let mut filter = Line::new().max_length(3)?;
    assert!(text(&mut filter, "abc\nabcd").len() == 1, "an unfinished line is not limited");
    filter.get_one_start(b"e\r\nf\n")?;
    assert_eq!(filter.get_one(), Err(too_long(3, 5)));
    assert_eq!(filter.get_one()?.as_deref(), Some("f"));
    assert_eq!(filter.get_one()?, None);
    Ok(())
}

#[test] // K-FL-12 as K-RE-28 wants it, K-FI-11: a line the buffer cannot hold is reported once and given up
fn a_line_too_long_for_the_buffer_is_given_up() -> Result<(), FilterError> {
    let mut filter = Line::new().max_length(4)?.max_buffer(8)?;
    assert_eq!(text(&mut filter, "ok\nabcde"), ["ok"]);
    let full = Err(FilterError::BufferFull { limit: 8, needed: 9 });
    assert_eq!(filter.get_one_start(b"fghi"), full);
    assert_eq!(filter.get_pending(), b"");
    for chunk in ["fghi", "jklmnopq", "rs\r"] {
        assert!(text(&mut filter, chunk).is_empty());
        assert_eq!(filter.get_pending(), b"", "what is given up is not pending");
        assert_eq!(filter.is_between_records(), chunk.ends_with('\r'), "its end is still to come");
    }
    assert_eq!(text(&mut filter, "\nt\n"), ["t"]);
    assert!(filter.is_between_records());
    Ok(())
}

#[test] // K-RE-28: a refused chunk costs no complete line, and none of the chunk is taken
fn a_full_buffer_keeps_complete_lines() -> Result<(), FilterError> {
    let mut filter = Line::new().max_length(4)?.max_buffer(8)?;
    filter.get_one_start(b"a\nb\ncd")?;
    assert!(filter.get_one_start(b"e\nf").is_err());
    assert_eq!(filter.get_pending(), b"a\nb\ncd");
    assert_eq!(text(&mut filter, ""), ["a", "b"]);
    assert_eq!(text(&mut filter, "e\nf"), ["cde"]);
    Ok(())
}

#[test] // K-FL-13: when get fails the records before are lost, those after are not; get_one loses none
fn get_loses_the_records_before_an_error() -> Result<(), FilterError> {
    let mut filter = Line::new().max_length(1)?;
    assert_eq!(filter.get(b"a\nbb\nc\n"), Err(too_long(1, 2)));
    assert_eq!(text(&mut filter, ""), ["c"]);
    Ok(())
}

#[test]
fn a_line_that_is_not_text_costs_only_itself() -> Result<(), FilterError> {
    let mut filter = Line::new();
    filter.get_one_start(b"\xc3\xa9\nab\xc3\n\xa9c\nd\n")?;
    assert_eq!(filter.get_one()?.as_deref(), Some("é"));
    let not_utf8 = |octet, record: &[u8]| FilterError::NotUtf8 { octet, record: record.to_vec() };
    assert_eq!(filter.get_one(), Err(not_utf8(2, b"ab\xc3")));
    assert_eq!(filter.get_one(), Err(not_utf8(0, b"\xa9c")));
    assert_eq!(filter.get_one()?.as_deref(), Some("d"));
    Ok(())
}

#[test] // K-RE-28: the terminator of a line that is given up is found even if its first octets came before that
fn a_given_up_line_may_end_in_the_middle_of_its_terminator() -> Result<(), FilterError> {
    let mut filter = Line::literal("END")?.max_length(4)?.max_buffer(4)?;
    assert!(text(&mut filter, "abEN").is_empty());
    assert!(filter.get_one_start(b"Dcd").is_err());
    assert_eq!(filter.get_pending(), b"");
    assert!(text(&mut filter, "Dcd").is_empty());
    assert_eq!(filter.get_pending(), b"cd");
    Ok(())
}

#[test] // K-RE-28: nothing of a refused chunk is taken, not even the octet that completes a pair
fn a_refused_chunk_does_not_complete_a_pair() -> Result<(), FilterError> {
    let mut filter = Line::new().max_length(4)?.max_buffer(4)?;
    assert_eq!(text(&mut filter, "a\r"), ["a"]);
    assert!(filter.get_one_start(b"\nbcdef").is_err());
    assert!(text(&mut filter, "\nbcd").is_empty());
    assert_eq!(text(&mut filter, "e\ng\n"), ["g"]);
    Ok(())
}

#[test] // the hot path: an unfinished line that trickles in is not searched from its beginning each time
fn no_octet_is_searched_twice() -> Result<(), FilterError> {
    for (filter, searched_again) in [(Line::new(), 0), (Line::literal("\r\n\r\n")?, 3)] {
        let mut filter = filter.bytes();
        for length in 1..100 {
            filter.get_one_start(b"\x01")?;
            assert_eq!(filter.get_one()?, None);
            assert_eq!(filter.input.scanned(), length.max(searched_again) - searched_again);
        }
    }
    Ok(())
}

#[test] // the hot path: consumed input is dropped, and a burst's memory is given back
fn the_buffer_does_not_grow_with_what_went_through() -> Result<(), FilterError> {
    let mut filter = ByteLine::new();
    let (stream, mut items) = (b"0123456789\r\n".repeat(1000), Items::new());
    for chunk in stream.chunks(1001) {
        filter.get_one_start(chunk)?;
        drain(&mut filter, &mut items);
        assert!(filter.input.capacity() <= 4096, "{}", filter.input.capacity());
    }
    assert_eq!(items.len(), 1000);

    filter.get_one_start(&vec![b'x'; 1 << 20])?;
    filter.get_one_start(b"\n")?;
    drain(&mut filter, &mut items);
    assert_eq!(filter.input.capacity(), 0);
    Ok(())
}

#[test] // K-RE-39: the unfinished last record, within the limits of any other
fn what_is_pending_can_be_taken_as_the_last_record() -> Result<(), FilterError> {
    let mut line = Line::new().max_length(5)?;
    assert_eq!(line.get_last()?, None);
    assert_eq!(line.get(b"a\nbc")?, ["a"]);
    assert_eq!(line.get_last()?.as_deref(), Some("bc"));
    assert_eq!((line.get_last()?, line.get_pending()), (None, &b""[..]));
    assert_eq!(line.get(b"d\nabcdef")?, ["d"], "it goes on");
    assert_eq!(line.get_last(), Err(FilterError::RecordTooLong { limit: 5, length: 6 }));
    assert_eq!(line.get(b"x\r")?, ["x"]);
    assert_eq!(line.get_last()?, None, "half of a newline is no record");
    line.get_one_start(b"\xff")?;
    assert!(matches!(line.get_last(), Err(FilterError::NotUtf8 { octet: 0, .. })));
    let mut bytes = Line::literal("--")?.bytes();
    assert_eq!(bytes.get(b"a--\xff-")?, [b"a"]);
    assert_eq!(bytes.get_last()?.as_deref(), Some(&b"\xff-"[..]));
    Ok(())
}

#[test]
fn no_more_than_the_room_is_taken_and_a_record_given_up_takes_none() -> Result<(), FilterError> {
    let mut line = Line::new().max_length(10)?.max_buffer(10)?;
    assert_eq!(line.room(), 10);
    line.get_one_start(b"ab\ncd")?;
    assert_eq!(line.room(), 5);
    assert!(line.get_one_start(b"efghij").is_err());
    line.get_one_start(b"efghi")?;
    assert_eq!((line.room(), line.get_one()?.as_deref()), (0, Some("ab")));
    assert_eq!(line.room(), 3);
    line.get_one_start(b"jkl")?;
    assert!(line.get_one_start(b"m").is_err(), "the record is given up");
    assert_eq!((line.room(), line.get_last()?), (10, None));
    assert_eq!(line.get(b"x\n")?, ["x"], "after the last one another begins");
    Ok(())
}

#[test] // K-RW-62: a setting that changes between CR and LF, as a filter that takes over, gets no LF
fn the_second_half_of_a_newline_belongs_to_the_line_before_whatever_follows() -> Result<(), FilterError> {
    for other in [";", "", "\n"] {
        let mut line = Line::new();
        assert_eq!(text(&mut line, "a\r"), ["a"]);
        let mut line = line.input_literal(other);
        let terminator = if other.is_empty() { "\r\n" } else { other };
        let input = format!("\nb{terminator}c\n{terminator}");
        let c = if other == "\n" { &["b", "c", ""][..] } else { &["b", "c\n"] };
        assert_eq!(text(&mut line, &input), c, "{other:?}");
    }
    let mut line = Line::new();
    assert_eq!(text(&mut line, "a\r"), ["a"]);
    assert_eq!((line.finish_record(b""), line.finish_record(b"\nb")), (None, Some(1)));
    assert_eq!(line.finish_record(b"\n"), Some(0), "once");
    assert_eq!(text(&mut line, "a\r\nb"), ["a"]);
    assert_eq!(line.finish_record(b"\n"), Some(0), "what is pending is not finished");
    Ok(())
}

#[test] // K-RW-62: what is given up is no input for another filter, however it is cut
fn the_rest_of_a_line_that_is_given_up_is_not_handed_over() -> Result<(), FilterError> {
    for chunks in [&["fgh\r\nrest"][..], &["fgh\r", "\nrest"], &["f", "", "gh", "\r", "\n", "rest"]] {
        let mut line = Line::new().max_length(4)?.max_buffer(4)?;
        line.get_one_start(b"abcd")?;
        assert!(line.get_one_start(b"e").is_err());
        assert_eq!(line.hand_over()?, b"");
        let mut left = String::new();
        let mut is_finished = false;
        for chunk in chunks {
            let first = if is_finished { Some(0) } else { line.finish_record(chunk.as_bytes()) };
            is_finished = first.is_some();
            left += &chunk[first.unwrap_or(chunk.len())..];
        }
        assert_eq!(left, "rest", "{chunks:?}");
    }
    Ok(())
}
