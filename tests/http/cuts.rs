//! The filter against a naive model, with the input cut wherever a network could cut it.

use lenore::filter::http::{Httpd, Incoming};
use lenore::filter::{Filter, FilterError};
use proptest::prelude::*;
use proptest::sample::select;

/// All records of `chunks`, and what is pending in the end.
fn feed<'a>(
    mut httpd: Httpd,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<(Vec<Incoming>, Vec<u8>), FilterError> {
    let mut records = Vec::new();
    for chunk in chunks {
        records.extend(httpd.get(chunk)?);
    }
    Ok((records, httpd.get_pending().to_vec()))
}

/// Joins what cuts keep apart.
fn joined(records: Vec<Incoming>) -> Vec<Incoming> {
    let mut joined = Vec::new();
    for record in records {
        match (joined.last_mut(), record) {
            (Some(Incoming::Piece(before)), Incoming::Piece(piece)) => {
                assert!(!piece.is_empty());
                before.extend(piece);
            }
            (_, record) => joined.push(record),
        }
    }
    joined
}

/// Every way of cutting `input` in two, and in pieces of one size.
fn cuts(input: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let in_two = (0..=input.len()).map(|cut| vec![&input[..cut], &input[cut..]]);
    in_two.chain((1..8).map(|size| input.chunks(size).collect()))
}

fn check_cuts(httpd: &Httpd, input: &[u8]) -> Result<(), TestCaseError> {
    let (wanted, pending) = feed(httpd.clone_config(), [input])?;
    let wanted = joined(wanted);
    for chunks in cuts(input) {
        let (records, rest) = feed(httpd.clone_config(), chunks.iter().copied())?;
        prop_assert_eq!(joined(records), wanted.clone(), "{:?}", chunks);
        prop_assert_eq!(&rest, &pending, "{:?}", chunks);
    }
    Ok(())
}

/// A filter with small limits, so that they are met.
fn httpd(streaming: bool) -> Result<Httpd, FilterError> {
    let httpd = Httpd::new().max_head(150)?.max_content(20);
    Ok(if streaming { httpd.streaming() } else { httpd })
}

#[test] // K-RE-32: where the network cuts does not show, in good requests and in bad ones
fn no_request_depends_on_where_it_was_cut() -> Result<(), TestCaseError> {
    let good = b"\r\nPOST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n\
                 3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: u\r\n\r\nGET /2 HTTP/1.1\nHost: a\n\n\
                 PUT /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nwxyz\r\nGET /4 HTTP/1.0\r\n\r\nignored";
    for streaming in [false, true] {
        let httpd = httpd(streaming)?;
        check_cuts(&httpd, good)?;
        let (records, _) = feed(httpd.clone_config(), [&good[..]])?;
        let count = records.iter().filter(|record| matches!(record, Incoming::Request(_))).count();
        prop_assert_eq!(count, 4, "{:?}", records);
        for bad in [
            &b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nA b\r\nC: d\0\r\n\r\n",
            b"GET / HTTP/3.0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\n012345678901234567890",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n1\r\n0\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\nC d\r\n\r\n",
        ] {
            check_cuts(&httpd, bad)?;
        }
        for length in [140, 149, 150, 151, 300] {
            for head in ["GET /", "GET / HTTP/1.0\r\nA: ", "GET / HTTP/1.0\r\nA: \r\n\r\nGET / HTTP/1.0\r\nB:"] {
                check_cuts(&httpd, format!("{head:x<length$}\r\n\r\n").as_bytes())?;
            }
        }
    }
    Ok(())
}

/// A request, what it looks like on the wire, and what of it a session should see.
#[derive(Clone, Debug)]
struct Sent {
    octets: Vec<u8>,
    method: String,
    target: String,
    body: Vec<u8>,
    trailers: usize,
}

