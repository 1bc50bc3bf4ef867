//! Tests in processes of their own.

use std::panic::catch_unwind;
use std::process::{Command, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lenore::testing::{in_process, in_process_within};
use lenore::{Error, Kernel, Session};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, setsid};

use crate::{panic_of, text_of};

/// Runs a session that forks; `in_child` runs in the child, and `in_parent` when the child has ended.
fn fork_and_wait(in_child: impl Fn() + 'static) {
    let mut kernel = Kernel::new().unwrap();
    Session::new(())
        .state("_start", |cx| cx.fork("forked", "in_child", ()))
        .state("forked", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            cx.sig_child(pid, "ended", ());
            Ok(())
        })
        .state("in_child", move |_| in_child())
        .state("ended", |_| println!("the child has ended"))
        .spawn(&mut kernel)
        .unwrap();
    kernel.run().unwrap();
}

#[test]
fn test_in_a_process_of_its_own_can_fork() {
    static WAS_HERE: AtomicBool = AtomicBool::new(false);
    in_process(|| {
        WAS_HERE.store(true, Ordering::Relaxed);
        fork_and_wait(|| println!("in the child"));
    });
    assert!(!WAS_HERE.load(Ordering::Relaxed), "this process has not run the test");
}

#[test]
fn panic_fails_the_test_with_all_that_the_process_has_printed() {
    let text = panic_of(|| {
        in_process(|| {
            println!("on standard output");
            eprintln!("on standard error");
            panic!("on purpose");
        });
    });
    let places = ["on standard output", "on standard error", "on purpose"].map(|word| text.find(word));
    assert!(places.is_sorted() && places[0].is_some(), "{text}");
    assert!(text.contains("the test has panicked in process"), "{text}");
    assert!(!text.contains("running 1 test"), "{text}");
}

#[test]
#[should_panic(expected = "panics in the child")]
fn panic_in_a_forked_child_that_comes_to_the_end_fails_the_test() {
    in_process(|| {
        let is_parent = std::process::id();
        fork_and_wait(|| ());
        assert_eq!(std::process::id(), is_parent, "panics in the child");
    });
}

#[test]
fn process_that_ends_before_its_test_fails_it() {
    let text = panic_of(|| in_process(|| exit(0)));
    assert!(text.contains("has ended before the test was over: exit status: 0"), "{text}");
}

#[test]
fn process_that_is_killed_fails_its_test() {
    let text = panic_of(|| in_process(|| raise(Signal::SIGKILL).unwrap()));
    assert!(text.contains("has ended before the test was over: signal: 9"), "{text}");
}

/// The pid of a process that does nothing, in a session of processes of its own.
fn start_and_detach() -> i32 {
    fn detach() -> std::io::Result<()> {
        setsid()?;
        Ok(())
    }
    let mut command = Command::new("sleep");
    command.arg("600");
    // SAFETY: `detach` makes one system call and nothing else.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, detach) };
    command.spawn().unwrap().id() as i32
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

/// Finds what stands behind `mark`, to the end of the line.
fn number_behind(mark: &str, text: &str) -> i32 {
    let rest = text.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {text}")).1;
    rest.lines().next().and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("no number in {text}"))
}

#[test]
fn test_that_is_not_over_in_time_fails_and_leaves_no_process() {
    // Enough for two processes to start on a machine that has much else to do.
    let limit = Duration::from_secs(3);
    let text = panic_of(|| {
        in_process_within(limit, || {
            println!("sleeper {}", start_and_detach());
            loop {
                std::thread::park();
            }
        });
    });
    assert!(text.contains("the test was not over after 3s; killed: ") && text.contains("(sleep)"), "{text}");
    assert!(!is_alive(number_behind("sleeper ", &text)), "{text}");
}

#[test]
fn process_that_a_test_leaves_behind_is_killed_and_named() {
    // Less than the 5 s that it has otherwise.
    let text = panic_of(|| in_process_within(Duration::from_secs(2), || println!("sleeper {}", start_and_detach())));
    let pid = number_behind("sleeper ", &text);
    assert!(text.contains(&format!("the test has left processes behind: {pid} (sleep)")), "{text}");
    assert!(!is_alive(pid), "{text}");
}

#[test]
fn test_may_have_several_processes_one_after_the_other() {
    for number in 0..3 {
        let text = panic_unless_elsewhere(number);
        assert!(text.is_none_or(|text| text.contains(&format!("this is number {number}"))));
    }
}

/// Returns the panic of a process in the test process. In the others there may be none.
fn panic_unless_elsewhere(number: u32) -> Option<String> {
    catch_unwind(|| in_process(|| panic!("this is number {number}"))).err().map(|payload| text_of(&*payload))
}

#[test]
fn test_process_inside_of_another_is_refused() {
    let text = panic_of(|| in_process(|| in_process(|| ())));
    assert!(text.contains("`in_process` was called inside of `in_process`"), "{text}");
}
