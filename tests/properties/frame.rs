//! `Frame`: values cut anywhere, and input that is none.

use std::collections::BTreeMap;

use lenore::filter::{Filter, Frame};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::drain;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Value {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Value>),
    Table { rows: BTreeMap<String, Value> },
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nothing),
        any::<i64>().prop_map(Value::Number),
        ".{0,6}".prop_map(Value::Text), // NULs, digits and quotes among it
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let table = prop::collection::btree_map("[a-z\0]{0,3}", inner.clone(), 0..3);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::List),
            table.prop_map(|rows| Value::Table { rows }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // K-FF-01, K-FB-06: what was put comes out again, cut anywhere
    fn values_survive_every_cut(values in prop::collection::vec(value(), 0..4)) {
        let mut frame = Frame::<Value>::new();
        let mut wire = Vec::new();
        for value in &values {
            frame.put(value, &mut wire)?;
        }
        for cut in 0..=wire.len() {
            let mut seen = frame.get(&wire[..cut])?;
            seen.extend(frame.get(&wire[cut..])?);
            prop_assert_eq!(&seen, &values);
        }
    }

    #[test] // K-FF-04, K-FF-06: whatever comes, the same comes of it however it is cut
    fn foreign_input_is_cut_anywhere(input in "[0-9\0\\[\\]{}\",a]{0,40}") {
        let whole = {
            let mut frame = Frame::<Vec<u8>>::new().max_length(9)?;
            frame.get_one_start(input.as_bytes())?;
            drain(&mut frame)
        };
        for cut in 0..=input.len() {
            let mut frame = Frame::<Vec<u8>>::new().max_length(9)?;
            frame.get_one_start(&input.as_bytes()[..cut])?;
            let mut items = drain(&mut frame);
            frame.get_one_start(&input.as_bytes()[cut..])?;
            items.extend(drain(&mut frame));
            prop_assert_eq!(&items, &whole);
        }
    }
}