fn sent() -> impl Strategy<Value = Sent> {
    let words = ("[A-Z]{1,7}", "/[a-z0-9/.?&=%]{0,8}", "[a-z ]{0,9}");
    let body = prop::option::of((prop::collection::vec(any::<u8>(), 0..20), prop::option::of(1_usize..7)));
    let newlines = (select(vec!["", "\r\n", "\n"]), select(vec!["\r\n", "\n"]));
    (words, body, newlines, 0_usize..2).prop_map(|((method, target, value), body, (empty, newline), trailers)| {
        let mut head = format!("{empty}{method} {target} HTTP/1.1{newline}Host: a{newline}V: {value}{newline}");
        let (body, chunk) = body.unwrap_or_default();
        let mut coded = Vec::new();
        match chunk {
            _ if body.is_empty() && chunk.is_none() => {}
            None => {
                head += &format!("Content-Length: {}{newline}", body.len());
                coded.clone_from(&body);
            }
            Some(size) => {
                head += &format!("transfer-encoding:chunked{newline}");
                for piece in body.chunks(size) {
                    coded.extend(format!("{:X}{}\r\n", piece.len(), if size == 3 { ";e=f" } else { "" }).bytes());
                    coded.extend_from_slice(piece);
                    coded.extend(b"\r\n");
                }
                coded.extend(b"0\r\n");
                coded.extend("T: u\r\n".repeat(trailers).bytes());
                coded.extend(b"\r\n");
            }
        }
        let octets = [head.as_bytes(), newline.as_bytes(), &coded].concat();
        // What leading slashes become.
        let target = format!("/{}", target.trim_start_matches('/'));
        Sent { octets, method, target, body, trailers: if chunk.is_some() { trailers } else { 0 } }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test] // K-FH-08, K-FH-11 to K-FH-14, K-RE-32: pipelined requests come out as they went in, however they are cut
    fn what_was_sent_is_what_comes(all in prop::collection::vec(sent(), 0..4), more in 1_usize..30) {
        let input: Vec<u8> = all.iter().flat_map(|sent| sent.octets.clone()).collect();
        let mut chunkings: Vec<Vec<&[u8]>> = cuts(&input).collect();
        chunkings.push(input.chunks(more).collect());
        for chunks in chunkings {
            let (records, pending) = feed(Httpd::new(), chunks.iter().copied())?;
            prop_assert_eq!(records.len(), all.len(), "{:?}", &records);
            prop_assert!(pending.is_empty());
            for (record, sent) in records.iter().zip(&all) {
                let Incoming::Request(request) = record else { panic!("{record:?}") };
                prop_assert_eq!((request.method(), request.target()), (&*sent.method, &*sent.target));
                prop_assert_eq!((request.body(), request.trailers().len()), (&*sent.body, sent.trailers));
                prop_assert_eq!(request.header("host"), Some("a"));
            }
            let (records, _) = feed(Httpd::new().streaming(), chunks.iter().copied())?;
            let wanted = all.iter().map(|sent| 2 + usize::from(!sent.body.is_empty())).sum::<usize>();
            prop_assert_eq!(joined(records).len(), wanted);
        }
    }

    #[test] // K-RE-28, K-RE-32: neither does anything else depend on the cuts, and nothing comes after a refusal
    fn no_input_depends_on_where_it_was_cut(words in prop::collection::vec(select(WORDS.to_vec()), 0..14), streaming: bool) {
        let input: Vec<u8> = words.concat().into_bytes();
        check_cuts(&httpd(streaming)?, &input)?;
        let (records, _) = feed(httpd(streaming)?, [&input[..]])?;
        let refused = records.iter().position(|record| matches!(record, Incoming::Refused(_)));
        prop_assert!(refused.is_none_or(|place| place + 1 == records.len()), "{:?}", records);
    }

    #[test]
    fn no_octets_do_harm(octets: Vec<u8>, streaming: bool) {
        check_cuts(&httpd(streaming)?, &octets)?;
    }
}

/// What requests, good and bad, are made of.
const WORDS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "GET / HTTP/1.0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 3\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    ";",
    ":",
    "\0",
    "0",
    "3\r\nabc\r\n",
    "a\r\n",
    "0\r\n\r\n",
    "abc",
];
