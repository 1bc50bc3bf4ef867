//! A program that counts in each of its processes, for `tests/control/app_metrics.rs`.
//!
//! `--start N`: pre-forking, with N children that are busy all the time. `--max N`: post-forking, with a child for each USR2. Without
//! either it does not fork, and counts on USR2. `--steps N`: a process that counts does it N times, says `counted`, and stays; a child
//! that is forked for a request ends. Without it a child says `counting` and goes on without end. `--undeclared`: there are no metrics.
//!
//! On USR1 the parent writes what the metrics are, as one line, `metrics NAME=NUMBER ...`.

use std::fmt::Write;
use std::time::Duration;

use lenore::daemon::metrics::{Combine, Counter, Gauge, Histogram, MetricError};
use lenore::daemon::view::Sample;
use lenore::daemon::{Forking, Report};
use lenore::{Context, Daemon, Kernel, Result, Session};

use util::daemon_program::{Flags, log_to_stderr, say};

struct App {
    flags: Flags,
    daemon: Daemon,
    meters: Option<Meters>,
}

#[derive(Clone)]
struct Meters {
    begun: Counter,
    step: Histogram,
    ended: Counter,
    busy: Gauge,
    highest_pid: Gauge,
}

impl Meters {
    fn declare(daemon: Daemon) -> std::result::Result<Meters, MetricError> {
        let metrics = daemon.metrics();
        Ok(Meters {
            begun: metrics.counter("begun_total", "Steps that were begun")?,
            step: metrics.histogram("step_seconds", "How long a step takes")?,
            ended: metrics.counter("ended_total", "Steps that have ended")?,
            busy: metrics.gauge("busy", "Processes that count", Combine::Sum)?,
            highest_pid: metrics.gauge("highest_pid", "The highest pid of those", Combine::Max)?,
        })
    }

    fn count(&self) {
        self.begun.inc();
        self.step.observe(Duration::from_millis(1));
        self.ended.inc();
    }
}

type Cx<'a> = Context<'a, App>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    log_to_stderr();
    let flags = Flags::read();
    let mut kernel = Kernel::new()?;
    let mut builder = Daemon::builder();
    if let Some(children) = flags.number("--start") {
        builder = builder.start_children(children).max_children(children).min_spare(1).max_spare(children).requests(0);
    }
    if let Some(children) = flags.number("--max") {
        builder = builder.max_children(children);
    }
    let daemon = builder.spawn(&mut kernel)?;
    let meters = if flags.has("--undeclared") { None } else { Some(Meters::declare(daemon)?) };
    Session::new(App { flags, daemon, meters })
        .state("_start", |cx| -> Result {
            // It lives as long as any other.
            cx.alias_set("app")?;
            for signal in ["daemon_start", "daemon_child", "daemon_accept", "daemon_shutdown", "USR1", "USR2"] {
                cx.sig(signal, signal);
            }
            Ok(())
        })
        .state("daemon_start", |_| say("started"))
        .state("daemon_child", child)
        .state("daemon_accept", accept)
        .state("daemon_shutdown", |cx| {
            cx.alarm_remove_all();
            cx.sig_clear("USR2");
        })
        .state("step", step)
        .state("stay", |_| ())
        .state("own_parent", |_| ())
        .state("own_child", own_child)
        .state("USR1", |cx| {
            cx.sig_handled();
            show(cx)
        })
        .state("USR2", request)
        .spawn(&mut kernel)?;
    Ok(kernel.run()?)
}

/// A new child. One that is forked for a request has it.
fn child(cx: &mut Cx<'_>) -> Result {
    let daemon = cx.heap().daemon;
    if daemon.status(cx)?.forking == Forking::Post {
        work(cx)?;
        return Ok(daemon.update_status(cx, Report::Done)?);
    }
    Ok(daemon.update_status(cx, Report::Wait)?)
}

/// A child of the pool has its request, which does not end.
fn accept(cx: &mut Cx<'_>) -> Result {
    let daemon = cx.heap().daemon;
    if daemon.status(cx)?.slot.is_some() {
        daemon.update_status(cx, Report::Req)?;
        work(cx)?;
    }
    Ok(())
}

fn work(cx: &mut Cx<'_>) -> Result {
    let (steps, meters) = (cx.heap().flags.number::<u64>("--steps"), cx.heap().meters.clone());
    if let Some(meters) = &meters {
        // What is declared again is found, also where it could not be declared any more.
        let again = Meters::declare(cx.heap().daemon)?;
        if steps != Some(0) {
            again.busy.inc();
            again.highest_pid.set(std::process::id().into());
        }
        (0..steps.unwrap_or(0)).for_each(|_| meters.count());
    }
    let too_late = cx.heap().daemon.metrics().counter("late_total", "Declared in a child").err();
    say(&match (steps, too_late) {
        (Some(_), Some(MetricError::NotTheParent { .. } | MetricError::ChildrenForked { .. })) => "counted".to_owned(),
        (Some(_), None) if !cx.heap().flags.has("--start") => "counted".to_owned(),
        (None, _) => "counting".to_owned(),
        (_, error) => format!("declared late: {error:?}"),
    });
    if steps.is_none() {
        cx.yield_("step", ());
    }
    if cx.heap().flags.has("--own-child") {
        cx.fork("own_parent", "own_child", (std::process::id(),));
    }
    // Keeps the child.
    cx.delay("stay", Duration::from_secs(600), ());
    Ok(())
}

fn step(cx: &mut Cx<'_>) {
    if let Some(meters) = cx.heap().meters.as_ref() {
        (0..1000).for_each(|_| meters.count());
    }
    cx.yield_("step", ());
}

/// A process that a child has forked counts too, after its parent's death.
fn own_child(cx: &mut Cx<'_>) -> Result {
    cx.alarm_remove_all();
    let parent: u32 = cx.take(0)?;
    while std::os::unix::process::parent_id() == parent {
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(meters) = cx.heap().meters.as_ref() {
        meters.busy.set(1_000_000);
        (0..10).for_each(|_| meters.count());
    }
    say("orphan has counted");
    Ok(())
}

fn request(cx: &mut Cx<'_>) -> Result {
    cx.sig_handled();
    let daemon = cx.heap().daemon;
    match daemon.status(cx)?.forking {
        Forking::Post => Ok(daemon.update_status_with(cx, Report::Req, ())?),
        Forking::None => work(cx),
        _ => Ok(()),
    }
}

fn show(cx: &mut Cx<'_>) -> Result {
    let daemon = cx.heap().daemon;
    let Some(snapshot) = daemon.snapshot(cx)? else { return Ok(()) };
    let mut line = "metrics".to_owned();
    for family in snapshot.metrics {
        let name = &family.name;
        match family.sample {
            Sample::Counter(count) => write!(line, " {name}={count}")?,
            Sample::Gauge(value) => write!(line, " {name}={value}")?,
            Sample::Histogram(histogram) => {
                write!(line, " {name}_count={} {name}_ms={:.0}", histogram.count(), histogram.sum * 1e3)?;
            }
            _ => {}
        }
    }
    say(&line);
    Ok(())
}
