//! How an answer is sent: whole, in pieces of a stream, or in pieces of a file.

use std::rc::Rc;

use super::answer::{Answer, Kind};
use super::conversation::{Current, Cx, Work, complain};
use super::error::HttpError;
use super::files::read_piece;
use super::service::Shared;
use super::slot::Piece;
use crate::error::{Exception, Result};
use crate::filter::http::{Httpd, Outgoing, Response};
use crate::wheel::{Put, ReadWrite};

/// Starts to send an answer.
pub(super) fn take_up<R: 'static>(cx: &mut Cx<'_, R>, answer: Answer) -> Result {
    // The connection may have ended while the handler ran.
    let Some(current) = &mut cx.heap().own.current else { return Ok(()) };
    match answer.0 {
        Kind::Now(response) => finish_with(cx, response),
        Kind::Failed(response, cause) => {
            if let Some(cause) = cause {
                cx.heap().own.explain(response.status(), &cause);
            }
            finish_with(cx, response)
        }
        Kind::Pending(slot) if current.has(&slot) => Ok(()),
        Kind::Stream(slot, response) if current.has(&slot) => {
            current.work = Work::Stream;
            if send_head(cx, response.streamed(), Body::Streamed) { stream(cx) } else { end(cx) }
        }
        Kind::Pending(_) | Kind::Stream(..) => {
            cx.heap().own.complain(&Exception::new("the handler returned what is pending for another request"));
            finish_with(cx, failure())
        }
        Kind::File(response, file) => {
            current.work = Work::File(file);
            if send_head(cx, response.streamed(), Body::Streamed) { send_file(cx) } else { end(cx) }
        }
    }
}

/// Sends a whole response.
pub(super) fn finish_with<R: 'static>(cx: &mut Cx<'_, R>, response: Response) -> Result {
    send_head(cx, response, Body::Whole);
    end(cx)
}

/// Where the body of a response comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    Whole,
    Streamed,
}

/// Puts a response, or the head of a streamed one. Returns whether a body follows. It does not if the client has asked
/// for the head only, or if the response can't be sent and one with status 500 was sent instead.
fn send_head<R: 'static>(cx: &mut Cx<'_, R>, response: Response, body: Body) -> bool {
    let connection = cx.heap();
    let closes = connection.own.is_last || connection.is_ending();
    let service = Rc::clone(&connection.own.service);
    let Some(current) = &mut connection.own.current else { return false };
    let what = &connection.own.what;
    let mut response = shaped(&service, what, response).suit(current.client);
    let wrong = match response.check() {
        Err(reason) => Some(reason),
        Ok(()) if response.status() < 200 => Some(format!("status {} is no end of a request", response.status())),
        Ok(()) if body == Body::Whole && response.is_streamed() => Some("a streamed response without a stream".into()),
        Ok(()) => None,
    };
    let is_streamed = wrong.is_none() && body == Body::Streamed;
    let follows = is_streamed && !current.client.wants_head_only();
    if let Some(reason) = wrong {
        complain(what, &Exception::new(reason));
        response = shaped(&service, what, failure()).suit(current.client);
    }
    if closes {
        response = response.close();
    }
    if let Some(entry) = &mut current.entry {
        entry.status = response.status();
        entry.octets = response.sent_octets();
    }
    connection.own.closes = response.closes();
    connection.put(Outgoing::Response(response));
    if is_streamed && !follows {
        // The filter needs an end even for a streamed response without a body.
        connection.put(Outgoing::End);
    }
    follows
}

/// Replaces the page of an error with the program's own response, if the program has set one.
fn shaped<R: 'static>(service: &Shared<R>, what: &str, response: Response) -> Response {
    match service.shape(&response) {
        Some(Ok(own)) => own,
        Some(Err(cause)) => {
            complain(what, &Exception::new(format!("the response for an error could not be made: {cause}")));
            response
        }
        None => response,
    }
}

/// Puts the pieces of a streamed body that have come.
pub(super) fn stream<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    let Some(current) = &connection.own.current else { return Ok(()) };
    let Some(slot) = current.slot.clone().filter(|_| matches!(current.work, Work::Stream)) else { return Ok(()) };
    let (mut put, mut octets) = (Put::Accepted, 0);
    for piece in slot.take_pieces() {
        match piece {
            Piece::Octets(piece) => {
                octets += piece.len() as u64;
                put = connection.put(Outgoing::Piece(piece));
            }
            Piece::End => {
                connection.own.count(octets);
                connection.put(Outgoing::End);
                let is_whole = |wheel: &ReadWrite<Httpd>| wheel.output_filter(|filter| filter.is_between_responses());
                if connection.wheel().is_some_and(|wheel| !is_whole(wheel)) {
                    return cut(cx, &Exception::new("the stream is not as long as its Content-Length"));
                }
                return end(cx);
            }
            Piece::Cut => {
                connection.own.count(octets);
                return cut(cx, &Exception::new("the stream was dropped before its end"));
            }
        }
    }
    connection.own.count(octets);
    match put {
        Put::High => slot.set_high(),
        Put::Accepted if !connection.wheel().is_some_and(|wheel| wheel.is_high()) => slot.low(),
        Put::Accepted | Put::Closed => {}
    }
    Ok(())
}

/// Puts the next part of a file, as much as the client takes for now.
pub(super) fn send_file<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    loop {
        let connection = cx.heap();
        let Some(Current { work: Work::File(file), .. }) = &mut connection.own.current else { return Ok(()) };
        if file.limit() == 0 {
            connection.put(Outgoing::End);
            return end(cx);
        }
        let piece = match read_piece(file) {
            Ok(piece) if piece.is_empty() => return cut(cx, &Exception::new("the file has become shorter")),
            Ok(piece) => piece,
            Err(error) => return cut(cx, &error.into()),
        };
        connection.own.count(piece.len() as u64);
        if !connection.put(Outgoing::Piece(piece)).takes_more() {
            return Ok(());
        }
    }
}

/// The service has put the whole response.
fn end<R: 'static>(cx: &mut Cx<'_, R>) -> Result {
    let connection = cx.heap();
    connection.request_ends();
    let put = connection.wheel().map_or(0, |wheel| wheel.output_octets());
    let conversation = &mut connection.own;
    if let Some(mut entry) = conversation.current.take().and_then(|mut current| current.entry.take()) {
        entry.end = put;
        conversation.unwritten.push(entry);
    }
    if conversation.closes {
        conversation.is_done = true;
        cx.yield_("shutdown", ());
    }
    Ok(())
}

/// Closes the connection in the middle of a response. Only this tells the client that the response is incomplete.
pub(super) fn cut<R: 'static>(cx: &mut Cx<'_, R>, cause: &Exception) -> Result {
    let conversation = &mut cx.heap().own;
    if conversation.current.is_some() {
        conversation.complain(cause);
    }
    // The request, with its log line, stays until the connection is closed.
    conversation.current.iter_mut().for_each(|current| current.work = Work::Answer);
    conversation.is_done = true;
    cx.yield_("shutdown", ());
    Ok(())
}

/// Returns the client's response for a failure.
pub(super) fn failure() -> Response {
    HttpError::internal("").into_parts().0
}
