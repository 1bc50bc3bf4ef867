use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::filter::{Block, Chunks, FixedBlock, Grep, Line, Map, RecordBlock};

fn no_comments() -> Grep<String, str> {
    Grep::code(|line: &str| !line.starts_with('#'))
}

fn words() -> Map<String, String, str, str> {
    Map::new(
        |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        |word: &str| [format!("<{word}>")],
    )
}

fn pairs() -> RecordBlock<String, str> {
    RecordBlock::new(2).expect("two is a size")
}

#[test] // K-FK-01: the first filter is nearest to the wire: input goes first to last, output last to first
fn input_goes_up_and_output_goes_down() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Block::new(), Chunks(Line::new())).push(words());
    assert_eq!(stack.get(b"4\0a b\n")?, ["a", "b"]);
    let mut out = b"kept".to_vec();
    stack.put("c", &mut out)?;
    assert_eq!(out, b"kept5\0<c>\r\n");
    Ok(())
}

#[test] // K-FK-02: what a filter drops goes no further
fn put_stops_at_a_filter_that_drops() -> Result<(), FilterError> {
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let below = Grep::new(
        |_: &String| true,
        move |_: &str| {
            counter.set(counter.get() + 1);
            true
        },
    );
    let mut stack = Stackable::new(Line::new(), below).push(no_comments());
    let mut out = Vec::new();
    for record in ["# not me", "me"] {
        stack.put(record, &mut out)?;
    }
    assert_eq!((out.as_slice(), asked.get()), (&b"me\r\n"[..], 1));
    Ok(())
}

#[test] // K-FK-03: every filter is asked without new input, as a later one may hold several records
fn get_one_asks_all_filters() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Line::new(), no_comments()).push(words()).push(pairs());
    stack.get_one_start(b"# x\n\na b c d e\nf\n# y\ng")?;
    for wanted in [["a", "b"], ["c", "d"], ["e", "f"]] {
        assert_eq!(stack.get_one()?, Some(wanted.map(str::to_owned).to_vec()));
    }
    assert_eq!(stack.get_one()?, None);
    assert_eq!(stack.get(b" h i\n")?, [["g", "h"]]);
    Ok(())
}

#[test] // K-FK-04: push and pop at the application's end, unshift and shift at the wire's; each filter keeps its input
fn stacks_are_put_together_and_taken_apart() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Line::new(), no_comments()).push(pairs());
    assert!(stack.get(b"a\nb")?.is_empty());
    let (below, mut popped) = stack.pop();
    assert_eq!(popped.get_pending(), ["a"]);
    assert_eq!(popped.get(["z".to_owned()])?, [["a", "z"]]);

    let mut unshifted = Stackable::new(Block::new(), Chunks(below));
    assert_eq!(unshifted.get(b"2\0c\n")?, ["bc"]);
    let (block, mut shifted) = unshifted.pop();
    assert_eq!(block.get_pending(), b"");
    assert_eq!(shifted.0.get(b"d\n")?, ["d"]);
    Ok(())
}

#[test] // K-FK-05, K-FI-07: a clone is a stack of clones
fn a_clone_has_the_settings_and_no_input() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Line::literal(";")?, no_comments()).push(pairs());
    assert_eq!(stack.get(b"a;#;b;c;d")?, [["a", "b"]]);
    let mut clone = stack.clone_config();
    assert_eq!(clone.get(b"e;#;f;g")?, [["e", "f"]]);
    assert_eq!(stack.get(b"d;")?, [["c", "dd"]]);
    Ok(())
}

