//! `select_read` and `select_write`: section 11 of the behaviour specification.

mod descriptors;
mod events;

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::net::UnixStream;

use lenore::{Context, Handle, Result};

/// A pipe with its reading end as a handle.
fn readable_pipe(text: &str) -> (Handle, PipeWriter) {
    let (reader, mut writer) = io::pipe().expect("a pipe can be made");
    writer.write_all(text.as_bytes()).expect("it fits");
    (Handle::new(reader), writer)
}

/// A pipe with its writing end as a handle, always ready for writing.
fn writable_pipe() -> (PipeReader, Handle) {
    let (reader, writer) = io::pipe().expect("a pipe can be made");
    (reader, Handle::new(writer))
}

/// A socket that can be read and written, and its peer.
fn ready_socket(text: &str) -> (Handle, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair can be made");
    theirs.write_all(text.as_bytes()).expect("it fits");
    (Handle::new(ours), theirs)
}

/// Reads one byte.
fn read_one<H: 'static>(cx: &Context<'_, H>) -> Result<Option<char>> {
    let mut octet = [0];
    let mut handle = cx.arg::<Handle>(0)?.clone();
    Ok((handle.read(&mut octet)? == 1).then(|| char::from(octet[0])))
}

/// Ends the running session's watching of ARG0 in both modes.
fn clear<H: 'static>(cx: &mut Context<'_, H>) -> Result {
    let handle = cx.arg::<Handle>(0)?.clone();
    cx.select_read_clear(&handle);
    cx.select_write_clear(&handle);
    Ok(())
}
