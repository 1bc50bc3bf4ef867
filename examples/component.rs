//! A component with an object in front: a work list that does two jobs at a time, and lets a job be withdrawn before its turn.
//!
//! ```text
//! cargo run --example component
//! ```
//!
//! You will see this. The job `iron` was withdrawn:
//!
//! ```text
//! wash: done after 20 ms
//! dry: done after 20 ms
//! fold: done after 20 ms
//! ```
//!
//! `WorkList` is the object. It is `Copy`, and its methods take a kernel or the context of a state. `add` answers by a postback, and
//! returns a `Ticket`: a job is withdrawn when its ticket is dropped. The page `guide::components` says more.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Parser;
use lenore::{Args, AsKernel, Context, Error, Kernel, Postback, Result, Return, Session, SessionId};

mod common;

/// A component that others use by an object in front of it
#[derive(Parser)]
#[command(name = "component", version)]
struct Flags {}

/// The object. Its session does a few jobs at a time, and has the others wait.
#[derive(Clone, Copy)]
struct WorkList(SessionId);

/// Withdraws its job when it is dropped, unless the job has begun.
struct Ticket(Postback);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.call(());
    }
}

struct Jobs {
    free: u32,
    /// Each job's number, how long it takes, and whom to tell.
    waiting: VecDeque<(u32, Duration, Postback)>,
    added: u32,
}

impl WorkList {
    fn spawn(kernel: &mut impl AsKernel, at_a_time: u32) -> Result<WorkList, Error> {
        let session = Session::new(Jobs { free: at_a_time, waiting: VecDeque::new(), added: 0 })
            // An alias keeps the session as long as there is another one.
            .state("_start", |cx| Ok(cx.alias_set("work list")?))
            .state("add", add)
            .state("begin", begin)
            .state("end", end)
            .state("withdraw", withdraw);
        session.spawn(kernel).map(WorkList)
    }

    /// Adds a job. `done` is called with how long it took.
    fn add(self, kernel: &mut impl AsKernel, takes: Duration, done: Postback) -> Result<Ticket, Error> {
        kernel.call(self.0, "add", (takes, done))?.take()
    }
}

fn add(cx: &mut Context<'_, Jobs>) -> Result<Return<Ticket>> {
    let (takes, done) = (cx.take::<Duration>(0)?, cx.take::<Postback>(1)?);
    let jobs = cx.heap();
    jobs.added += 1;
    let number = jobs.added;
    jobs.waiting.push_back((number, takes, done));
    cx.yield_("begin", ());
    let ticket = cx.postback("withdraw", (number,))?;
    // A ticket must not keep this session alive.
    ticket.weaken();
    Ok(Return(Ticket(ticket)))
}

fn begin(cx: &mut Context<'_, Jobs>) {
    let (jobs, mut calls) = cx.split();
    while jobs.free > 0 {
        let Some((_, takes, done)) = jobs.waiting.pop_front() else { return };
        jobs.free -= 1;
        calls.delay_add("end", takes, (takes, done));
    }
}

fn end(cx: &mut Context<'_, Jobs>) -> Result {
    let (took, done) = (cx.take::<Duration>(0)?, cx.take::<Postback>(1)?);
    done.call((took,));
    cx.heap().free += 1;
    cx.yield_("begin", ());
    Ok(())
}

fn withdraw(cx: &mut Context<'_, Jobs>) -> Result {
    let number = *cx.arg::<Args>(0)?.get::<u32>(0)?;
    cx.heap().waiting.retain(|(waiting, ..)| *waiting != number);
    Ok(())
}

fn main() -> Result {
    let Flags {} = Flags::parse();
    common::log_to_stderr();
    let mut kernel = Kernel::new()?;
    let list = WorkList::spawn(&mut kernel, 2)?;
    // Postbacks keep this session until all its jobs are done or withdrawn.
    Session::new(Vec::new())
        .state("_start", move |cx| {
            for job in ["wash", "dry", "iron", "fold"] {
                let done = cx.postback("done", (job,))?;
                let ticket = list.add(cx, Duration::from_millis(20), done)?;
                // Dropping the ticket withdraws the job.
                if job != "iron" {
                    cx.heap().push(ticket);
                }
            }
            Ok(())
        })
        .state("done", |cx| {
            // ARG0 is what was bound to the postback, ARG1 is the component's answer.
            let (job, took) = (*cx.arg::<Args>(0)?.get::<&str>(0)?, *cx.arg::<Args>(1)?.get::<Duration>(0)?);
            println!("{job}: done after {} ms", took.as_millis());
            Ok(())
        })
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}
