//! Children of a new configuration take the place of those of the old one: when, how many at once, and of how many configurations.

use std::collections::BTreeSet;

use lenore::daemon::view::Snapshot;
use util::{Client, DEADLINE, Program, test_program, wait_until};

use super::changing::Changing;

/// Clients that keep so many children busy, one each.
#[track_caller]
fn occupy(changing: &Changing, number: u32) -> Vec<Client> {
    let clients = (0..number).map(|_| {
        let mut client = Client::connect(changing.addr);
        client.line("x");
        client
    });
    clients.collect()
}

#[test] // O-RL-04: it has to say so itself
fn canary_that_answers_clients_and_reports_nothing_is_not_ready() {
    let changing = Changing::pool(2, "value=a\n", "--start-ms 1000");
    let old = changing.children();
    let mut clients = occupy(&changing, 2);
    changing.write("value=b\nchild=mute\n");
    let mut asker = changing.control();
    asker.send("reload\n");
    // Nobody else can answer.
    assert_eq!(changing.value(), "b");
    let answer = asker.read_answer();
    assert_eq!(answer.code(), "rolled_back");
    assert!(answer.last.contains("was not ready within start_timeout"), "{answer:?}");
    for client in &mut clients {
        let answer = client.line("y");
        assert!(answer.ends_with(" a y"), "no old child was asked to go: {answer}");
    }
    wait_until("the old children alone", DEADLINE, || (changing.children() == old).then_some(()));
}

#[test] // O-RL-04: the canary takes its time
fn old_children_stay_until_the_canary_has_reported() {
    let changing = Changing::pool(2, "value=a\n", "");
    let gate = changing.dir.path().join("gate");
    std::fs::write(&gate, "").expect("a file");
    let mut clients = occupy(&changing, 2);
    changing.write(&format!("value=b\nchild=held {}\n", gate.display()));
    let mut asker = changing.control();
    asker.send("reload\n");
    wait_until("a canary", DEADLINE, || (changing.children().len() == 3).then_some(()));
    for client in &mut clients {
        let answer = client.line("y");
        assert!(answer.ends_with(" a y"), "{answer}");
    }
    std::fs::remove_file(&gate).expect("a file");
    // One old child goes for each new one, whichever is the first.
    wait_until("old children that were asked to go", DEADLINE, || {
        clients.retain_mut(|client| !client.line("z").ends_with(" a z last"));
        clients.is_empty().then_some(())
    });
    asker.read_answer().ok();
}

/// Reloads a pool, and returns how many children were ready at least, and how many there were at most.
#[track_caller]
fn course(changing: &Changing, children: u32) -> (u32, u32) {
    changing.wait_idle(children);
    let before = changing.children();
    // One that is missing is seen.
    changing.write("value=b\nchild=slow 400\n");
    changing.ask("reload no-wait").ok();
    let mut control = changing.control();
    let (mut fewest, mut most) = (u32::MAX, 0);
    wait_until("the end of the reload", 3 * DEADLINE, || {
        let status = control.status();
        fewest = fewest.min(status.pool.states.idle + status.pool.states.busy);
        most = most.max(status.pool.total);
        (status.reloads.verdicts["applied"] == 1).then_some(())
    });
    changing.wait_idle(children);
    assert!(changing.children().iter().all(|pid| !before.contains(pid)));
    (fewest, most)
}

#[test] // O-RL-05: one child more than max_children, and none that is not ready
fn reload_keeps_as_many_children_ready_as_before() {
    let changing = Changing::pool(3, "value=a\n", "");
    assert_eq!(course(&changing, 3), (3, 4));
}

#[test] // O-RL-05: with as many more as surge says
fn reload_has_no_more_children_than_max_children_and_surge() {
    let changing = Changing::pool(3, "value=a\n", "--surge 2");
    let (fewest, most) = course(&changing, 3);
    // The canary is alone, and may be the only one that was not needed.
    assert!(fewest == 3 && (4..=5).contains(&most), "{fewest} {most}");
}

#[test] // O-RL-05: with room for the first new one alone
fn reload_may_leave_max_unavailable_children_less_ready_than_before() {
    let size = "--start 3 --min-spare 3 --max-spare 3 --max 4 --surge 0";
    let changing = Changing::start("value=a\n", &format!("{size} --max-unavailable 1"));
    assert_eq!(course(&changing, 3), (2, 4));
}

#[test] // O-RL-05
fn program_that_could_replace_no_child_does_not_start() {
    let program = Program::new(test_program("daemon_change")).args(["--surge", "0", "--max-unavailable", "0"]);
    let mut running = program.start();
    assert_eq!(running.wait_exit(DEADLINE).code(), Some(1));
    let said = running.stderr_to_end(DEADLINE);
    assert!(said.contains("surge and max_unavailable are both 0"), "{said}");
}

/// The configurations that children have. There are two at most.
#[track_caller]
fn editions(status: &Snapshot) -> BTreeSet<u64> {
    let editions: BTreeSet<u64> = status.children.iter().filter_map(|child| child.edition).map(u64::from).collect();
    assert!(editions.len() <= 2, "{editions:?}");
    editions
}

#[test] // O-RL-09: and whoever asks meanwhile gets the verdict of the next run
fn third_configuration_waits_for_the_last_child_of_the_first() {
    let changing = Changing::pool(2, "value=a\n", "--surge 3");
    let mut client = occupy(&changing, 1).remove(0);
    changing.reload("value=b\n").ok();
    let (mut first, mut second) = (changing.control(), changing.control());
    changing.write("value=c\n");
    first.send("reload\n");
    let mut control = changing.control();
    let waits = |status: &Snapshot| status.reloads.stage.as_deref() == Some("waiting");
    let seen = control.wait_status("a reload that waits", |status| waits(status).then(|| editions(status)));
    assert_eq!(seen, BTreeSet::from([1, 2]));
    changing.write("value=d\n");
    second.send("reload\n");
    for _ in 0..20 {
        let status = control.status();
        assert!(waits(&status), "{:?}", status.reloads);
        assert_eq!(editions(&status), BTreeSet::from([1, 2]));
    }
    assert_eq!(changing.value(), "b");
    assert!(client.line("y").ends_with(" a y last"));
    wait_until("both", DEADLINE, || {
        let status = control.status();
        editions(&status);
        (status.reloads.verdicts["applied"] == 3).then_some(())
    });
    assert_eq!((first.read_answer().ok(), second.read_answer().ok()), ("edition=3\n".into(), "edition=4\n".into()));
    assert_eq!(changing.value(), "d");
}
