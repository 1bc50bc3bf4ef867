//! Metrics of a running pool: the sums hold under load, and other programs read them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::control::Control;
use util::http::{get, get_with, wait_status};
use util::{Client, DEADLINE, Program, kill, test_program, wait_until};

use super::http::Watched;

const OPEN_METRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

/// The histograms and counters of one page in a form that can be compared with a later one: they only grow.
fn growing(samples: &BTreeMap<String, f64>) -> impl Iterator<Item = (&String, &f64)> {
    samples.iter().filter(|(name, _)| {
        let name = name.split('{').next().unwrap_or_default();
        ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix))
    })
}

/// Checks what has to hold inside one page.
fn check_sums(samples: &BTreeMap<String, f64>) {
    let states: f64 =
        samples.iter().filter(|(name, _)| name.starts_with("lenore_children{")).map(|(_, number)| number).sum();
    assert!(states <= samples["lenore_children_limit"], "{states}");
    for (name, count) in samples.iter().filter(|(name, _)| name.ends_with("_seconds_count")) {
        let name = name.trim_end_matches("_count");
        assert_eq!(samples[&format!("{name}_bucket{{le=\"+Inf\"}}")], *count, "{name}");
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(sample, seen)| {
                let le = sample.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?.strip_suffix("\"}")?;
                Some((le.replace("+Inf", "inf").parse().ok()?, *seen))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert_eq!(buckets.len(), 22, "{name}");
        assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name}: {buckets:?}");
    }
}

/// Runs a program that reads metrics, and fails if it is not content.
fn assert_reads(program: &mut Command, text: &str) {
    let mut running = match program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(running) => running,
        Err(error) => {
            assert!(std::env::var_os("LENORE_CI").is_none(), "{program:?}: {error}");
            return eprintln!("SKIPPED, it is missing: {program:?}");
        }
    };
    running.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("No module named 'prometheus_client'") && std::env::var_os("LENORE_CI").is_none() {
        return eprintln!("SKIPPED, it is missing: prometheus_client");
    }
    assert!(output.status.success(), "{program:?}: {said}\n{text}");
}

fn assert_readable(prometheus: &str, open_metrics: &str) {
    assert_reads(Command::new("promtool").args(["check", "metrics"]), prometheus);
    let python = std::env::var("LENORE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for (module, text) in
        [("prometheus_client.parser", prometheus), ("prometheus_client.openmetrics.parser", open_metrics)]
    {
        let program = format!(
            "import sys; from {module} import text_string_to_metric_families as read; \
             assert len(list(read(sys.stdin.buffer.read().decode('utf-8')))) > 20"
        );
        assert_reads(Command::new(&python).args(["-c", &program]), text);
    }
}

#[test] // O-ST-03, O-ST-05, O-ST-06, O-ST-08: clients work, children are killed, and readers read
fn sums_hold_under_load_and_nothing_goes_back_when_children_are_killed() {
    let watched = Watched::pool(6);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..5 {
            let (is_over, serves) = (&is_over, watched.serves);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::try_connect(serves) else { continue };
                    // Its child may be killed meanwhile.
                    let label = if number == 0 { "label </b>\"'\\\n" } else { "hello\n" };
                    if client.try_send(label).is_ok() {
                        let _ = client.try_read_line();
                    }
                }
            });
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| storm(&watched)));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let status =
        wait_status(watched.status, "a quiet pool", |status| (status.pool.states.idle == 6).then(|| status.clone()));
    assert!(status.counters.exits["signaled"] >= 20, "{:?}", status.counters);
    assert_eq!(status.counters.forks, 6 + status.counters.exits.values().sum::<u64>());
}

