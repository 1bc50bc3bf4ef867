//! State machines: section 13 of the behaviour specification (K-NF).

mod lookup;
mod machines;
mod transitions;

use lenore::nfa::{Machine, MachineContext, Nfa, NfaError};
use lenore::{Died, Error, Kernel};
use util::diary::{Diary, Log};

type Cx<'a> = MachineContext<'a, Diary>;

fn machine(log: &Log) -> Nfa<Diary> {
    Nfa::new(Diary { name: "m", log: log.clone() })
}

/// A handler that writes down the state and the event.
fn note(cx: &mut Cx<'_>) {
    let (state, event) = (cx.state(), cx.event());
    cx.runstate().say(format_args!("{state}.{event}"));
}

/// Spawns a machine that an alias keeps alive once it is in the state `state`, which must handle `begin`.
fn begin(nfa: Nfa<Diary>, kernel: &mut Kernel, state: &str) -> Result<Machine, Error> {
    let machine = nfa
        .state(state, "begin", |cx| {
            cx.alias_set("m")?;
            cx.sig("DIE", "on_die");
            cx.handle_everywhere("on_die", on_die)?;
            Ok(())
        })
        .spawn(kernel)?;
    machine.goto_state(kernel, state, "begin", ())?;
    Ok(machine)
}

fn on_die(cx: &mut Cx<'_>) -> lenore::Result {
    cx.sig_handled();
    let died = cx.take::<Died>(1)?;
    cx.runstate().say(format_args!("died in {}: {}", died.event, died.exception));
    Ok(())
}

/// Posts events to a machine and runs the kernel to its end.
fn send(kernel: &mut Kernel, machine: Machine, events: &[&str]) -> Result<(), Error> {
    for event in events {
        kernel.post(machine, *event, ())?;
    }
    kernel.run()
}

/// What a self-call failed with.
fn nfa_error(result: Result<(), Error>) -> NfaError {
    match result {
        Err(Error::Exception(exception)) => exception.downcast_ref::<NfaError>().expect("a machine's error").clone(),
        other => panic!("this should have failed, but: {other:?}"),
    }
}

fn died(result: Result<(), Error>) -> Died {
    match result {
        Err(Error::Died(died)) => *died,
        other => panic!("run should have thrown, but: {other:?}"),
    }
}
