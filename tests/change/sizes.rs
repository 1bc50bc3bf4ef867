//! What operators have made of the size of a pool, and reloads (O-RL-12).

use nix::sys::signal::Signal;

use super::changing::Changing;

/// The limit of children, and how many wait for clients at least and at most.
#[track_caller]
fn size(changing: &Changing) -> (u32, u32, u32) {
    let pool = changing.control().status().pool;
    (pool.limit, pool.min_spare, pool.max_spare)
}

/// Waits until a signal has made this of the size.
#[track_caller]
fn wait_size(changing: &Changing, wanted: (u32, u32, u32)) {
    changing.control().wait_status(&format!("{wanted:?}"), |status| {
        let pool = &status.pool;
        ((pool.limit, pool.min_spare, pool.max_spare) == wanted).then_some(())
    });
}

#[test] // O-RL-12
fn resize_survives_a_reload_that_leaves_that_number_alone() {
    let changing = Changing::pool(2, "value=a\nmost=2\n", "");
    changing.signal(Signal::SIGTTIN);
    changing.wait_idle(3);
    changing.reload("value=b\nmost=2\n").ok();
    assert_eq!(size(&changing), (3, 3, 3));
    changing.reload("value=c\nmax=6\nmost=2\n").ok();
    assert_eq!(size(&changing), (6, 3, 3));
    changing.reload("value=d\nmax=5\nmost=4\n").ok();
    assert_eq!(size(&changing), (5, 3, 4));
}

#[test] // O-RL-12: fewer than the program has set
fn ttou_survives_a_reload_and_one_that_fails() {
    let changing = Changing::pool(3, "value=a\n", "");
    changing.signal(Signal::SIGTTOU);
    changing.wait_idle(2);
    changing.reload("value=b\n").ok();
    changing.wait_idle(2);
    assert_eq!(size(&changing), (2, 2, 2));
    assert_eq!(changing.reload("child=die\n").code(), "rolled_back");
    assert_eq!(changing.reload("nonsense\n").code(), "rejected");
    changing.wait_idle(2);
    assert_eq!((size(&changing), changing.value().as_str()), ((2, 2, 2), "b"));
    // It counts from there.
    changing.signal(Signal::SIGTTIN);
    changing.wait_idle(3);
}

#[test] // O-RL-12
fn numbers_of_a_resize_survive_a_reload_but_for_those_that_it_changes() {
    let changing = Changing::pool(2, "value=a\nmin=2\n", "");
    changing.ask("resize max_children=7 min_spare=3 max_spare=5").ok();
    changing.reload("value=b\nmin=2\n").ok();
    assert_eq!(size(&changing), (7, 3, 5));
    changing.reload("value=c\nmin=1\n").ok();
    assert_eq!(size(&changing), (7, 1, 5));
    changing.ask("resize reset").ok();
    assert_eq!(size(&changing), (2, 1, 2));
}

#[test] // O-RL-12: a number that the file does not have follows from `max`, unless an operator has set it
fn resized_spares_survive_a_reload_that_changes_only_the_limit() {
    let changing = Changing::start("value=a\nmax=10\n", "--start 1");
    changing.wait_idle(2);
    assert_eq!(size(&changing), (10, 2, 8));
    changing.ask("resize max_spare=5").ok();
    changing.reload("value=b\nmax=20\n").ok();
    assert_eq!(size(&changing), (20, 4, 5));
    // The way back to what the file says leads to what follows from it.
    changing.ask("resize reset").ok();
    assert_eq!(size(&changing), (20, 4, 16));
    // Where both can't be, the file has the spares, and the operator keeps the limit.
    changing.ask("resize max_children=30 max_spare=4").ok();
    changing.reload("value=c\nmax=20\nmin=6\n").ok();
    assert_eq!(size(&changing), (30, 6, 16));
}

#[test] // O-RL-12, O-RL-20
fn resize_of_a_post_forking_server_survives_a_reload() {
    let changing = Changing::start("value=a\n", "--post --max 4");
    assert_eq!(changing.value(), "a");
    let (_, min, most) = size(&changing);
    changing.signal(Signal::SIGTTIN);
    wait_size(&changing, (5, min, most));
    changing.reload("value=b\n").ok();
    assert_eq!((size(&changing), changing.value().as_str()), ((5, min, most), "b"));
    changing.reload("value=c\nmax=2\n").ok();
    assert_eq!(size(&changing), (2, min, most));
}
