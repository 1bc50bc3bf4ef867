//! How many clients wait in the accept queue of a listening socket, and how long one that was accepted has waited there.
//!
//! Linux tells of TCP sockets by `TCP_INFO`, and of UNIX sockets by netlink (`sock_diag`), where its modules are there and
//! nothing forbids it. Netlink does not tell for how long. Other systems have other ways or none: there it can't be read.

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcceptQueue {
    /// How many clients wait to be accepted.
    pub(crate) waiting: u32,
    /// How many may wait: the backlog, as the system has cut it down. It lets one client more in than that.
    pub(crate) limit: u32,
}

#[cfg(target_os = "linux")]
pub(crate) use linux::read;
#[cfg(all(target_os = "linux", feature = "control"))]
pub(crate) use linux::waited;

/// Returns how long a connection that was just accepted has waited for it. This system does not tell.
#[cfg(all(not(target_os = "linux"), feature = "control"))]
pub(crate) fn waited(_: std::os::fd::BorrowedFd<'_>) -> Option<std::time::Duration> {
    None
}

/// Reads the accept queue of a listening socket.
///
/// # Errors
///
/// Always: this system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn read(_: std::os::fd::BorrowedFd<'_>) -> nix::Result<AcceptQueue> {
    Err(nix::errno::Errno::EOPNOTSUPP)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::{MaybeUninit, offset_of, size_of};
    use std::os::fd::{AsRawFd, BorrowedFd};

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrLike, getsockname, recv,
        sendto, socket,
    };
    use nix::sys::stat::fstat;

    use super::AcceptQueue;

    /// Reads the accept queue of a listening socket.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the socket does not listen, or if the system's answer does not tell; `EOPNOTSUPP` for a socket that is neither of
    /// TCP nor a UNIX one; else why the system could not be asked. `EAFNOSUPPORT` means that netlink is forbidden.
    pub(crate) fn read(fd: BorrowedFd<'_>) -> nix::Result<AcceptQueue> {
        let address: nix::sys::socket::SockaddrStorage = getsockname(fd.as_raw_fd())?;
        match address.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => of_tcp(fd),
            Some(AddressFamily::Unix) => of_unix(fd),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// Returns how long a connection that was just accepted has waited for it, since the end of its handshake; `None` if it is not a
    /// connection of TCP.
    ///
    /// The system counts in ticks of 1 to 10 ms, so the answer may be off by one of them.
    #[cfg(feature = "control")]
    pub(crate) fn waited(fd: BorrowedFd<'_>) -> Option<std::time::Duration> {
        let (info, length) = tcp_info(fd).ok()?;
        // The system counts from the last bytes that were sent. As long as there are none, from when the connection was made,
        // whatever the client has sent.
        let is_told = length >= offset_of!(libc::tcp_info, tcpi_last_ack_sent);
        (is_told && info.tcpi_state != TCP_LISTEN)
            .then(|| std::time::Duration::from_millis(info.tcpi_last_data_sent.into()))
    }

    /// Of a listener `TCP_INFO` tells the accept queue in two fields that have another meaning in a connection.
    fn of_tcp(fd: BorrowedFd<'_>) -> nix::Result<AcceptQueue> {
        let (info, length) = tcp_info(fd)?;
        let is_told = length >= offset_of!(libc::tcp_info, tcpi_lost);
        let is_listener = is_told && info.tcpi_state == TCP_LISTEN;
        is_listener.then_some(AcceptQueue { waiting: info.tcpi_unacked, limit: info.tcpi_sacked }).ok_or(Errno::EINVAL)
    }

    /// Returns what the system tells of a socket, and how many bytes of it.
    fn tcp_info(fd: BorrowedFd<'_>) -> nix::Result<(libc::tcp_info, usize)> {
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: `info` has room for `length` bytes, and the system writes no more than that many.
        let done = unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut length)
        };
        // SAFETY: it is made of numbers, for which all zeroes is a value, as is whatever the system has written over them.
        let info = unsafe { info.assume_init() };
        Errno::result(done)?;
        Ok((info, length as usize))
    }

    /// Asks for the one socket with the inode that the descriptor has.
    fn of_unix(fd: BorrowedFd<'_>) -> nix::Result<AcceptQueue> {
        let inode = u32::try_from(fstat(fd)?.st_ino).map_err(|_| Errno::EOVERFLOW)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let diag = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
        sendto(diag.as_raw_fd(), &unix_request(inode), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        // The system has answered by the time that the request is sent.
        let mut answer = [0; 512];
        let length = recv(diag.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let answer = answer.get(..length).ok_or(Errno::EMSGSIZE)?;
        if let Some(errno) = refusal(answer) {
            return Err(errno);
        }
        unix_answer(answer).ok_or(Errno::EINVAL)
    }

    /// `nlmsghdr` and `unix_diag_req`.
    fn unix_request(inode: u32) -> [u8; REQUEST] {
        let mut request = [0; REQUEST];
        let (request_flags, listening) =
            ((libc::NLM_F_REQUEST as u16).to_ne_bytes(), (1_u32 << TCP_LISTEN).to_ne_bytes());
        let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(REQUEST as u32).to_ne_bytes());
        put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        put(6, &request_flags);
        put(16, &[libc::AF_UNIX as u8]);
        put(20, &listening);
        put(24, &inode.to_ne_bytes());
        put(28, &UDIAG_SHOW_RQLEN.to_ne_bytes());
        // Any cookie.
        put(32, &[0xff; 8]);
        request
    }

    /// `nlmsghdr` and `nlmsgerr`: the system has no answer, as where its module for UNIX sockets is missing.
    fn refusal(answer: &[u8]) -> Option<Errno> {
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let errno = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
        (i32::from(kind) == libc::NLMSG_ERROR).then(|| Errno::from_raw(errno.wrapping_neg()))
    }

    /// `nlmsghdr`, `unix_diag_msg`, and attributes, of which one is a `unix_diag_rqlen`.
    fn unix_answer(answer: &[u8]) -> Option<AcceptQueue> {
        let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
        if half(4)? != SOCK_DIAG_BY_FAMILY || *answer.get(18)? != TCP_LISTEN {
            return None;
        }
        let mut at = 16 + 16;
        loop {
            let (length, kind) = (usize::from(half(at)?), half(at + 2)?);
            if kind == UNIX_DIAG_RQLEN && length >= 12 {
                return Some(AcceptQueue { waiting: word(at + 4)?, limit: word(at + 8)? });
            }
            at += length.max(4).next_multiple_of(4);
        }
    }

    /// The state of a listening socket, of either kind.
    const TCP_LISTEN: u8 = 10;

    // From `linux/sock_diag.h` and `linux/unix_diag.h`.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const UDIAG_SHOW_RQLEN: u32 = 0x10;
    const UNIX_DIAG_RQLEN: u16 = 4;

    /// The length of a request.
    const REQUEST: usize = 16 + 24;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    use super::*;

    /// Connections of TCP stand in the queue a moment after connect(2) has returned.
    fn wait_for(fd: BorrowedFd<'_>, waiting: u32) -> u32 {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let queue = read(fd).expect("a listener");
            if queue.waiting == waiting {
                return queue.limit;
            }
            assert!(Instant::now() < give_up, "{queue:?}");
            yield_now();
        }
    }

    #[test] // O-DM-09: the depth and the limit of a TCP listener
    fn queue_of_a_tcp_listener_is_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(7).expect("few")).expect("it listens");
        let address = listener.local_addr().expect("an address");
        assert_eq!(wait_for(listener.as_fd(), 0), 7);
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).expect("room")).collect();
        assert_eq!(wait_for(listener.as_fd(), 3), 7);
        let accepted = listener.accept().expect("one of them");
        assert_eq!(wait_for(listener.as_fd(), 2), 7);
        assert!(read(accepted.0.as_fd()).is_err(), "a connection has no such queue");
        drop(clients);
    }

    #[test] // O-DM-09: the same of a UNIX socket, where the system allows it
    fn queue_of_a_unix_listener_is_read() {
        let path = std::env::temp_dir().join(format!("lenore-accept-queue-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let connect = || UnixStream::connect(&path).expect("room");
        let clients = [connect(), connect(), connect()];
        std::fs::remove_file(&path).expect("it is there");
        let Ok(queue) = read(listener.as_fd()) else { return };
        assert!(queue.waiting == 3 && queue.limit > 3, "{queue:?}");
        let _accepted = listener.accept().expect("one of them");
        assert_eq!(read(listener.as_fd()), Ok(AcceptQueue { waiting: 2, ..queue }));
        drop(clients);
    }

    #[cfg(feature = "control")]
    #[test] // O-ST-09: since the handshake, also if the client has sent something since
    fn accepted_connection_tells_how_long_it_has_waited() {
        use std::io::Write;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let before = Instant::now();
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("room");
        wait_for(listener.as_fd(), 1);
        let held = Duration::from_millis(60);
        std::thread::sleep(held);
        client.write_all(b"x").expect("the queue takes it");
        let accepted = listener.accept().expect("one").0;
        let waited = waited(accepted.as_fd()).expect("it is of TCP");
        let tick = Duration::from_millis(10);
        assert!(held <= waited + tick && waited <= before.elapsed() + tick, "{waited:?}");
        assert_eq!(super::waited(listener.as_fd()), None);
        assert_eq!(super::waited(UnixStream::pair().expect("a pair").0.as_fd()), None);
    }

    #[test] // O-DM-09
    fn what_is_no_listener_has_no_queue() {
        let file = std::fs::File::open("/dev/null").expect("it is everywhere");
        assert!(read(file.as_fd()).is_err());
        let (one, _other) = UnixStream::pair().expect("a pair");
        assert!(read(one.as_fd()).is_err());
    }
}
