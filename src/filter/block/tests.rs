use super::*;

fn too_long(limit: usize, length: usize) -> FilterError {
    FilterError::RecordTooLong { limit, length }
}

fn out_of_step(reason: &str) -> FilterError {
    FilterError::out_of_step(reason.to_owned())
}

fn refused<F>(made: Result<F, FilterError>, wanted: &str) {
    assert_eq!(made.err().expect(wanted).to_string(), wanted);
}

/// Takes what there is, errors included, until the filter has no more.
fn drain<F: Filter>(filter: &mut F) -> Vec<Result<F::Input, FilterError>> {
    std::iter::from_fn(|| filter.get_one().transpose()).collect()
}

/// One byte for the length; the highest bit is never set.
#[derive(Clone)]
struct OneOctet;

impl LengthCodec for OneOctet {
    const MAX_HEADER: usize = 1;

    fn encode(&self, length: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.push(u8::try_from(length).ok().filter(|octet| *octet < 128).ok_or(too_long(127, length))?);
        Ok(())
    }

    fn decode(&self, input: &[u8]) -> Decoded {
        match *input {
            [] => Decoded::Incomplete,
            [octet, ..] if octet >= 128 => Decoded::Garbage { bytes: usize::from(octet - 128) },
            [octet, ..] => Decoded::Header { bytes: 1, length: octet.into() },
        }
    }
}

#[test] // K-FB-01: get cuts blocks of one size, put joins what it is given
fn blocks_of_one_size() -> Result<(), FilterError> {
    let mut filter = FixedBlock::new(3)?;
    assert_eq!(filter.get(b"abcdefg")?, [b"abc", b"def"]);
    assert_eq!(filter.get_pending(), b"g");
    assert!(filter.get(b"h")?.is_empty());
    assert_eq!(filter.clone_config().get(b"xyz")?, [b"xyz"], "K-FI-07: without the rest");
    assert_eq!(filter.get(b"i")?, [b"ghi"]);
    let mut out = Vec::new();
    for record in [&b"a"[..], b"", b"bcdef"] {
        filter.put(record, &mut out)?;
    }
    assert_eq!(out, b"abcdef");
    Ok(())
}

#[test] // K-FB-02: without BlockSize each block follows its length, in decimal and with a NUL
fn blocks_behind_their_length() -> Result<(), FilterError> {
    let mut filter = Block::new();
    let mut out = Vec::new();
    for record in [&b"abc"[..], b"", b"1\x002\0"] {
        filter.put(record, &mut out)?;
    }
    assert_eq!(out, b"3\0abc0\x004\x001\x002\0");
    assert_eq!(filter.get(&out)?, [&b"abc"[..], b"", b"1\x002\0"]);
    assert_eq!(filter.get(b"003\0abc12\0hello")?, [b"abc"], "leading zeros are read as POE reads them");
    assert!(filter.clone_config().get_pending().is_empty());
    Ok(())
}

#[test] // K-FB-03: a codec of one's own writes and reads the header
fn a_codec_of_ones_own() -> Result<(), FilterError> {
    let mut filter = Block::with_codec(OneOctet);
    let mut out = b"kept".to_vec();
    filter.put(b"abc", &mut out)?;
    assert_eq!(filter.put(&[0; 128], &mut out), Err(too_long(127, 128)));
    assert_eq!(out, b"kept\x03abc");
    filter.get_one_start(b"\x01a\x83\x00\x00\x01b")?;
    let garbage = out_of_step("no block begins with \"\\x83\"");
    assert_eq!(drain(&mut filter), [Ok(b"a".to_vec()), Err(garbage), Ok(vec![]), Ok(vec![]), Ok(b"b".to_vec())]);
    Ok(())
}

#[test] // K-FB-03: a codec that counts wrongly makes errors, not endless loops
fn a_codec_that_counts_wrongly_is_caught() -> Result<(), FilterError> {
    #[derive(Clone)]
    struct Wrong(Decoded);
    impl LengthCodec for Wrong {
        const MAX_HEADER: usize = 2;
        fn encode(&self, _: usize, _: &mut Vec<u8>) -> Result<(), FilterError> {
            Ok(())
        }
        fn decode(&self, _: &[u8]) -> Decoded {
            self.0
        }
    }
    let nothing = Decoded::Header { bytes: 0, length: 0 };
    let too_much = Decoded::Header { bytes: 3, length: 0 };
    for wrong in [nothing, too_much, Decoded::Incomplete, Decoded::Garbage { bytes: 0 }, Decoded::Garbage { bytes: 9 }]
    {
        let mut filter = Block::with_codec(Wrong(wrong));
        filter.get_one_start(b"abcd")?;
        assert!(matches!(drain(&mut filter)[..], [Err(FilterError::OutOfStep { .. })]), "{wrong:?}");
        assert!(filter.get_pending().is_empty());
    }
    Ok(())
}

