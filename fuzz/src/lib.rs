//! What the fuzz targets assert, one function for each filter, and one for the header of the PROXY protocol.
//!
//! The same items (records and errors) come of an input however it is cut; a full buffer costs whole records, never makes false ones,
//! and never refuses a chunk twice; what was put comes out again; and nothing panics, of course.

use std::collections::VecDeque;
use std::fmt::Debug;

use lenore::filter::{
    Block, ByteLine, Chunks, Filter, FilterError, FixedBlock, Frame, Grep, Httpd, Line, Map, RecordBlock, Stackable,
    Stream,
};
use serde::{Deserialize, Serialize};

use header::{Found, LONGEST, find};

// The crate does not export it.
#[path = "../../src/component/proxy/header.rs"]
mod header;

type Items<F> = Vec<Result<<F as Filter>::Input, FilterError>>;

pub fn line(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let bytes = line_settings(&mut settings);
    let make = || bytes(usize::MAX);
    check_cuts(make, &cuts, input);
    let Ok(text) = str::from_utf8(input) else { return };
    check_put(&mut Line::new(), text.split(['\r', '\n']).map(|line| (line.to_owned(), line)));
}

pub fn byte_line(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let text = line_settings(&mut settings);
    check_cuts(|| text(usize::MAX).bytes(), &cuts, input);
    check_limit(|| text(16).bytes(), 16, 0, &cuts, input);
    let lines = input.split(|octet| b"\r\n".contains(octet));
    check_put(&mut ByteLine::new(), lines.map(|line| (line.to_vec(), line)));
}

pub fn http(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let (head, content) = (1 + 2 * usize::from(settings.next()), usize::from(settings.next()));
    // Whole requests: the pieces of a streamed one do show the cuts.
    check_cuts(|| Httpd::new().max_head(head).expect("not zero").max_content(content), &cuts, input);
    check_cuts(Httpd::new, &cuts, input);
}

pub fn block(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let longest = 1 + usize::from(settings.next());
    check_cuts(|| Block::new().max_length(longest).expect("not zero"), &cuts, input);
    let longest = 1 + longest % 8;
    let limit = longest + 21 + usize::from(settings.next() % 8);
    let make =
        || Block::new().max_length(longest).and_then(|block| block.max_buffer(limit)).expect("room for a header");
    check_limit(make, limit, 21, &cuts, input);
    check_put(&mut Block::new(), input.split(|octet| *octet == 255).map(|record| (record.to_vec(), record)));
}

pub fn fixed_block(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let size = 1 + usize::from(settings.next());
    let limit = size + usize::from(settings.next());
    check_cuts(|| FixedBlock::new(size).expect("not zero"), &cuts, input);
    let make = || FixedBlock::new(size).and_then(|block| block.max_buffer(limit)).expect("room for one");
    check_limit(make, limit, 0, &cuts, input);
    check_put(
        &mut FixedBlock::new(size).expect("not zero"),
        input.chunks_exact(size).map(|record| (record.to_vec(), record)),
    );
}

pub fn stream(data: &[u8]) {
    let (_, cuts, input) = split(data);
    let mut filter = Stream::new();
    let mut seen = Vec::new();
    for (place, chunk) in pieces(&cuts, input).enumerate() {
        filter.get_one_start(chunk).expect("no limit");
        if place % 3 < 2 {
            seen.extend(filter.get_one().expect("no error").unwrap_or_default());
        }
    }
    seen.extend_from_slice(filter.hand_over().expect("always"));
    assert_eq!(seen, input);
}

/// A value of every shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    N,
    I(i64),
    T(String),
    L(Vec<Value>),
    M { rows: std::collections::BTreeMap<String, Option<Value>> },
}

pub fn frame(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let longest = 1 + usize::from(settings.next());
    let make = || Frame::<Value>::new().max_length(longest).expect("not zero");
    let items = check_cuts(make, &cuts, input);
    let mut frame = Frame::<Value>::new();
    check_put(&mut frame, items.iter().flatten().map(|value| (value.clone(), value)));
    // The input as one payload: most of it would else end in the framing.
    let mut wire = Vec::new();
    Block::new().put(input, &mut wire).expect("any record");
    check_cuts(Frame::<Value>::new, &cuts, &wire);
}

