use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Value {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Table { rows: BTreeMap<String, Value> },
}

fn malformed(reason: &str) -> FilterError {
    FilterError::malformed(reason.to_owned())
}

/// Takes what there is, errors included, until the filter has no more.
fn drain<F: Filter>(filter: &mut F) -> Vec<Result<F::Input, FilterError>> {
    std::iter::from_fn(|| filter.get_one().transpose()).collect()
}

#[test] // K-FF-01: any structure is carried, and plain values are no exception
fn any_value_is_carried() -> Result<(), FilterError> {
    let mut frame = Frame::<Value>::new();
    let rows = BTreeMap::from([("a".to_owned(), Value::List(vec![Value::Nothing, Value::Text("ä\0\"".into())]))]);
    let values = [Value::Table { rows }, Value::Number(-1)];
    let mut wire = Vec::new();
    for value in &values {
        frame.put(value, &mut wire)?;
    }
    assert_eq!(frame.get(&wire)?, values);

    let mut plain = Frame::<u8, str>::new();
    plain.put("text", &mut wire)?;
    assert!(wire.ends_with(b"6\0\"text\""));
    assert_eq!(plain.get(b"1\x007")?, [7], "what comes in need not be what goes out");
    Ok(())
}

#[test] // K-FF-02: decimal length, NUL, payload; a block filter understands it
fn frames_are_blocks() -> Result<(), FilterError> {
    let mut wire = b"kept".to_vec();
    Frame::<Vec<u8>>::new().put(&vec![1, 20], &mut wire)?;
    assert_eq!(wire, b"kept6\0[1,20]");
    assert_eq!(Block::new().get(&wire[4..])?, [b"[1,20]"]);
    Ok(())
}

/// Texts as they are, but for one that can't be frozen.
#[derive(Clone)]
struct Plain;

impl FrameCodec<String, str> for Plain {
    fn freeze(&self, value: &str, out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.extend_from_slice(value.as_bytes());
        if value == "fire" { Err(malformed("does not freeze")) } else { Ok(()) }
    }

    fn thaw(&self, payload: &[u8]) -> Result<String, FilterError> {
        Ok(str::from_utf8(payload).map_err(|_| malformed("did not thaw"))?.to_owned())
    }
}

#[test] // K-FF-03: a serializer of one's own; K-FI-07: a clone has it, and the limits, and no input
fn a_codec_of_ones_own() -> Result<(), FilterError> {
    let mut frame = Frame::<String, str, _>::with_codec(Plain).max_length(4)?.max_buffer(25)?;
    let mut wire = Vec::new();
    frame.put("ice", &mut wire)?;
    assert_eq!(wire, b"3\0ice");
    assert_eq!(frame.put("fire", &mut wire), Err(malformed("does not freeze")));
    assert_eq!(frame.put("water", &mut wire), Err(FilterError::RecordTooLong { limit: 4, length: 5 }));
    assert_eq!(wire, b"3\0ice", "a value that can't be sent leaves no trace");
    assert!(frame.get(b"2\0a")?.is_empty());
    assert_eq!(frame.get_pending(), b"2\0a");
    let mut clone = frame.clone_config();
    assert_eq!(clone.get(&wire)?, ["ice"]);
    assert_eq!(clone.get(b"5\0").expect_err("the limit"), FilterError::RecordTooLong { limit: 4, length: 5 });
    Ok(())
}

#[test] // K-FF-04, K-FF-07: an undecodable payload is an error of its own; its frame is consumed
fn an_undecodable_payload_costs_only_itself() -> Result<(), FilterError> {
    let mut frame = Frame::<Vec<u8>>::new();
    frame.get_one_start(b"3\0[1]5\0[1,2,5\0[256]2\0[]0\x006\0[1] []3\0[2]")?;
    let wanted = [
        Ok(vec![1]),
        Err(malformed("payload of 5 bytes: EOF while parsing a value at line 1 column 5")),
        Err(malformed("payload of 5 bytes: invalid value: integer `256`, expected u8 at line 1 column 4")),
        Ok(vec![]),
        Err(malformed("payload of 0 bytes: EOF while parsing a value at line 1 column 0")),
        Err(malformed("payload of 6 bytes: trailing characters at line 1 column 5")),
        Ok(vec![2]),
    ];
    assert_eq!(drain(&mut frame), wanted);
    Ok(())
}

#[test] // K-FF-05: a full buffer is an error like any other, and the filter goes on
fn a_full_buffer_is_reported() -> Result<(), FilterError> {
    let mut frame = Frame::<Vec<u8>>::new().max_length(5)?.max_buffer(26)?;
    assert!(frame.get(b"5\0[1,")?.is_empty());
    let chunk = b"2]3\0[3]3\0[4]3\0[5]3\0[6]";
    assert_eq!(frame.get_one_start(chunk), Err(FilterError::BufferFull { limit: 26, needed: 27 }));
    assert_eq!(frame.get(chunk)?, [[3], [4], [5], [6]]);
    Ok(())
}

#[test] // K-FF-06 as K-RE-28 wants it: foreign input is reported once and blocks nothing
fn foreign_input_blocks_nothing() -> Result<(), FilterError> {
    let mut frame = Frame::<Vec<u8>>::new();
    frame.get_one_start(b"GET / HTTP\r\n\r\n3\0[1]")?;
    assert_eq!(
        drain(&mut frame),
        [Err(FilterError::OutOfStep { reason: "no block begins with \"G\"".into() }), Ok(vec![1])]
    );
    Ok(())
}

#[test]
fn depth_is_limited() -> Result<(), FilterError> {
    let mut frame = Frame::<serde_json::Value>::new();
    let mut wire = b"200000\0".to_vec();
    wire.resize(wire.len() + 200_000, b'[');
    let error = frame.get(&wire).expect_err("too deep").to_string();
    assert!(error.contains("recursion limit exceeded"), "{error}");
    assert!(frame.get(b"")?.is_empty());
    Ok(())
}

/// Serializes one half of itself.
struct Breaks;

impl Serialize for Breaks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&1)?;
        panic!("on purpose")
    }
}

#[test] // K-RW-42
fn a_value_that_panics_leaves_nothing() {
    let mut frame = Frame::<u8, Breaks>::new();
    let mut out = b"before".to_vec();
    let put = std::panic::AssertUnwindSafe(|| frame.put(&Breaks, &mut out));
    assert!(std::panic::catch_unwind(put).is_err());
    assert_eq!(out, b"before");
}