#[test] // K-FB-04: a size of zero is refused; what else excludes what is settled by types
fn a_size_of_zero_is_refused() {
    refused(FixedBlock::new(0), "invalid block_size: must not be zero");
    assert!(FixedBlock::new(1).is_ok());
}

#[test] // K-FB-05, K-FI-09: the limits, their defaults, and that the buffer has room for the header too
fn limits_are_checked() -> Result<(), FilterError> {
    let limits = Block::new().limits();
    assert_eq!((limits.length, limits.buffer), (67_108_864, 536_870_912));
    refused(Block::new().max_length(0), "invalid max_length: must not be zero");
    refused(Block::new().max_buffer(0), "invalid max_buffer: must not be zero");
    let small = || Block::new().max_length(4)?.max_buffer(25);
    refused(small()?.max_length(5), "invalid max_length: must not be more than max_buffer");
    refused(small()?.max_buffer(24), "invalid max_buffer: must not be less than max_length");
    refused(FixedBlock::new(3)?.max_buffer(2), "invalid max_buffer: must not be less than a block");
    refused(FixedBlock::new(3)?.max_buffer(0), "invalid max_buffer: must not be zero");
    assert!(FixedBlock::new(usize::MAX).is_ok());
    Ok(())
}

#[test] // K-FB-06: header, NUL and body arrive in any fragments
fn blocks_arrive_an_octet_at_a_time() -> Result<(), FilterError> {
    let mut filter = Block::new();
    let mut seen = Vec::new();
    for octet in b"11\0hello world0\x001\0x" {
        seen.extend(filter.get(&[*octet])?);
    }
    assert_eq!(seen, [&b"hello world"[..], b"", b"x"]);
    Ok(())
}

#[test] // K-FB-07 as K-RE-29 wants it: garbage is reported once, and hides nothing
fn garbage_is_reported_once_and_hides_nothing() -> Result<(), FilterError> {
    let mut filter = Block::new();
    filter.get_one_start(b"1\0axyz2\0bcz")?;
    let garbage = |text: &str| Err(out_of_step(&format!("no block begins with \"{text}\"")));
    assert_eq!(drain(&mut filter), [Ok(b"a".to_vec()), garbage("x"), Ok(b"bc".to_vec()), garbage("z")]);
    filter.get_one_start(b"zz\0\xff")?;
    assert_eq!(drain(&mut filter), [], "enough was said of it");
    filter.get_one_start(b"1\0d12x3\0efg")?;
    assert_eq!(drain(&mut filter), [Ok(b"d".to_vec()), garbage("12x"), Ok(b"efg".to_vec())]);
    Ok(())
}

#[test] // K-FB-07: a number that no length can be is garbage, and is not waited for
fn a_length_beyond_all_numbers_is_garbage() -> Result<(), FilterError> {
    let mut filter = Block::new();
    filter.get_one_start(b"18446744073709551616")?;
    assert_eq!(drain(&mut filter), [Err(out_of_step("no block begins with \"18446744073709551616\""))]);
    let zeros = [b'0'; 21];
    filter.get_one_start(b"0\0")?;
    filter.get_one_start(&zeros)?;
    let garbage = out_of_step("no block begins with \"000000000000000000000\"");
    assert_eq!(drain(&mut filter), [Ok(vec![]), Err(garbage)]);
    Ok(())
}

#[test] // K-FB-08 as K-RE-29 wants it, K-FI-11: a block over the limit is reported once, and never delivered
fn an_oversized_block_is_reported_once_and_dropped() -> Result<(), FilterError> {
    let mut filter = Block::new().max_length(3)?;
    filter.get_one_start(b"3\0abc4\0de")?;
    assert_eq!(drain(&mut filter), [Ok(b"abc".to_vec()), Err(too_long(3, 4))], "as soon as it is announced");
    assert_eq!(filter.get_pending(), b"", "what is given up is not pending");
    assert_eq!(filter.get(b"f")?, [b""; 0]);
    assert!(!filter.is_between_records(), "the rest of it is still to come");
    assert_eq!(filter.get(b"g1\0h")?, [b"h"]);
    assert!(filter.is_between_records());
    filter.get_one_start(b"18446744073709551615\0")?;
    assert_eq!(drain(&mut filter), [Err(too_long(3, usize::MAX))]);
    assert!(filter.get(b"1\0h")?.is_empty());
    Ok(())
}

#[test] // K-FB-09 as K-RE-29 wants it, K-FI-06: the header is pending until its block is complete
fn pending_input_has_its_header() -> Result<(), FilterError> {
    let mut filter = Block::new();
    assert_eq!(filter.get(b"1\0a5\0bcd")?, [b"a"]);
    assert_eq!(filter.get_pending(), b"5\0bcd");
    let mut other = Block::new();
    assert!(other.get(filter.hand_over()?)?.is_empty());
    assert_eq!(other.get(b"ef")?, [b"bcdef"]);
    Ok(())
}

