//! Starts a program with sockets as systemd does: `listen_launch OPTIONS -- PROGRAM ARGS`.
//!
//! Each of `--tcp ADDRESS`, `--udp ADDRESS`, `--unix PATH`, `--unix-datagram PATH`, `--connected ADDRESS`, `--file PATH` and `--fd NUMBER`,
//! which it has inherited itself, is the next descriptor, from 3 on. `--names NAMES` sets `LISTEN_FDNAMES`. `--fds TEXT` and `--pid TEXT` replace what is true, `--pid none` leaves
//! the variable away. A line `bound ADDRESS` tells of each internet socket. `@3` among the arguments of the program is the address of
//! descriptor 3. With `--go PATH` the program is started once somebody opens that FIFO.

use std::error::Error;
use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (mut passed, mut addresses) = (Vec::new(), Vec::new());
    let (mut names, mut fds, mut pid, mut go) = (None, None, None, None);
    while let Some(option) = words.next().filter(|word| word != "--") {
        let value = words.next().ok_or("an option without a value")?;
        let mut address = String::new();
        let fd: OwnedFd = match option.as_str() {
            "--tcp" => {
                let listener = TcpListener::bind(&value)?;
                address = listener.local_addr()?.to_string();
                listener.into()
            }
            "--udp" => {
                let socket = UdpSocket::bind(&value)?;
                address = socket.local_addr()?.to_string();
                socket.into()
            }
            "--unix" => UnixListener::bind(&value)?.into(),
            "--unix-datagram" => UnixDatagram::bind(&value)?.into(),
            "--connected" => TcpStream::connect(&value)?.into(),
            "--file" => File::open(&value)?.into(),
            "--fd" => {
                // SAFETY: whoever has started this program has passed it by this number, and nothing else here owns it.
                unsafe { OwnedFd::from_raw_fd(value.parse()?) }
            }
            "--names" => {
                names = Some(value);
                continue;
            }
            "--fds" => {
                fds = Some(value);
                continue;
            }
            "--pid" => {
                pid = Some(value);
                continue;
            }
            "--go" => {
                go = Some(value);
                continue;
            }
            other => return Err(format!("no such option: {other}").into()),
        };
        if !address.is_empty() {
            println!("bound {address}");
        }
        // Out of the way of the numbers that they are to get.
        passed.push(fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(FAR))?);
        addresses.push(address);
    }
    go.map(File::open).transpose()?;
    for (fd, number) in passed.iter().zip(FIRST..) {
        // SAFETY: takes numbers. This program owns no descriptor of the second, and is about to become another one.
        if unsafe { libc::dup2(*fd, number) } < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    let mut program = Command::new(words.next().ok_or("no program")?);
    for word in words {
        let address = word.strip_prefix('@').and_then(|number| number.parse::<usize>().ok());
        program.arg(address.and_then(|number| addresses.get(number - FIRST as usize)).unwrap_or(&word));
    }
    program.env("LISTEN_FDS", fds.unwrap_or_else(|| passed.len().to_string()));
    names.into_iter().for_each(|names| _ = program.env("LISTEN_FDNAMES", names));
    // The process stays the same when it becomes the program.
    match pid.unwrap_or_else(|| std::process::id().to_string()).as_str() {
        "none" => {}
        pid => _ = program.env("LISTEN_PID", pid),
    }
    Err(program.exec().into())
}

const FIRST: RawFd = 3;

const FAR: RawFd = 100;
