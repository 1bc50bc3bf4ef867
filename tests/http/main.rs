//! HTTP: section 20.9 of the behaviour specification, and the example server.

use std::time::{Duration, UNIX_EPOCH};

use lenore::filter::http::{Httpd, Incoming, Outgoing, Refusal, Request};
use lenore::filter::{Filter, FilterError};

mod cuts;
mod keep_alive;
mod refusals;
mod requests;
mod responses;
mod server;
mod targets;
mod wheel;

/// All records of `input`, which comes in one chunk.
fn records(input: impl AsRef<[u8]>) -> Vec<Incoming> {
    records_of(Httpd::new(), input)
}

fn records_of(mut httpd: Httpd, input: impl AsRef<[u8]>) -> Vec<Incoming> {
    httpd.get(input.as_ref()).expect("the filter never fails")
}

/// The requests of `input`, which has nothing else.
#[track_caller]
fn requests(input: impl AsRef<[u8]>) -> Vec<Request> {
    let request = |record| match record {
        Incoming::Request(request) => request,
        other => panic!("no request: {other:?}"),
    };
    records(input).into_iter().map(request).collect()
}

/// The one request of `input`.
#[track_caller]
fn request(input: impl AsRef<[u8]>) -> Request {
    let [request] = <[Request; 1]>::try_from(requests(input)).expect("one request");
    request
}

/// The one record of `input`, a refusal.
#[track_caller]
fn refusal(input: impl AsRef<[u8]>) -> Refusal {
    let records = records(input);
    let [Incoming::Refused(refusal)] = &records[..] else { panic!("no refusal: {records:?}") };
    refusal.clone()
}

/// What `records` come to, with the first second of 2026 for the date.
fn put(records: impl IntoIterator<Item = Outgoing>) -> Result<String, FilterError> {
    let mut httpd = Httpd::new().clock(|| UNIX_EPOCH + Duration::from_secs(1_767_225_600));
    let mut out = Vec::new();
    for record in records {
        let before = out.clone();
        httpd.put(&record, &mut out).inspect_err(|_| assert_eq!(out, before, "a refused record leaves nothing"))?;
    }
    Ok(String::from_utf8(out).expect("these tests put text"))
}
