//! What a child is slow to read.

use lenore::wheel::{Run, RunEvent};
use lenore::{Context, Error, Kernel};

use super::{Heap, Scenario, is_ours, say, session, watching, wheel};

pub const SCENARIOS: &[(&str, Scenario)] = &[("marks", marks), ("wrong_marks", wrong_marks)];

/// A child that does not read before it is asked to.
fn marks(kernel: &mut Kernel) -> Result<(), Error> {
    fn low(cx: &mut Context<'_, Heap>) -> lenore::Result {
        is_ours(cx, 0)?;
        println!("low: {}", wheel(cx).pending_output() <= 10_000);
        println!("put: {:?}", wheel(cx).put("x".repeat(999)));
        wheel(cx).shutdown_stdin_after_flush();
        Ok(())
    }
    let waits = "trap 'exec wc -c' USR1; echo ready; while :; do :; done";
    watching(move || Run::shell(waits).watermarks(10_000, 100_000).on_low("other").on_high("high"))
        .state("stdout", |cx| {
            let line = cx.take::<String>(0)?;
            println!("out {line}");
            if line == "ready" {
                let mut lines = 1;
                while wheel(cx).put("x".repeat(999)).takes_more() {
                    lines += 1;
                }
                println!("{lines} lines");
                wheel(cx).event(RunEvent::Low, "low");
            }
            Ok(())
        })
        .state("high", |cx| {
            is_ours(cx, 0)?;
            println!("high");
            Ok(wheel(cx).kill("USR1")?)
        })
        .state("low", low)
        .spawn(kernel)
        .map(drop)
}

fn wrong_marks(kernel: &mut Kernel) -> Result<(), Error> {
    session(|| Run::program(["true"]))
        .state("_start", |cx| {
            let cat = || Run::program(["cat"]);
            say("no low event", cat().watermarks(1, 2).start(cx));
            say("no marks", cat().on_low("low").start(cx));
            say("low is high", cat().watermarks(2, 2).on_low("low").start(cx));
        })
        .spawn(kernel)
        .map(drop)
}
