//! Reloads that are under way when the Daemon is told to end.

use std::fs;

use nix::sys::signal::Signal;
use util::control::Control;
use util::{Client, DEADLINE, wait_until};

use super::changing::Changing;

/// A pool of three in which one child has a request, and that is reloaded with a configuration whose children do not all come up.
/// Returns the client of the old child, and the asker.
#[track_caller]
fn reloading(args: &str, child: &str, stage: &str) -> (Changing, Client, Control) {
    let changing = Changing::pool(3, "value=a\n", &format!("--start-ms 60000 --grace-ms 3000 {args}"));
    let seen = changing.dir.path().join("seen");
    fs::create_dir(&seen).expect("a directory");
    let mut client = Client::connect(changing.addr);
    client.line("x");
    changing.write(&format!("value=b\nchild={child}\ndir={}\n", seen.display()));
    let mut asker = changing.control();
    asker.send("reload\n");
    let what = format!("a child that hangs while the reload is {stage}");
    changing.control().wait_status(&what, |status| {
        let is_so = status.reloads.stage.as_deref() == Some(stage) && changing.logged("waiting for") > 0;
        is_so.then_some(())
    });
    (changing, client, asker)
}

/// Ends a reload that is under way by a signal. The clients have requests in hand.
#[track_caller]
fn supersede(mut changing: Changing, mut asker: Control, clients: &mut [Client], signal: Signal) {
    for client in &mut *clients {
        client.send("late 700\r\n");
    }
    let busy = clients.len() as u32;
    changing.control().wait_status("busy children", |status| (status.pool.states.busy == busy).then_some(()));
    changing.signal(signal);
    assert_eq!(asker.read_answer().code(), "superseded");
    for client in clients {
        let answer = client.read_line();
        assert!(answer.contains(" late 700"), "{answer}");
        client.expect_eof();
    }
    assert_eq!(changing.running.wait_exit(DEADLINE).code(), Some(0), "{}", changing.running.stderr_text());
    assert_eq!(changing.running.descendants_alive(), [0; 0]);
    assert_eq!(changing.logged("reload is superseded by the shutdown: edition=2"), 1);
}

#[test] // O-RL-15: in time, and nothing that is in hand is lost
fn stop_while_a_canary_is_on_trial_loses_nothing() {
    for (signal, args) in [(Signal::SIGQUIT, ""), (Signal::SIGTERM, "--gentle")] {
        let (changing, client, asker) = reloading(args, "hang", "canary");
        supersede(changing, asker, &mut [client], signal);
    }
}

#[test] // O-RL-15: of either edition
fn stop_while_a_roll_is_under_way_loses_nothing() {
    for (signal, args) in [(Signal::SIGQUIT, ""), (Signal::SIGTERM, "--gentle")] {
        let (changing, old, asker) = reloading(args, "third hang", "rolling");
        let new = wait_until("a client of a new child", DEADLINE, || {
            let mut client = Client::connect(changing.addr);
            client.line("x").contains(" b ").then_some(client)
        });
        supersede(changing, asker, &mut [old, new], signal);
    }
}

#[test] // O-RL-15: TERM, which waits for no request, neither waits for children that hang
fn stop_at_once_during_a_reload_ends_in_time() {
    for (child, stage) in [("hang", "canary"), ("third hang", "rolling")] {
        let (mut changing, mut client, mut asker) = reloading("", child, stage);
        changing.signal(Signal::SIGTERM);
        assert_eq!(asker.read_answer().code(), "superseded");
        client.expect_eof();
        assert_eq!(changing.running.wait_exit(DEADLINE).code(), Some(0), "{}", changing.running.stderr_text());
        assert_eq!(changing.running.descendants_alive(), [0; 0]);
    }
}