pub fn stackable(data: &[u8]) {
    let (mut settings, cuts, input) = split(data);
    let size = 1 + usize::from(settings.next() % 4);
    let letters = || {
        let letters = |line: Vec<u8>| line.into_iter().map(|octet| vec![octet]).collect::<Vec<_>>();
        let few = move |line: Vec<u8>| match line.len() {
            6.. => Err(FilterError::RecordTooLong { limit: 5, length: line.len() }),
            _ => Ok(letters(line)),
        };
        Map::<Vec<u8>, Vec<u8>, [u8], [u8]>::try_new(few, |record: &[u8]| Ok(Some(record.to_vec())))
    };
    let grep = || Grep::<Vec<u8>, [u8]>::code(|record: &[u8]| record.first() != Some(&b'#'));
    let group = || RecordBlock::<Vec<u8>, [u8]>::new(size).expect("not zero");
    check_cuts(|| Stackable::new(ByteLine::new(), grep()).push(letters()).push(group()), &cuts, input);
    check_cuts(|| Stackable::new(Block::new(), Chunks(ByteLine::new())).push(grep()).push(group()), &cuts, input);
    check_cuts(|| Stackable::new(ByteLine::new(), Chunks(Block::new())).push(letters()), &cuts, input);
    check_cuts(|| Stackable::new(FixedBlock::new(size).expect("not zero"), Chunks(ByteLine::new())), &cuts, input);
    let mut stack = Stackable::new(Block::new(), Chunks(ByteLine::new())).push(grep());
    let lines = input.split(|octet| b"\r\n".contains(octet)).filter(|line| line.first() != Some(&b'#'));
    check_put(&mut stack, lines.map(|line| (line.to_vec(), line)));
    check_take_over(|| Stackable::new(ByteLine::new(), grep()).push(letters()), usize::from(settings.next()), input);
}

/// Each cut of the input is judged as the whole is, as soon as it has all that the judgement needs.
pub fn proxy(data: &[u8]) {
    let whole = find(data);
    let mut is_part = true;
    for cut in 0..=data.len() {
        let found = find(&data[..cut]);
        is_part &= found == Found::Part;
        assert!(
            found == if is_part { Found::Part } else { whole },
            "after {cut} octets: {found:?}, and {whole:?} in the end"
        );
        match found {
            Found::Part => assert!(cut < LONGEST, "it waits for more than it takes"),
            Found::Header { length, .. } => {
                assert!((1..=cut.min(LONGEST)).contains(&length), "{length} of {cut} octets")
            }
            Found::Wrong(_) => {}
        }
    }
}

/// The bytes that choose settings; zeros when there are no more.
struct Settings<'a>(std::slice::Iter<'a, u8>);

impl Settings<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }
}

/// Three bytes of settings, one that says how many sizes of chunks follow, these, and the input.
fn split(data: &[u8]) -> (Settings<'_>, Vec<usize>, &[u8]) {
    let (settings, rest) = data.split_at(data.len().min(3));
    let (count, rest) = rest.split_first().unwrap_or((&0, rest));
    let (sizes, input) = rest.split_at(rest.len().min(usize::from(*count % 8)));
    let mut sizes: Vec<usize> = sizes.iter().map(|size| 1 + usize::from(*size)).collect();
    if sizes.is_empty() {
        sizes.push(1);
    }
    (Settings(settings.iter()), sizes, input)
}

fn pieces<'a>(sizes: &'a [usize], mut input: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, rest) = input.split_at_checked(*sizes.next()?).unwrap_or((input, &[]));
        input = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// A maker of line filters that take lines up to a few bytes, and buffers of the given size.
fn line_settings(settings: &mut Settings<'_>) -> impl Fn(usize) -> Line {
    let (kind, longest) = (settings.next(), 1 + usize::from(settings.next()) % 16);
    move |limit| {
        let filter = match kind % 4 {
            0 => Line::new(),
            1 => Line::autodetect(),
            2 => Line::literal("aab").expect("not empty"),
            _ => Line::literal("\n").expect("not empty"),
        };
        filter.max_length(longest).and_then(|line| line.max_buffer(limit)).expect("room for a line")
    }
}