#[test] // K-FK-07 as K-RE-31 wants it: the rest of a chunk is the next filter's, or the stack says that it can't be
fn nothing_is_lost_when_another_filter_takes_over() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Line::new(), no_comments());
    stack.get_one_start(b"# x\nDATA\n# y\n\xff")?;
    assert_eq!(stack.get_one()?.as_deref(), Some("DATA"));
    assert_eq!(stack.hand_over()?, b"# y\n\xff");
    assert_eq!(stack.get_pending(), b"# y\n\xff");

    let mut stack = Stackable::new(Line::new(), pairs());
    assert!(stack.get(b"a\nb")?.is_empty());
    let lost = FilterError::CannotSwitch { held: 1 };
    assert_eq!(lost.to_string(), "another filter can't take over: 1 records or bytes would be lost");
    assert_eq!(stack.hand_over(), Err(lost.clone()));
    assert_eq!(stack.get_pending(), b"b", "what the first filter has");
    assert_eq!(Stackable::new(stack, Grep::new(|_| true, |_: &[String]| true)).hand_over(), Err(lost));

    let mut stack = Stackable::new(Block::new(), Chunks(FixedBlock::new(2)?));
    assert_eq!(stack.get(b"3\0abc1")?, [b"ab"]);
    assert_eq!(stack.hand_over(), Err(FilterError::CannotSwitch { held: 1 }));
    assert_eq!(stack.get(b"\0d")?, [b"cd"]);
    assert_eq!(stack.hand_over(), Ok(&b""[..]));
    Ok(())
}

#[test] // K-FI-11, K-RE-28: an error of any filter is reported once, and the stack goes on
fn an_error_costs_only_its_record() -> Result<(), FilterError> {
    let short = Map::try_new(
        |line: String| {
            if line.len() > 2 { Err(FilterError::RecordTooLong { limit: 2, length: line.len() }) } else { Ok([line]) }
        },
        |line: &str| Ok([line.to_owned()]),
    );
    let mut stack = Stackable::new(Line::new().max_length(3)?.max_buffer(9)?, short);
    stack.get_one_start(b"abcd\nabc\n")?;
    let full = FilterError::BufferFull { limit: 9, needed: 10 };
    assert_eq!(stack.get_one_start(b"x"), Err(full));
    assert_eq!(stack.get_one(), Err(FilterError::RecordTooLong { limit: 3, length: 4 }));
    assert_eq!(stack.get_one(), Err(FilterError::RecordTooLong { limit: 2, length: 3 }));
    assert_eq!(stack.get_one(), Ok(None));
    assert_eq!(stack.get(b"x\n")?, ["x"]);
    Ok(())
}

#[test] // K-FI-05: what fails halfway leaves the output as it was
fn a_record_is_sent_whole_or_not_at_all() -> Result<(), FilterError> {
    let refuse = |line: &str| match line {
        "no" => Err(FilterError::Malformed { reason: "no".into() }),
        _ => Ok([line.to_owned()]),
    };
    let mut stack = Stackable::new(Line::new(), Map::try_new(|line: String| Ok([line]), refuse)).push(pairs());
    let mut out = b"kept".to_vec();
    assert!(stack.put(&["yes".to_owned(), "no".to_owned()], &mut out).is_err());
    assert_eq!(out, b"kept");
    Ok(())
}

#[test]
fn settings_of_any_filter_can_be_reached() -> Result<(), FilterError> {
    let mut stack = Stackable::new(Line::new(), no_comments()).push(pairs());
    stack.last_mut().set_block_size(1)?;
    stack.first_mut().last_mut().set_get(|_| true);
    assert_eq!(stack.get(b"#\n")?, [["#"]]);
    assert_eq!((stack.last().block_size(), stack.first().first().get_pending()), (1, &b""[..]));
    Ok(())
}

#[test] // K-RW-42: also for what has been sent to the filter below already
fn a_put_that_panics_leaves_nothing() {
    let halves = Map::new(
        |line: String| Some(line),
        |word: &str| {
            let word = word.to_owned();
            (0..2).map(move |half| if half == 1 && word == "panics" { panic!("on purpose") } else { word.clone() })
        },
    );
    let mut stack = Stackable::new(Line::new(), halves);
    let mut out = b"before".to_vec();
    let put = std::panic::AssertUnwindSafe(|| stack.put("panics", &mut out));
    assert!(std::panic::catch_unwind(put).is_err());
    assert_eq!(out, b"before");
    assert_eq!(stack.put("x", &mut out), Ok(()));
    assert_eq!(out, b"beforex\r\nx\r\n");
}
