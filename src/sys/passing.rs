//! Short messages between processes, each with a descriptor or without.

use std::io::IoSlice;
#[cfg(feature = "control")]
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
#[cfg(feature = "control")]
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::Result;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
#[cfg(feature = "control")]
use nix::sys::socket::{ControlMessageOwned, recvmsg};

/// Sends a message without waiting.
///
/// # Errors
///
/// What `sendmsg` says: `EAGAIN` if the other side has not read for long, `EPIPE` if it is gone.
pub(crate) fn send(socket: impl AsFd, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let passed = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let rights = passed.as_ref().map(|passed| ControlMessage::ScmRights(passed));
    sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(message)], rights.as_slice(), flags, None).map(drop)
}

/// Receives a message without waiting, and returns how long it is and what came with it. 0 is the end of the other side.
///
/// There is always room for descriptors: the system would let one that has no room vanish, but whoever sends to this socket might
/// send more than one, and all but the first are closed here.
///
/// # Errors
///
/// What `recvmsg` says: `EAGAIN` if there is no message.
#[cfg(feature = "control")]
pub(crate) fn receive(socket: impl AsFd, message: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MOST_DESCRIPTORS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(message)];
    let received = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptor = None;
    for control in received.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(passed) = control {
            for fd in passed {
                // SAFETY: the system has just opened it for this process, and nothing else has heard of it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                descriptor.get_or_insert(fd);
            }
        }
    }
    Ok((received.bytes, descriptor))
}

/// More than a sender has reason to pass at once.
#[cfg(feature = "control")]
const MOST_DESCRIPTORS: usize = 4;

#[cfg(all(test, feature = "control"))]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test] // O-CT-12
    fn a_descriptor_arrives_with_its_message() {
        let (one, other) = UnixDatagram::pair().unwrap();
        send(&one, b"plain", None).unwrap();
        send(&one, b"with", Some(File::open("/proc/self/stat").unwrap().as_fd())).unwrap();
        let mut message = [0; 8];
        let (length, descriptor) = receive(&other, &mut message).unwrap();
        assert_eq!((&message[..length], descriptor.is_none()), (&b"plain"[..], true));
        let (length, descriptor) = receive(&other, &mut message).unwrap();
        assert_eq!(&message[..length], b"with");
        let mut text = String::new();
        File::from(descriptor.unwrap()).read_to_string(&mut text).unwrap();
        assert!(text.starts_with(&std::process::id().to_string()), "{text}");
        assert_eq!(receive(&other, &mut message).unwrap_err(), nix::errno::Errno::EAGAIN);
    }

    #[test] // O-CT-12: a descriptor that nobody wants is closed
    fn more_descriptors_than_one_are_closed() {
        let (one, other) = UnixDatagram::pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let passed = [reader.as_raw_fd(), writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&passed)];
        sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
        drop(writer);
        let (_, descriptor) = receive(&other, &mut [0; 1]).unwrap();
        // The end of file comes when no process has the writing end.
        assert_eq!(File::from(descriptor.unwrap()).read(&mut [0; 1]).unwrap(), 0);
    }
}
