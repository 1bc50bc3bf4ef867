//! A state machine: a login dialogue in which one event, a line of text, means something else in each state.
//!
//! ```text
//! cargo run --example nfa
//! ```
//!
//! The user's lines come from a script and are shown behind the prompts. You will see this:
//!
//! ```text
//! login: edgar
//! password: raven
//! Login incorrect.
//! login: edgar
//! password: nevermore
//! Welcome, edgar. Failed logins: 1.
//! $ quoth
//! quoth: command not found
//! $ logout
//! Are you sure? perhaps
//! Please answer yes or no.
//! Are you sure? no
//! $ logout
//! Are you sure? yes
//! Goodbye, edgar.
//! ```
//!
//! "Are you sure?" is a state of its own: `call_state` asks the question on behalf of any other state, and
//! `return_state` gives the answer back.

use clap::Parser;
use lenore::nfa::{MachineContext, Nfa};
use lenore::{Kernel, Result};

mod common;

/// A login dialogue as a state machine; what the user types comes from a script
#[derive(Parser)]
#[command(name = "nfa", version)]
struct Flags {}

const SCRIPT: [&str; 9] = ["edgar", "raven", "edgar", "nevermore", "quoth", "logout", "perhaps", "no", "logout"];

/// What the machine remembers, whatever state it is in.
struct Terminal {
    keyboard: Box<dyn Iterator<Item = &'static str>>,
    user: String,
    failures: u32,
}

type Cx<'a> = MachineContext<'a, Terminal>;

fn main() -> Result {
    Flags::parse();
    common::log_to_stderr();
    let mut kernel = Kernel::new()?;
    let keyboard = Box::new(SCRIPT.into_iter().chain(std::iter::repeat("yes")));
    let machine = Nfa::new(Terminal { keyboard, user: String::new(), failures: 0 })
        .state("login", "ask", |cx| prompt(cx, "login:"))
        .state("login", "line", |cx| {
            cx.runstate().user = cx.take(0)?;
            cx.goto_state("password", "ask", ())
        })
        .state("password", "ask", |cx| prompt(cx, "password:"))
        .state("password", "line", check_password)
        .state("shell", "welcome", welcome)
        .state("shell", "ask", |cx| prompt(cx, "$"))
        .state("shell", "line", run_command)
        .state("shell", "answered", log_out_or_stay)
        .state("question", "ask", |cx| prompt(cx, "Are you sure?"))
        .state("question", "line", check_answer)
        .spawn(&mut kernel)?;
    machine.goto_state(&mut kernel, "login", "ask", ())?;
    // When the machine has stopped, no session is left, and the kernel returns.
    Ok(kernel.run()?)
}

/// Prompts, and posts what the user types then: whichever state the machine is in gets it.
fn prompt(cx: &mut Cx<'_>, text: &str) {
    let Some(line) = cx.runstate().keyboard.next() else { return };
    common::say_if_read(format_args!("{text} {line}"));
    cx.yield_("line", (String::from(line),));
}

fn check_password(cx: &mut Cx<'_>) -> Result {
    if cx.arg::<String>(0)? == "nevermore" {
        return cx.goto_state("shell", "welcome", ());
    }
    common::say_if_read("Login incorrect.");
    cx.runstate().failures += 1;
    cx.goto_state("login", "ask", ())
}

fn welcome(cx: &mut Cx<'_>) {
    let Terminal { user, failures, .. } = cx.runstate();
    common::say_if_read(format_args!("Welcome, {user}. Failed logins: {failures}."));
    cx.yield_("ask", ());
}

fn run_command(cx: &mut Cx<'_>) -> Result {
    let command: String = cx.take(0)?;
    if command == "logout" {
        return cx.call_state("answered", "question", "ask", ());
    }
    common::say_if_read(format_args!("{command}: command not found"));
    cx.yield_("ask", ());
    Ok(())
}

fn log_out_or_stay(cx: &mut Cx<'_>) -> Result {
    if cx.take(0)? {
        common::say_if_read(format_args!("Goodbye, {}.", cx.runstate().user));
        cx.stop();
    } else {
        cx.yield_("ask", ());
    }
    Ok(())
}

fn check_answer(cx: &mut Cx<'_>) -> Result {
    match cx.take::<String>(0)?.as_str() {
        "yes" => cx.return_state((true,)),
        "no" => cx.return_state((false,)),
        _ => {
            common::say_if_read("Please answer yes or no.");
            cx.yield_("ask", ());
            Ok(())
        }
    }
}
