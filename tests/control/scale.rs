//! How long answers take with many children that are all busy.

use std::fmt::Write;
use std::time::{Duration, Instant};

use util::control::{Control, Steered};
use util::http::{get, status_address};
use util::{Client, wait_until};

/// What nothing takes, be there as many children as there may.
const LONG: Duration = Duration::from_secs(120);

/// How long one kind of answer took, the shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn of(times: usize, mut ask: impl FnMut()) -> Times {
        let mut taken: Vec<Duration> = (0..times)
            .map(|_| {
                let begin = Instant::now();
                ask();
                begin.elapsed()
            })
            .collect();
        taken.sort_unstable();
        Times(taken)
    }

    /// The time that so many of a hundred stay below.
    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }
}

/// What a pool of so many children takes for its answers.
struct Answers {
    status: Times,
    http_status: Times,
    metrics: Times,
    children: Times,
    peek: Times,
}

/// Has a pool of so many children that are all busy, and asks.
fn ask_busy_pool(children: u32, times: usize) -> Answers {
    let size = format!("--max {children} --min-spare {children} --max-spare {children}");
    let steered = Steered::start(&format!("--mode prefork:{children} {size} --status 127.0.0.1:0"));
    let address = status_address(&steered.running);
    let mut control = steered.control();
    let wait = |control: &mut Control, what: &str, is_so: fn(&lenore::daemon::view::States) -> u32| {
        wait_until(what, LONG, || (is_so(&control.status().pool.states) == children).then_some(()));
    };
    wait(&mut control, "idle children", |states| states.idle);
    let clients: Vec<Client> = (0..children)
        .map(|_| {
            let mut client = Client::connect(steered.addr);
            client.send("late 3600000\r\n");
            client
        })
        .collect();
    wait(&mut control, "busy children", |states| states.busy);
    // An answer in text, as `Control::status` would be measured with the test's own reading.
    let answers = Answers {
        status: Times::of(times, || drop(control.ask("status").ok())),
        http_status: Times::of(times, || assert_eq!(get(address, "/status").status, 200)),
        metrics: Times::of(times, || assert_eq!(get(address, "/metrics").status, 200)),
        children: Times::of(times / 10, || drop(control.ask("children").ok())),
        peek: Times::of(times / 10, || {
            let text = control.ask(&format!("peek {}", children / 2)).ok();
            assert!(text.contains("late"), "the child itself has answered: {text}");
        }),
    };
    assert_eq!(control.status().pool.states.busy, children);
    drop(clients);
    answers
}

#[test] // O-CT-10, O-CT-11, O-ST-01
fn answers_of_a_hundred_busy_children_come_soon() {
    let answers = ask_busy_pool(100, 100);
    // The machine does other things meanwhile, so the best tenth counts.
    let limits = [
        ("status", &answers.status, 20),
        ("/status", &answers.http_status, 20),
        ("/metrics", &answers.metrics, 50),
        ("peek CHILD", &answers.peek, 1000),
    ];
    for (what, times, limit) in limits {
        let best = times.percentile(10);
        assert!(best <= Duration::from_millis(limit), "{what}: {best:?}");
    }
}

#[test] // O-CT-10, O-CT-11, O-ST-01
#[ignore = "measures; run it by hand, alone, with --release"]
fn cost_of_answers_by_number_of_children() {
    let mut lines = String::new();
    for children in [10, 100, 1000] {
        let answers = ask_busy_pool(children, 300);
        for (what, times) in [
            ("status", &answers.status),
            ("/status", &answers.http_status),
            ("/metrics", &answers.metrics),
            ("children", &answers.children),
            ("peek CHILD", &answers.peek),
        ] {
            let [median, late] = [50, 99].map(|percent| times.percentile(percent).as_secs_f64() * 1e3);
            let _ = writeln!(lines, "{children:4} busy children: {what:10} p50 {median:7.2} ms, p99 {late:7.2} ms");
        }
    }
    println!("{lines}");
}