fn storm(watched: &Watched) {
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<Vec<_>>();
    let end = Instant::now() + Duration::from_secs(4);
    let mut before = get(watched.status, "/metrics").samples();
    let (series, mut round) = (names(&before), 0);
    while Instant::now() < end || round < 25 {
        if let Some(pid) = watched.children().get(round % 6) {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let page = get_with(watched.status, "/metrics", if round % 2 == 0 { "" } else { OPEN_METRICS });
        let now = page.samples();
        check_sums(&now);
        for (name, value) in growing(&before) {
            assert!(now[name] >= *value, "{name} has gone from {value} to {}", now[name]);
        }
        assert_eq!(names(&now), series, "no series comes or goes");
        (before, round) = (now, round + 1);
    }
    assert_readable(&get(watched.status, "/metrics").body, &get_with(watched.status, "/metrics", OPEN_METRICS).body);
    assert!(before["lenore_requests_total"] > 100.0, "{before:?}");
    assert!(before["lenore_request_duration_seconds_count"] > 100.0 && before["lenore_busy_seconds_total"] > 0.0);
}

#[test] // O-ST-05, O-ST-12: a dead child's processor time stays with its slot
fn processor_time_of_a_slot_outlives_its_child() {
    let watched = Watched::pool(1);
    let cpu = || get(watched.status, "/metrics").samples()["lenore_child_cpu_seconds_total{slot=\"0\"}"];
    // Waits by looking, and so uses processor time.
    let gate = tempfile::NamedTempFile::new().unwrap();
    let mut client = Client::connect(watched.serves);
    client.send(format!("gate {}\n", gate.path().display()));
    let used = wait_until("processor time", DEADLINE, || Some(cpu()).filter(|cpu| *cpu > 0.02));
    kill(watched.children()[0], Signal::SIGKILL).unwrap();
    wait_status(watched.status, "another child", |status| {
        status.children.iter().any(|child| child.generation == 2 && child.state == 'w').then_some(())
    });
    assert!(cpu() >= used, "{} after {used}", cpu());
    assert!(get(watched.status, "/metrics").samples()["lenore_child_resident_memory_bytes{slot=\"0\"}"] > 100_000.0);
}

#[test] // O-ST-09: who uses what, with its limit, and the names are the program's
fn prefix_is_set_and_the_parent_s_own_metrics_are_there() {
    let watched = Watched::start("--mode prefork:2 --metrics-prefix shop_");
    let samples = get(watched.status, "/metrics").samples();
    assert!(samples.contains_key("shop_children_limit") && samples.keys().all(|name| !name.contains("lenore_")));
    assert!(samples["process_max_fds"] > samples["process_open_fds"] && samples["process_open_fds"] > 3.0);
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(samples[name] > 0.0, "{name}");
    }
    for prefix in ["9-", "a:b_"] {
        let mut wrong = Program::new(test_program("daemon_control")).args(["--metrics-prefix", prefix]).start();
        assert!(!wrong.wait_exit(DEADLINE).success(), "{prefix}");
        let said = wrong.stderr_to_end(DEADLINE);
        assert!(said.contains("metrics_prefix"), "{said}");
    }
    // A gauge of the application that has the name of one of these.
    let mut clashing = Program::new(test_program("daemon_control"))
        .args(["--mode", "prefork:2", "--metrics-prefix", "shop_", "--gauge", "shop_children_limit"])
        .start();
    assert!(!clashing.wait_exit(DEADLINE).success());
    let said = clashing.stderr_to_end(DEADLINE);
    assert!(said.contains("shop_children_limit would be shown under a name"), "{said}");
}

#[test] // O-ST-08, O-ST-16: each format shows it, and other programs read that
fn unix_path_that_is_no_text_is_shown_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let (path, socket) = (dir.path().join(OsStr::from_bytes(b"a\"b\\c\nd\xff\xfee")), dir.path().join("control"));
    let program = Program::new(test_program("daemon_change")).arg("--unix").arg(&path).arg("--control").arg(&socket);
    let running = program.arg("--none").start();
    running.listening_addr();
    let mut control = Control::of(&running, &socket);
    let name = |end: &str| format!("{}/{end}", dir.path().display());
    let shown = name("a\"b\\c\nd\u{fffd}\u{fffd}e");
    let status = control.wait_status("its queue", |status| {
        let listener = status.listeners.iter().find(|listener| listener.name == shown)?;
        listener.queue.is_some().then(|| status.clone())
    });
    assert_eq!(status.listeners.len(), 2, "{:?}", status.listeners);
    let text = control.ask("status").ok();
    assert!(text.contains(&name("a\"b\\\\c\\nd\u{fffd}\u{fffd}e")), "{text}");
    let [prometheus, open_metrics] = ["metrics", "metrics openmetrics"].map(|command| control.ask(command).ok());
    for text in [&prometheus, &open_metrics] {
        let label = name("a\\\"b\\\\c\\nd\u{fffd}\u{fffd}e");
        assert!(text.contains(&format!("lenore_listen_queue{{listener=\"{label}\"}} 0\n")), "{text}");
    }
    assert_readable(&prometheus, &open_metrics);
}

#[test] // O-ST-08, O-ST-16: and nothing of it is in the metrics, which other programs read
fn label_of_a_client_is_escaped_in_every_format() {
    let watched = Watched::pool(1);
    let mut client = Client::connect(watched.serves);
    client.line("label \"\\\u{fffd}\u{fffd}\u{1b}e");
    let shown = "\"\\\u{fffd}\u{fffd}\u{1b}e";
    wait_status(watched.status, "the label", |status| (status.children[0].peer == shown).then_some(()));
    for (path, form) in [("/status", "\\\"\\\\\u{fffd}\u{fffd}\\u001be"), ("/", "\u{fffd}\u{fffd}\\u{1b}e")] {
        let answer = get(watched.status, path);
        assert!(answer.body.contains(form) && !answer.body.contains('\u{1b}'), "{path}: {}", answer.body);
    }
    let prometheus = get(watched.status, "/metrics").body;
    let open_metrics = get_with(watched.status, "/metrics", OPEN_METRICS).body;
    assert!(!prometheus.contains('\u{fffd}') && !open_metrics.contains('\u{fffd}'), "no label of a client is a series");
    assert_readable(&prometheus, &open_metrics);
}
