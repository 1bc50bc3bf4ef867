//! What does a filter cost beside the work that it can't do without? In megabytes of input a second.
//!
//! Input comes in chunks of 16 KiB, as a wheel reads it, and every record is taken and dropped. The peers do the bare work
//! on the same chunks: they look for the delimiters or read the lengths and copy each record into memory of its own, as an
//! event has to have it; what a chunk ends in the middle of they keep as simply as can be.

use std::hint::black_box;
use std::io::Write;
use std::time::SystemTime;

use criterion::Bencher;
use httparse::Status;
use lenore::filter::http::{Httpd, Outgoing, Response, format_date};
use lenore::filter::{Block, ByteLine, Filter, FixedBlock, Frame, Grep, Line, Map, RecordBlock, Stackable, Stream};
use memchr::{memchr, memchr2};
use serde::{Deserialize, Serialize};

mod ratios;

use ratios::{Budget, Rounds};

/// How much a wheel reads at once.
const CHUNK: usize = 16 * 1024;
/// How much goes through in one iteration.
const TOTAL: usize = 1 << 20;
/// How long lines and blocks are, with what delimits them.
const RECORD: usize = 64;

fn main() {
    lines();
    blocks();
    frames();
    http();
    stacks();
}

fn lines() {
    let mut line = vec![b'x'; RECORD - 2];
    line.extend(b"\r\n");
    Rounds::measure(
        "filters_line",
        TOTAL as u64,
        &mut repeat(&line),
        &[
            ("line", |input, bencher| through(bencher, input, Line::new())),
            ("byte_line", |input, bencher| through(bencher, input, ByteLine::new())),
            ("literal", |input, bencher| through(bencher, input, Line::literal("\r\n").expect("not empty").bytes())),
            ("memchr", |input, bencher| bare(bencher, input, |input| bare_lines(input, <[u8]>::to_vec))),
            ("memchr_utf8", |input, bencher| {
                bare(bencher, input, |input| bare_lines(input, |line| text(line).to_owned()))
            }),
        ],
    )
    .octets("line", TOTAL)
    .octets("byte_line", TOTAL)
    .octets("literal", TOTAL)
    .octets("memchr", TOTAL)
    .throughput("line", "memchr_utf8", Budget::None)
    .throughput("byte_line", "memchr", Budget::None)
    .throughput("literal", "memchr", Budget::None)
    .print();
}

fn blocks() {
    let block = vec![b'x'; RECORD];
    let mut prefixed = Vec::new();
    Block::new().put(&block, &mut prefixed).expect("any record");
    Rounds::measure(
        "filters_block",
        TOTAL as u64,
        &mut (repeat(&block), repeat(&prefixed)),
        &[
            ("stream", |(input, _), bencher| through(bencher, input, Stream::new())),
            ("bare_copy", |(input, _), bencher| {
                bare(bencher, input, |chunk| {
                    black_box(chunk.to_vec());
                    0
                })
            }),
            ("fixed", |(input, _), bencher| through(bencher, input, FixedBlock::new(RECORD).expect("not zero"))),
            ("bare_fixed", |(input, _), bencher| bare(bencher, input, bare_fixed)),
            ("block", |(_, input), bencher| through(bencher, input, Block::new())),
            ("bare_block", |(_, input), bencher| bare(bencher, input, |input| bare_blocks(input, <[u8]>::to_vec))),
        ],
    )
    .octets("stream", TOTAL)
    .octets("fixed", TOTAL)
    .octets("block", TOTAL)
    .throughput("stream", "bare_copy", Budget::None)
    .throughput("fixed", "bare_fixed", Budget::None)
    .throughput("block", "bare_block", Budget::None)
    .print();
}

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    id: u64,
    name: String,
    sizes: Vec<u32>,
}

fn frames() {
    let job = Job { id: 17, name: "a job for a child".into(), sizes: vec![1, 20, 300, 4000] };
    let mut frame = Vec::new();
    Frame::<Job>::new().put(&job, &mut frame).expect("it is JSON");
    Rounds::measure(
        "filters_frame",
        TOTAL as u64,
        &mut (repeat(&frame), job, frame.len()),
        &[
            ("frame", |(input, ..), bencher| through(bencher, input, Frame::<Job>::new())),
            ("bare_serde", |(input, ..), bencher| bare(bencher, input, |input| bare_blocks(input, thaw))),
            ("frame_put", |(_, job, length), bencher| {
                put(bencher, TOTAL / *length, Frame::<Job>::new(), |out, filter| {
                    filter.put(job, out).expect("it is JSON");
                })
            }),
            ("bare_serde_put", |(_, job, length), bencher| {
                put(bencher, TOTAL / *length, (), |out, ()| {
                    serde_json::to_writer(out, job).expect("it is JSON");
                })
            }),
        ],
    )
    .octets("frame", TOTAL)
    .octets("frame_put", TOTAL)
    .throughput("frame", "bare_serde", Budget::None)
    .throughput("frame_put", "bare_serde_put", Budget::None)
    .print();
}

/// What a browser asks for.
const REQUEST: &[u8] = b"GET /static/picture.png?size=large HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Connection: keep-alive\r\n\
    Referer: http://www.example.com/index.html\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\
    If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";