#[test] // K-RE-28, K-FI-11: a block that the buffer cannot hold is reported once and given up, the next begins where it should
fn a_block_too_long_for_the_buffer_is_given_up() -> Result<(), FilterError> {
    let mut filter = Block::new().max_length(4)?.max_buffer(25)?;
    assert!(filter.get(b"4\0abc")?.is_empty());
    let chunk = b"d1\0e1\0f1\0g1\0h1\0i1\0j1\0k";
    assert_eq!(filter.get_one_start(chunk), Err(FilterError::BufferFull { limit: 25, needed: 27 }));
    assert_eq!(filter.get_pending(), b"");
    assert_eq!(filter.get(chunk)?.concat(), b"efghijk");

    let mut filter = FixedBlock::new(4)?.max_buffer(6)?;
    assert!(filter.get(b"abc")?.is_empty());
    assert_eq!(filter.get_one_start(b"defgh"), Err(FilterError::BufferFull { limit: 6, needed: 8 }));
    assert_eq!((filter.get_pending(), filter.is_between_records()), (&b""[..], false));
    assert_eq!(filter.get(b"defgh")?, [b"efgh"]);
    assert!(filter.is_between_records());
    Ok(())
}

#[test] // K-RE-28: a refused chunk costs no complete block, and none of the chunk is taken
fn a_full_buffer_keeps_complete_blocks() -> Result<(), FilterError> {
    let mut filter = Block::new().max_length(4)?.max_buffer(25)?;
    let input = b"4\0abcd4\0efgh4\0ijkl4\0mn";
    filter.get_one_start(input)?;
    assert!(filter.get_one_start(b"op1\0").is_err());
    assert_eq!(filter.get_pending(), input);
    assert_eq!(filter.get(b"")?.concat(), b"abcdefghijkl");
    assert_eq!(filter.get(b"op1\0")?, [b"mnop"]);

    let mut filter = FixedBlock::new(4)?.max_buffer(6)?;
    filter.get_one_start(b"abcde")?;
    assert!(filter.get_one_start(b"fg").is_err());
    assert_eq!(filter.get(b"")?, [b"abcd"]);
    assert_eq!(filter.get(b"fg")?, [b""; 0]);
    assert_eq!(filter.get(b"h")?, [b"efgh"]);
    Ok(())
}

#[test] // K-RE-28: part of a header is kept, whatever comes behind it; a chunk that can never fit is refused for ever
fn part_of_a_header_is_kept() -> Result<(), FilterError> {
    let mut filter = Block::new().max_length(4)?.max_buffer(25)?;
    assert!(filter.get(b"00000000004")?.is_empty());
    assert_eq!(filter.get(b"\0abcd4\0efgh4\0ijkl4\0mnop")?.concat(), b"abcdefghijklmnop");
    for _ in 0..2 {
        assert_eq!(filter.get_one_start(&[b'1'; 26]), Err(FilterError::BufferFull { limit: 25, needed: 26 }));
    }
    assert_eq!(filter.get(b"1\0q")?, [b"q"]);
    Ok(())
}

#[test] // the hot path: a burst's memory is given back
fn memory_is_given_back() -> Result<(), FilterError> {
    let (mut block, mut fixed) = (Block::new(), FixedBlock::new(1 << 20)?);
    let mut out = Vec::new();
    block.put(&vec![0; 1 << 20], &mut out)?;
    assert_eq!(block.get(&out)?.len(), 1);
    assert_eq!(fixed.get(&out[out.len() - (1 << 20)..])?.len(), 1);
    assert_eq!((block.input.capacity(), fixed.capacity()), (0, 0));
    Ok(())
}

/// Writes half a header.
#[derive(Clone)]
struct Breaks;

impl LengthCodec for Breaks {
    const MAX_HEADER: usize = 2;

    fn encode(&self, length: usize, out: &mut Vec<u8>) -> Result<(), FilterError> {
        out.push(b'#');
        if length > 1 { panic!("on purpose") } else { Err(FilterError::RecordTooLong { limit: 0, length }) }
    }

    fn decode(&self, _: &[u8]) -> Decoded {
        Decoded::Incomplete
    }
}

#[test] // K-RW-42, K-FI-05
fn a_header_that_fails_or_panics_leaves_nothing() {
    let mut block = Block::with_codec(Breaks);
    let mut out = b"before".to_vec();
    assert!(block.put(b"x", &mut out).is_err());
    let put = std::panic::AssertUnwindSafe(|| block.put(b"xy", &mut out));
    assert!(std::panic::catch_unwind(put).is_err());
    assert_eq!(out, b"before");
}
