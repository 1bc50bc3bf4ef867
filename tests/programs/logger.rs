//! A program that logs; tests/logging.rs says what has to come of it.
//!
//! ```text
//! logger [--json] [--filter FILTER] SCENARIO [ARGUMENT]...
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use lenore::logging::{self, Format, Logger};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, dup2_stderr, fork};

type Scenario = fn(&[String]) -> Result<(), Box<dyn Error>>;

const SCENARIOS: [(&str, Scenario); 8] = [
    ("say", say),
    ("levels", levels),
    ("storm", storm),
    ("full", full),
    ("closed", closed),
    ("unread", unread),
    ("slow", slow),
    ("torn", torn),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut logger = Logger::new();
    if args[0] == "--json" {
        args.remove(0);
        logger = logger.format(Format::Json);
    }
    if args[0] == "--filter" {
        logger = logger.filter(&args[1])?;
        args.drain(..2);
    }
    logger.clone().install()?;
    assert!(logger.install().is_err(), "there is one already");
    let scenario = SCENARIOS.iter().find(|(name, _)| *name == args[0]);
    let (_, scenario) = scenario.expect("an argument names a scenario");
    scenario(&args[1..])
}

/// Logs each argument, and a record with fields.
fn say(messages: &[String]) -> Result<(), Box<dyn Error>> {
    for message in messages {
        log::info!("{message}");
    }
    log::warn!(target: "tower", slot = 3, cause = "exited:3", note = "a b"; "with fields");
    Ok(())
}

/// Logs at each level, for several targets, under several levels that are set meanwhile.
fn levels(_: &[String]) -> Result<(), Box<dyn Error>> {
    let all = |when: &str| {
        for level in log::Level::iter() {
            for target in ["tower", "tower::bell", "towers"] {
                log::log!(target: target, level, "{when} most={}", log::max_level());
            }
        }
    };
    all("at first");
    logging::set_level(log::LevelFilter::Warn);
    all("set");
    logging::set_level(log::LevelFilter::Off);
    all("silent");
    logging::reset_level();
    all("at last");
    Ok(())
}

/// Forks processes that begin to log at the same time, and end by `_exit` with their last line.
fn storm(args: &[String]) -> Result<(), Box<dyn Error>> {
    let (processes, records): (usize, usize) = (args[0].parse()?, args[1].parse()?);
    log::info!("before the forks");
    let (mut gate, opener) = io::pipe()?;
    let mut children = Vec::new();
    for _ in 0..processes {
        // SAFETY: there is one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => children.push(child),
            ForkResult::Child => {
                drop(opener);
                let _ = gate.read(&mut [0]);
                for number in 0..records {
                    // Of many lengths, and no two in a row that are the same.
                    log::info!("record {number} of {records} {} ends", "x".repeat(number * 7 % 300));
                }
                // SAFETY: nothing of the process is used afterwards.
                unsafe { libc::_exit(0) }
            }
        }
    }
    drop(opener);
    for child in children {
        assert_eq!(waitpid(child, None)?, WaitStatus::Exited(child, 0));
    }
    Ok(())
}

/// Logs into a disk that is full, and then into a file.
fn full(args: &[String]) -> Result<(), Box<dyn Error>> {
    dup2_stderr(OpenOptions::new().write(true).open("/dev/full")?)?;
    log_many(1000);
    // SAFETY: there is one thread.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        waitpid(child, None)?;
    }
    dup2_stderr(append(&args[0])?)?;
    log::info!("there is room");
    log::info!("and still");
    Ok(())
}

/// Logs into a descriptor that is closed.
fn closed(_: &[String]) -> Result<(), Box<dyn Error>> {
    // SAFETY: nobody has anything open by this number afterwards.
    unsafe { libc::close(2) };
    log_many(1000);
    println!("goes on");
    Ok(())
}

/// Logs into a pipe whose reader has gone.
fn unread(_: &[String]) -> Result<(), Box<dyn Error>> {
    let (reader, writer) = io::pipe()?;
    dup2_stderr(writer)?;
    drop(reader);
    log_many(1000);
    println!("goes on");
    Ok(())
}

/// Logs into a pipe that does not wait and is not read; reads what has got into it, and logs again.
fn slow(_: &[String]) -> Result<(), Box<dyn Error>> {
    let (mut reader, writer) = io::pipe()?;
    for end in [reader.as_fd(), writer.as_fd()] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    dup2_stderr(writer)?;
    let begin = Instant::now();
    log_many(5000);
    println!("waited {}", begin.elapsed() >= Duration::from_secs(1));
    println!("waited for each {}", begin.elapsed() >= Duration::from_secs(10));
    io::copy(&mut reader, &mut io::stdout()).expect_err("nobody has closed it");
    log::info!("it is read again");
    io::copy(&mut reader, &mut io::stdout()).expect_err("nobody has closed it");
    Ok(())
}

/// Logs into a file that may not become larger in the middle of a record, and then may.
fn torn(args: &[String]) -> Result<(), Box<dyn Error>> {
    let file = append(&args[0])?;
    dup2_stderr(&file)?;
    // SAFETY: to ignore a signal takes no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    limit_files(120);
    log::info!("fits");
    log::info!("does not fit {}", "x".repeat(120));
    log::info!("nor this");
    limit_files(libc::RLIM_INFINITY);
    log::info!("there is room");
    Ok(())
}

fn limit_files(octets: libc::rlim_t) {
    let limit = libc::rlimit { rlim_cur: octets, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives as long as the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
}

fn log_many(count: usize) {
    for number in 0..count {
        log::info!("record {number}");
    }
}

fn append(path: &str) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
