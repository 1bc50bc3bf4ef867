//! The filters against naive models that have the whole input before them.

use lenore::filter::{Block, Filter, FilterError, FixedBlock};
use proptest::prelude::*;
use proptest::sample::select;

use super::drain;

type Items = Vec<Result<Vec<u8>, FilterError>>;

/// What the filter should make of `input`, and what should be pending then.
fn model(limit: usize, input: &[u8]) -> (Items, &[u8]) {
    let (mut items, mut rest, mut in_garbage) = (Items::new(), input, false);
    loop {
        let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
        if digits > 0 && rest.get(digits) == Some(&0) {
            let length: usize = str::from_utf8(&rest[..digits]).expect("digits").parse().expect("a short number");
            let body = &rest[digits + 1..];
            in_garbage = false;
            if length > limit {
                items.push(Err(FilterError::RecordTooLong { limit, length }));
                rest = body.get(length..).unwrap_or_default();
            } else if let Some(block) = body.get(..length) {
                items.push(Ok(block.to_vec()));
                rest = &body[length..];
            } else {
                return (items, rest);
            }
        } else if digits < rest.len() {
            if !in_garbage {
                let reason = format!("no block begins with \"{}\"", rest[..=digits].escape_ascii());
                items.push(Err(FilterError::out_of_step(reason)));
            }
            in_garbage = true;
            rest = &rest[digits + 1..];
        } else {
            return (items, rest);
        }
    }
}

/// Bytes of which headers are made, and few others, so that all kinds of accidents happen.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let whole = select(vec![&b"0\0"[..], b"1\0a", b"3\0abc", b"5\0a\x001\0b", b"9\0", b"x", b"12", b"\0"]);
    let octet = select(b"0012\0\0ax".to_vec()).prop_map(|octet| vec![octet]);
    let piece = prop_oneof![3 => whole.prop_map(<[u8]>::to_vec), 1 => octet];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Feeds `input` in pieces of `sizes`, in turn.
fn feed<F: Filter<Input = Vec<u8>>>(filter: &mut F, mut input: &[u8], sizes: &[usize]) -> Items {
    let mut items = Items::new();
    for size in sizes.iter().cycle() {
        let (chunk, rest) = input.split_at((*size).min(input.len()));
        filter.get_one_start(chunk).expect("it fits");
        items.extend(drain(filter));
        input = rest;
        if input.is_empty() {
            break;
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test] // K-FB-06, K-FB-07, K-FB-08, K-FB-09
    fn blocks_are_the_same_however_the_input_is_cut(input in input(), sizes in prop::collection::vec(1_usize..6, 1..8)) {
        let (items, pending) = model(4, &input);
        let make = || Block::new().max_length(4);
        let mut filter = make()?;
        prop_assert_eq!(feed(&mut filter, &input, &sizes), &items[..]);
        prop_assert_eq!(filter.get_pending(), pending);
        for cut in 1..input.len() {
            let mut filter = make()?;
            prop_assert_eq!(feed(&mut filter, &input, &[cut, input.len()]), &items[..]);
            prop_assert_eq!(filter.get_pending(), pending);
        }
    }

    #[test] // K-RE-28: after a full buffer only whole blocks are missing, and the second offer is accepted
    fn a_full_buffer_never_makes_a_false_block(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..20),
        sizes in prop::collection::vec(1_usize..26, 40),
    ) {
        let mut filter = Block::new().max_length(4)?.max_buffer(25)?;
        let mut input = Vec::new();
        for block in &blocks {
            filter.put(block, &mut input)?;
        }
        let (mut seen, mut rest, mut given_up) = (Items::new(), &input[..], 0);
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            if filter.get_one_start(chunk).is_err() {
                given_up += 1;
                prop_assert_eq!(filter.get_one(), Ok(None), "drained before");
                prop_assert_eq!(filter.get_one_start(chunk), Ok(()));
            }
            seen.extend(drain(&mut filter));
        }
        let mut wanted = blocks.iter();
        prop_assert!(seen.iter().all(|item| wanted.any(|block| item.as_ref() == Ok(block))));
        prop_assert_eq!(blocks.len() - seen.len(), given_up);
    }

    #[test] // K-FB-01
    fn fixed_blocks_are_the_same_however_the_input_is_cut(
        input in prop::collection::vec(any::<u8>(), 0..40),
        size in 1_usize..7,
        sizes in prop::collection::vec(1_usize..9, 1..8),
    ) {
        let wanted: Items = input.chunks_exact(size).map(|block| Ok(block.to_vec())).collect();
        let mut filter = FixedBlock::new(size)?;
        prop_assert_eq!(feed(&mut filter, &input, &sizes), &wanted[..]);
        prop_assert_eq!(filter.get_pending(), input.chunks_exact(size).remainder());
        for cut in 1..input.len() {
            prop_assert_eq!(feed(&mut FixedBlock::new(size)?, &input, &[cut, input.len()]), &wanted[..]);
        }
    }

    #[test] // K-RE-28: blocks of one size stay where they begin, whatever is given up
    fn a_full_buffer_moves_no_fixed_block(
        input in prop::collection::vec(any::<u8>(), 0..80),
        size in 1_usize..7,
        sizes in prop::collection::vec(1_usize..8, 80),
    ) {
        let mut filter = FixedBlock::new(size)?.max_buffer(7)?;
        let (mut seen, mut rest) = (Items::new(), &input[..]);
        for size in sizes {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            if filter.get_one_start(chunk).is_err() {
                prop_assert_eq!(filter.get_one_start(chunk), Ok(()));
            }
            seen.extend(drain(&mut filter));
        }
        let mut wanted = input.chunks_exact(size);
        prop_assert!(seen.iter().all(|item| wanted.any(|block| item.as_deref() == Ok(block))));
    }
}
