//! Forks that are refused.

use std::sync::Mutex;
use std::thread;

use lenore::{Error, ForkStage, Kernel, Result};
use nix::errno::Errno;

use super::{forker, linger, say, say_forked};

/// T7: another thread holds a lock.
pub fn threads(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    static LOCK: Mutex<()> = Mutex::new(());
    let (locked, is_locked) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _guard = LOCK.lock();
        locked.send(()).expect("the main thread waits for it");
        loop {
            thread::park();
        }
    });
    is_locked.recv().expect("the thread sends before it parks");
    refusing(kernel)
}

/// The same after the program has locked itself up where there is no `/proc`.
pub fn threads_in_a_jail(kernel: &mut Kernel, jail: &str) -> Result<(), Error> {
    std::os::unix::fs::chroot(jail).expect("it is run by root");
    threads(kernel, "")
}

/// A single thread, where there is no `/proc`.
pub fn alone_in_a_jail(kernel: &mut Kernel, jail: &str) -> Result<(), Error> {
    std::os::unix::fs::chroot(jail).expect("it is run by root");
    refusing(kernel)
}

/// The system has no process left, twice.
pub fn refused(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let mut refusals = 2;
    kernel.set_fork_hook(move |stage| {
        if stage == ForkStage::BeforeFork && refusals > 0 {
            refusals -= 1;
            return Err(Errno::EAGAIN.into());
        }
        Ok(())
    });
    refusing(kernel)
}

/// Says what it gets back, and tries again until there is no more to be sent.
fn refusing(kernel: &mut Kernel) -> Result<(), Error> {
    forker(3_u8)
        .state("_start", |cx| {
            cx.sig("USR1", "signal");
            cx.fork("forked", "begins", (String::from("payload"), 1_u8));
        })
        .state("forked", |cx| {
            say_forked(cx)?;
            if let Err(error) = cx.arg::<Result<i32, Error>>(0)? {
                let kind = if matches!(error, Error::Threads { .. }) { "Threads" } else { "Os" };
                let (payload, number) = (cx.take::<String>(1)?, *cx.arg::<u8>(2)?);
                say(cx, format!("{kind}, and back came {payload} {number}"));
                *cx.heap() -= 1;
                if *cx.heap() > 0 {
                    cx.fork("forked", "begins", (payload, number + 1));
                    return Ok(());
                }
            }
            linger(cx)
        })
        .state("begins", |cx| {
            let number = *cx.arg::<u8>(1)?;
            say(cx, format!("begins with {number}"));
            linger(cx)
        })
        .spawn(kernel)?;
    Ok(())
}