fn http() {
    let reply = Outgoing::Response(Response::new(200).header("Content-Type", "text/plain").body(HELLO));
    let mut written = Vec::new();
    Httpd::new().put(&reply, &mut written).expect("it can be sent");
    Rounds::measure(
        "filters_http",
        TOTAL as u64,
        &mut (repeat(REQUEST), reply, written.len()),
        &[
            ("http", |(input, ..), bencher| through(bencher, input, Httpd::new())),
            ("httparse", |(input, ..), bencher| bare(bencher, input, bare_requests)),
            ("http_put", |(_, reply, length), bencher| {
                put(bencher, TOTAL / *length, Httpd::new(), |out, filter| {
                    filter.put(reply, out).expect("it can be sent");
                })
            }),
            ("bare_put", |(_, _, length), bencher| {
                let date = format_date(SystemTime::now());
                put(bencher, TOTAL / *length, date, |out, date| bare_reply(out, date))
            }),
        ],
    )
    .octets("http", TOTAL)
    .octets("httparse", TOTAL)
    .octets("http_put", TOTAL)
    .throughput("http", "httparse", Budget::None)
    .throughput("http_put", "bare_put", Budget::None)
    .print();
}

const HELLO: &str = "hello\n";

/// Nothing bare does what these do: each is compared with the lines below it.
fn stacks() {
    let mut line = vec![b'x'; RECORD - 2];
    line.extend(b"\r\n");
    Rounds::measure(
        "filters_stack",
        TOTAL as u64,
        &mut repeat(&line),
        &[
            ("line", |input, bencher| through(bencher, input, Line::new())),
            ("grep", |input, bencher| {
                through(bencher, input, Stackable::new(Line::new(), Grep::code(|line: &str| !line.is_empty())));
            }),
            ("map", |input, bencher| {
                let same = Map::<String, String, str, str>::new(Some, |line: &str| Some(line.to_owned()));
                through(bencher, input, Stackable::new(Line::new(), same));
            }),
            ("record_block", |input, bencher| {
                through(bencher, input, Stackable::new(Line::new(), RecordBlock::new(8).expect("not zero")));
            }),
        ],
    )
    .octets("grep", TOTAL)
    .octets("map", TOTAL)
    .octets("record_block", TOTAL)
    .throughput("grep", "line", Budget::None)
    .throughput("map", "line", Budget::None)
    .throughput("record_block", "line", Budget::None)
    .print();
}

/// As many whole records as fit.
fn repeat(record: &[u8]) -> Vec<u8> {
    record.repeat(TOTAL / record.len())
}

fn through<F: Filter>(bencher: &mut Bencher<'_>, input: &[u8], mut filter: F) {
    bencher.iter(|| {
        for chunk in input.chunks(CHUNK) {
            filter.get_one_start(chunk).expect("it fits");
            while let Some(record) = filter.get_one().expect("no error") {
                black_box(record);
            }
        }
    });
    assert!(filter.get_pending().is_empty());
}

/// Gives `work` each chunk with what it left of the one before: it returns how much it leaves.
fn bare(bencher: &mut Bencher<'_>, input: &[u8], work: impl Fn(&[u8]) -> usize) {
    let mut buffer = Vec::new();
    bencher.iter(|| {
        for chunk in input.chunks(CHUNK) {
            buffer.extend_from_slice(chunk);
            let left = work(&buffer);
            buffer.drain(..buffer.len() - left);
        }
    });
}

fn bare_lines<R>(mut input: &[u8], own: impl Fn(&[u8]) -> R) -> usize {
    while let Some(end) = memchr2(b'\r', b'\n', input) {
        // Both bytes of the pair have to be there, or the rest of it would be an empty line.
        let Some(rest) = input.get(end + 2..) else { break };
        black_box(own(&input[..end]));
        input = rest;
    }
    input.len()
}

fn bare_fixed(input: &[u8]) -> usize {
    // The filter's size is no constant either.
    let blocks = input.chunks_exact(black_box(RECORD));
    let left = blocks.remainder().len();
    blocks.for_each(|block| drop(black_box(block.to_vec())));
    left
}

fn bare_blocks<R>(mut input: &[u8], own: impl Fn(&[u8]) -> R) -> usize {
    while let Some(end) = memchr(0, input) {
        let length: usize = text(&input[..end]).parse().expect("a number");
        let Some(block) = input[end + 1..].get(..length) else { break };
        black_box(own(block));
        input = &input[end + 1 + length..];
    }
    input.len()
}

fn bare_requests(mut input: &[u8]) -> usize {
    while !input.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Status::Complete(length) = request.parse(input).expect("a request") else { break };
        black_box((request.path, request.headers.len(), input[..length].to_vec()));
        input = &input[length..];
    }
    input.len()
}

fn bare_reply(out: &mut Vec<u8>, date: &str) {
    let length = HELLO.len();
    let head = format_args!("Content-Type: text/plain\r\nDate: {date}\r\nContent-Length: {length}\r\n");
    write!(out, "HTTP/1.1 200 OK\r\n{head}\r\n{HELLO}").expect("memory takes it");
}

fn text(octets: &[u8]) -> &str {
    str::from_utf8(octets).expect("text")
}

fn thaw(payload: &[u8]) -> Job {
    serde_json::from_slice(payload).expect("a job")
}

fn put<F>(bencher: &mut Bencher<'_>, count: usize, mut filter: F, put: impl Fn(&mut Vec<u8>, &mut F)) {
    let mut out = Vec::with_capacity(2 * TOTAL);
    bencher.iter(|| {
        out.clear();
        (0..count).for_each(|_| put(&mut out, &mut filter));
        black_box(out.len())
    });
}
