//! The filter against a naive model that has the whole input before it.

use lenore::filter::{ByteLine, Filter, FilterError, Line};
use proptest::prelude::*;
use proptest::sample::select;

use super::drain;

/// Records and errors in the order the filter reports them.
type Items = Vec<Result<Vec<u8>, FilterError>>;

fn too_long(limit: usize, length: usize) -> FilterError {
    FilterError::RecordTooLong { limit, length }
}

/// What the filter should make of `input`, worked out byte by byte on the whole of it.
fn model(literal: Option<&[u8]>, detect: bool, limit: usize, input: &[u8]) -> (Items, Vec<u8>) {
    let mut literal = literal.map(<[u8]>::to_vec);
    let (mut items, mut line, mut rest) = (Items::new(), Vec::new(), input);
    while let Some(&octet) = rest.first() {
        let newlines = [&b"\r\n"[..], b"\n\r", b"\r", b"\n"].map(<[u8]>::to_vec);
        let terminators = literal.as_ref().map_or(newlines.to_vec(), |one| vec![one.clone()]);
        let Some(end) = terminators.iter().find(|end| rest.starts_with(end)) else {
            line.push(octet);
            rest = &rest[1..];
            continue;
        };
        let length = line.len();
        let record = std::mem::take(&mut line);
        items.push(if length > limit { Err(too_long(limit, length)) } else { Ok(record) });
        rest = &rest[end.len()..];
        if detect {
            literal = Some(end.clone());
        }
    }
    (items, line)
}

/// The three ways to find terminators, each with what the model needs to know of it.
fn framings() -> impl Strategy<Value = Option<&'static [u8]>> {
    select(vec![None, Some(&b""[..]), Some(b"\r\n"), Some(b"\n"), Some(b"aa"), Some(b"aba"), Some(b"\n\r\n")])
}

fn filter_for(framing: Option<&[u8]>) -> Line {
    framing.map_or(Line::new(), |literal| Line::new().input_literal(literal))
}

fn model_for(framing: Option<&[u8]>, limit: usize, input: &[u8]) -> (Items, Vec<u8>) {
    let detect = framing == Some(b"");
    model(framing.filter(|_| !detect), detect, limit, input)
}

fn input() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(select(b"\r\nab".to_vec()), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // K-RE-27, K-FL-02, K-FL-05, K-FL-06, K-FL-08, K-FL-11: chunks do not show in the records
    fn records_are_the_same_however_the_input_is_cut(framing in framings(), input in input(), limit in 1_usize..6) {
        let (wanted, rest) = model_for(framing, limit, &input);
        let mut cuts: Vec<Vec<&[u8]>> =
            (0..=input.len()).map(|cut| vec![&input[..cut], &input[cut..]]).collect();
        cuts.extend((1..4).map(|size| input.chunks(size).collect()));
        for chunks in cuts {
            let mut filter = filter_for(framing).max_length(limit)?.bytes();
            let mut items = Items::new();
            for chunk in &chunks {
                filter.get_one_start(chunk)?;
                items.extend(drain(&mut filter));
            }
            prop_assert_eq!(&items, &wanted, "{:?}", &chunks);
            prop_assert_eq!(filter.get_pending(), &rest, "{:?}", &chunks);
        }
    }

    #[test] // K-FI-06, K-FI-08: at any moment, what was delivered and what is pending is all there is
    fn another_filter_can_take_over_at_any_record(chunks in prop::collection::vec((input(), 0_usize..4), 0..8)) {
        let whole: Vec<u8> = chunks.iter().flat_map(|(chunk, _)| chunk.clone()).collect();
        let mut filter = ByteLine::new();
        let (mut items, mut fed) = (Items::new(), Vec::new());
        for (chunk, takes) in &chunks {
            filter.get_one_start(chunk)?;
            fed.extend_from_slice(chunk);
            for _ in 0..*takes {
                items.extend(filter.get_one().transpose());
            }
            let mut both = items.clone();
            let (more, rest) = model_for(None, usize::MAX, filter.get_pending());
            both.extend(more);
            prop_assert_eq!((both, rest), model_for(None, usize::MAX, &fed));
        }
        items.extend(drain(&mut filter));
        prop_assert_eq!(items, model_for(None, usize::MAX, &whole).0);
    }

    #[test] // K-RE-28: after a full buffer only whole records are missing, and the second offer is accepted
    fn a_full_buffer_never_makes_a_false_record(framing in framings(), input in input(), sizes in prop::collection::vec(1_usize..6, 40)) {
        let limit = 6;
        let mut filter = filter_for(framing).max_length(limit)?.max_buffer(limit)?.bytes();
        let (mut items, mut rest, mut given_up) = (Items::new(), &input[..], 0);
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            if filter.get_one_start(chunk).is_err() {
                given_up += 1;
                prop_assert_eq!(filter.get_one(), Ok(None), "drained before");
                prop_assert_eq!(filter.get_one_start(chunk), Ok(()));
            }
            items.extend(drain(&mut filter));
        }
        let mut wanted = model_for(framing, limit, &input).0.into_iter();
        let total = wanted.len();
        prop_assert!(items.iter().all(|item| wanted.any(|record| record == *item)));
        prop_assert!(total - items.len() <= given_up);
    }

    #[test]
    fn text_and_bytes_differ_in_nothing_but_the_type(octets: Vec<u8>) {
        let mut bytes = ByteLine::new();
        let mut text = Line::new();
        bytes.get_one_start(&octets)?;
        text.get_one_start(&octets)?;
        while let Some(record) = bytes.get_one()? {
            match text.get_one() {
                Ok(line) => prop_assert_eq!(line.map(String::into_bytes), Some(record)),
                Err(FilterError::NotUtf8 { record: line, .. }) => prop_assert_eq!(line, record),
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        prop_assert_eq!(text.get_one(), Ok(None));
        prop_assert_eq!(text.get_pending(), bytes.get_pending());
    }
}
