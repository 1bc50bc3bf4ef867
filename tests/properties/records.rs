//! `Stream`, the filters of records, and `Stackable`: cuts don't show, and nothing is lost.

use lenore::filter::{
    Block, ByteLine, Chunks, Filter, FilterError, Grep, Line, Map, RecordBlock, RecordFilter, Stackable, Stream,
};
use proptest::prelude::*;

fn no_comments() -> Grep<String, str> {
    Grep::code(|line: &str| !line.starts_with('#'))
}

fn words() -> Map<String, String, str, str> {
    Map::new(
        |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        |word: &str| [format!("<{word}>")],
    )
}

/// What a list comes to on its way out.
fn sent(filter: &mut RecordBlock<u8>, list: &[u8]) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut send = |record: &u8| {
        sent.push(*record);
        Ok(())
    };
    filter.put(list, &mut send).expect("nothing is refused");
    sent
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // K-FS-01: nothing is added, dropped or reordered, whenever records are taken
    fn what_goes_in_comes_out(chunks: Vec<(Vec<u8>, bool)>) {
        let mut stream = Stream::new();
        let mut seen = Vec::new();
        for (chunk, take) in &chunks {
            stream.get_one_start(chunk)?;
            if *take {
                seen.extend(stream.get_one()?.unwrap_or_default());
            }
        }
        seen.extend_from_slice(stream.get_pending());
        prop_assert_eq!(seen, chunks.into_iter().flat_map(|(chunk, _)| chunk).collect::<Vec<_>>());
    }

    #[test] // K-FG-02, K-FK-03: the same records pass, however the input is cut
    fn grep_passes_the_same_records_however_the_input_is_cut(input in "[ab\n]{0,24}") {
        let wanted = Line::new().get(input.as_bytes())?.into_iter().filter(|line| line.contains('a'));
        let wanted: Vec<String> = wanted.collect();
        for cut in 0..=input.len() {
            let mut filter = Stackable::new(Line::new(), Grep::code(|line: &str| line.contains('a')));
            let mut records = filter.get(&input.as_bytes()[..cut])?;
            records.extend(filter.get(&input.as_bytes()[cut..])?);
            prop_assert_eq!(&records, &wanted);
        }
    }

    #[test] // K-FG-03, K-FK-03: the same values come, however the input is cut
    fn map_gives_the_same_values_however_the_input_is_cut(input in "[ab \n]{0,24}") {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let wanted = Line::new().get(input.as_bytes())?;
        let wanted: Vec<String> = wanted.iter().flat_map(|line| words(line)).collect();
        for cut in 0..=input.len() {
            let mut filter = Stackable::new(Line::new(), Map::code(words));
            let mut records = filter.get(&input.as_bytes()[..cut])?;
            records.extend(filter.get(&input.as_bytes()[cut..])?);
            prop_assert_eq!(&records, &wanted);
        }
    }

    #[test] // K-FR-01, K-FK-03: the same groups come, however the input is cut
    fn record_block_makes_the_same_groups_however_the_input_is_cut(input in "[ab\n]{0,24}", size in 1_usize..4) {
        let lines = Line::new().get(input.as_bytes())?;
        let wanted: Vec<&[String]> = lines.chunks_exact(size).collect();
        for cut in 0..=input.len() {
            let mut filter = Stackable::new(Line::new(), RecordBlock::new(size)?);
            let mut records = filter.get(&input.as_bytes()[..cut])?;
            records.extend(filter.get(&input.as_bytes()[cut..])?);
            prop_assert_eq!(&records, &wanted);
            prop_assert_eq!(filter.last().get_pending(), lines.chunks_exact(size).remainder());
        }
    }

    #[test] // K-FR-03: nothing is lost or reordered, and what goes out at a time is a multiple
    fn put_loses_nothing(lists: Vec<Vec<u8>>, size in 1_usize..5) {
        let mut filter = RecordBlock::new(size)?.check_put();
        let mut seen = Vec::new();
        for list in &lists {
            let now = sent(&mut filter, list);
            prop_assert!(now.len().is_multiple_of(size));
            seen.extend(now);
        }
        seen.extend(filter.put_pending());
        prop_assert_eq!(seen, lists.concat());
    }

    #[test] // K-FK-01, K-FK-03: what was put comes out again, however it is cut
    fn what_was_put_comes_out(records in prop::collection::vec("[a-z]{0,4}", 0..6), cut in 0_usize..60) {
        let mut stack = Stackable::new(Stream::new(), Chunks(Block::new())).push(Chunks(ByteLine::new()));
        let mut out = Vec::new();
        for record in &records {
            stack.put(record.as_bytes(), &mut out)?;
        }
        let (one, other) = out.split_at(cut.min(out.len()));
        let mut seen = stack.get(one)?;
        seen.extend(stack.get(other)?);
        prop_assert_eq!(seen, records.iter().map(|record| record.as_bytes()).collect::<Vec<_>>());
        prop_assert_eq!(stack.hand_over(), Ok(&b""[..]));
    }

    #[test] // K-RE-31: at every record the two filters together have all of the input, or the first says that it hasn't
    fn another_filter_can_take_over_or_is_refused(input in "[ab #\n]{0,24}", switch in 0_usize..4) {
        let make = || Stackable::new(Line::new(), no_comments()).push(words());
        let wanted = make().get(input.as_bytes())?;
        let mut old = make();
        old.get_one_start(input.as_bytes())?;
        let mut seen = Vec::new();
        while seen.len() < switch && let Some(record) = old.get_one()? {
            seen.push(record);
        }
        match old.hand_over() {
            Ok(rest) => {
                seen.extend(make().get(rest)?);
                prop_assert_eq!(seen, wanted);
            }
            Err(FilterError::CannotSwitch { held }) => {
                let rest = make().get(old.get_pending())?;
                prop_assert_eq!(seen.len() + held + rest.len(), wanted.len());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