fn drain<F: Filter>(filter: &mut F, items: &mut Items<F>) {
    while let Some(item) = filter.get_one().transpose() {
        items.push(item);
    }
}

fn whole<F: Filter>(filter: &mut F, input: &[u8]) -> Items<F> {
    let mut items = Items::<F>::new();
    filter.get_one_start(input).expect("it fits");
    drain(filter, &mut items);
    items
}

/// The same items come, and the same input is left, however the input is cut. Returns the items.
fn check_cuts<F: Filter<Input: PartialEq + Debug>>(make: impl Fn() -> F, sizes: &[usize], input: &[u8]) -> Items<F> {
    let mut filter = make();
    let wanted = whole(&mut filter, input);
    let mut cut = filter.clone_config();
    assert!(cut.get_pending().is_empty());
    let mut items = Items::<F>::new();
    for piece in pieces(sizes, input) {
        cut.get_one_start(piece).expect("it fits");
        drain(&mut cut, &mut items);
    }
    assert_eq!(items, wanted);
    assert_eq!(cut.hand_over(), filter.hand_over());
    assert!(input.ends_with(filter.get_pending()));
    wanted
}

/// In a buffer of `limit` a chunk is refused at most once, and the items are some of those that a large buffer makes.
fn check_limit<F: Filter<Input: PartialEq + Debug>>(
    make: impl Fn() -> F,
    limit: usize,
    header: usize,
    sizes: &[usize],
    input: &[u8],
) {
    let mut filter = make();
    let mut items = Items::<F>::new();
    // With pieces no longer than what may be dropped of an over-long record's announcement at once.
    for piece in pieces(sizes, input).flat_map(|piece| piece.chunks(limit)) {
        if let Err(error) = filter.get_one_start(piece) {
            assert!(matches!(error, FilterError::BufferFull { .. }), "{error}");
            assert_eq!(filter.get_one(), Ok(None), "drained before");
            filter.get_one_start(piece).expect("taken at the second offer");
        }
        assert!(filter.get_pending().len() <= limit + header);
        drain(&mut filter, &mut items);
    }
    // The same with all limits but that of the buffer: a byte at a time always fits.
    let mut patient = make();
    let mut wanted = VecDeque::new();
    for octet in input {
        let mut now = Items::<F>::new();
        if patient.get_one_start(&[*octet]).is_err() {
            patient.get_one_start(&[*octet]).expect("taken at the second offer");
        }
        drain(&mut patient, &mut now);
        wanted.extend(now);
    }
    for item in items {
        while wanted.pop_front().expect("every item is one of those wanted") != item {}
    }
}

/// What is put comes out again.
fn check_put<'a, F>(filter: &mut F, records: impl Iterator<Item = (F::Input, &'a F::Output)>)
where
    F: Filter<Input: PartialEq + Debug, Output: 'a>,
{
    let (mut wire, mut wanted) = (Vec::new(), Vec::new());
    for (record, put) in records {
        filter.put(put, &mut wire).expect("any record");
        wanted.push(record);
    }
    assert_eq!(filter.get(&wire).expect("no error"), wanted);
}

/// After some records another filter can take over without a loss, or is refused.
fn check_take_over<F: Filter<Input: PartialEq + Debug>>(make: impl Fn() -> F, after: usize, input: &[u8]) {
    let wanted = whole(&mut make(), input);
    let mut old = make();
    old.get_one_start(input).expect("it fits");
    let mut items = Items::<F>::new();
    while items.len() < after
        && let Some(item) = old.get_one().transpose()
    {
        items.push(item);
    }
    match old.hand_over() {
        Ok(rest) => {
            items.extend(whole(&mut make(), rest));
            assert_eq!(items, wanted);
        }
        Err(error) => assert!(matches!(error, FilterError::CannotSwitch { held: 1.. }), "{error}"),
    }
}
