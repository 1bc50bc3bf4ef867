use super::super::sample::{HOSTILE, snapshot};
use super::*;
use crate::daemon::view::Snapshot;

fn both(snapshot: &Snapshot) -> [String; 2] {
    [Format::Prometheus, Format::OpenMetrics].map(|format| text(snapshot, format, PREFIX))
}

/// The samples by name with labels.
fn samples(text: &str) -> BTreeMap<&str, &str> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let samples: BTreeMap<&str, &str> = lines.iter().map(|line| line.rsplit_once(' ').unwrap()).collect();
    assert_eq!(samples.len(), lines.len(), "each series is there once: {text}");
    samples
}

#[test] // O-ST-09, O-ST-04: every name, in both formats
fn every_metric_has_its_name_and_its_limit() {
    for text in both(&snapshot()) {
        let samples = samples(&text);
        for (sample, value) in [
            ("lenore_children{state=\"busy\"}", "2"),
            ("lenore_children{state=\"torn\"}", "1"),
            ("lenore_children_limit", "7"),
            ("lenore_requests_total", "210"),
            ("lenore_requests_failed_total", "3"),
            ("lenore_request_duration_seconds_count", "5"),
            ("lenore_accept_wait_seconds_count", "1"),
            ("lenore_child_start_seconds_count", "1"),
            ("lenore_loop_turn_seconds_count", "0"),
            ("lenore_oldest_request_age_seconds", "3.25"),
            ("lenore_listen_queue{listener=\"127.0.0.1:3000\"}", "5"),
            ("lenore_listen_queue_limit{listener=\"127.0.0.1:3000\"}", "128"),
            ("lenore_listen_overflows_total", "17"),
            ("lenore_forks_total", "9"),
            ("lenore_fork_failures_total{errno=\"EAGAIN\"}", "4"),
            ("lenore_child_exits_total{cause=\"signaled\"}", "2"),
            ("lenore_child_exits_total{cause=\"rogue\"}", "0"),
            ("lenore_busy_seconds_total", "12.5"),
            ("lenore_saturated_seconds_total", "2.5"),
            ("lenore_backoff_active", "1"),
            ("lenore_generation", "1"),
            ("lenore_reloads_total{result=\"applied\"}", "1"),
            ("lenore_reloads_total{result=\"rolled_back\"}", "2"),
            ("lenore_last_reload_successful", "0"),
            ("lenore_last_reload_success_timestamp_seconds", "1795908699.000123"),
            ("lenore_upgrades_total{result=\"applied\"}", "3"),
            ("lenore_board_torn_reads_total", "1"),
            ("lenore_build_info{version=\"0.1.0\"}", "1"),
            ("lenore_child_resident_memory_bytes{slot=\"2\"}", "14051000"),
            ("lenore_child_resident_memory_bytes{slot=\"7\"}", "0"),
            ("lenore_child_cpu_seconds_total{slot=\"7\"}", "7.5"),
            ("process_cpu_seconds_total", "1.5"),
            ("process_resident_memory_bytes", "14051000"),
            ("process_open_fds", "12"),
            ("process_max_fds", "1024"),
            ("process_start_time_seconds", "1795905000.5"),
            ("logins_total", "5"),
            ("carts", "-2"),
            ("render_seconds_count", "1"),
        ] {
            assert_eq!(samples.get(sample), Some(&value), "{sample}");
        }
    }
}

#[test] // O-ST-06: the configuration of the start counts, and a program that has none has no such series
fn last_reload_is_successful_until_one_fails() {
    let successful = |reloads: Reloads| {
        let snapshot = Snapshot { reloads, ..snapshot() };
        both(&snapshot).map(|text| samples(&text).get("lenore_last_reload_successful").map(|&value| value.to_owned()))
    };
    let with_last = |verdict: &str| {
        let mut reloads = snapshot().reloads;
        if let Some(last) = &mut reloads.last {
            verdict.clone_into(&mut last.verdict);
        }
        successful(reloads)
    };
    let both = |value: &str| [Some(value.to_owned()), Some(value.to_owned())];
    assert_eq!(successful(Reloads { last: None, ..snapshot().reloads }), both("1"));
    assert_eq!(with_last("applied"), both("1"));
    for failed in ["rejected", "rolled_back", "superseded", "taken_back"] {
        assert_eq!(with_last(failed), both("0"), "{failed}");
    }
    assert_eq!(successful(Reloads::default()), [None, None]);
}

#[test] // O-ST-03: buckets are cumulative, and the last one is the count
fn histogram_adds_up() {
    for text in both(&snapshot()) {
        let samples = samples(&text);
        let bucket = |le: &str| samples[format!("lenore_request_duration_seconds_bucket{{le=\"{le}\"}}").as_str()];
        assert_eq!(
            ["0.000064", "0.000128", "0.001024", "0.002048", "67.108864", "+Inf"].map(bucket),
            ["0", "1", "2", "3", "4", "5"]
        );
        assert_eq!(samples["lenore_request_duration_seconds_count"], "5");
        assert_eq!(samples["lenore_request_duration_seconds_sum"], "95.00219");
        let buckets = text.matches("lenore_request_duration_seconds_bucket").count();
        assert_eq!(buckets, 22, "an octave each, and all");
    }
}

#[test] // O-ST-07: absent, and never 0
fn queue_that_can_not_be_known_has_no_series() {
    for text in both(&snapshot()) {
        assert!(!text.contains("/run"), "{text}");
    }
    let mut snapshot = snapshot();
    snapshot.listeners.remove(0);
    snapshot.counters.listen_overflows = None;
    for text in both(&snapshot) {
        assert!(!text.contains("listen_"), "{text}");
    }
}

#[test] // O-ST-07: listeners that share a port are one series
fn queues_of_one_name_are_added_up() {
    let mut snapshot = snapshot();
    snapshot.listeners[1] = snapshot.listeners[0].clone();
    for text in both(&snapshot) {
        assert_eq!(samples(&text)["lenore_listen_queue{listener=\"127.0.0.1:3000\"}"], "10");
    }
}

#[test] // O-ST-06, O-ST-08
fn hostile_labels_are_escaped() {
    let mut snapshot = snapshot();
    snapshot.listeners[0].name = HOSTILE.to_owned();
    snapshot.metrics[0].help = HOSTILE.to_owned();
    for (text, quote) in both(&snapshot).into_iter().zip(["\"", "\\\""]) {
        let label = "{listener=\"</b>\\\"'&\\\\\\n\\\\u{1b}[2J\\\\u{202e}\\\\u{0}é\"} 5\n";
        assert!(text.contains(label), "{text}");
        assert!(text.contains(&format!(" </b>{quote}'&\\\\\\n\\\\u{{1b}}[2J")), "{text}");
        assert!(!text.replace('\n', "").chars().any(is_harmful), "{text}");
    }
}

#[test] // O-ST-06: what clients say is nowhere, and neither are processes
fn series_do_not_depend_on_clients_and_processes() {
    let one = snapshot();
    let mut other = snapshot();
    other.children.truncate(2);
    other.children[1].peer = "another".to_owned();
    other.children[0].pid = Some(99_999);
    other.oldest_request = None;
    let names = |text: &str| samples(text).into_keys().map(str::to_owned).collect::<Vec<_>>();
    for (one, other) in both(&one).iter().zip(&both(&other)) {
        let slots = |names: Vec<String>| {
            names.into_iter().filter(|name| !name.contains("child_resident_memory_bytes")).collect::<Vec<_>>()
        };
        assert_eq!(slots(names(one)), slots(names(other)));
    }
}

#[test] // each family by itself, with its type before its samples; the older format has the name of the samples in it
fn families_are_not_interleaved_and_have_their_metadata() {
    let [prometheus, open_metrics] = both(&snapshot());
    assert!(prometheus.contains("# TYPE lenore_requests_total counter\nlenore_requests_total 210\n"), "{prometheus}");
    assert!(prometheus.contains("# TYPE lenore_build_info gauge\n"), "{prometheus}");
    assert!(open_metrics.contains("# TYPE lenore_requests counter\nlenore_requests_total 210\n"), "{open_metrics}");
    assert!(open_metrics.contains("# TYPE lenore_build info\n"), "{open_metrics}");
    assert!(open_metrics.contains("# UNIT lenore_busy_seconds seconds\n"), "{open_metrics}");
    assert!(open_metrics.contains("# UNIT lenore_child_resident_memory_bytes bytes\n"), "{open_metrics}");
    assert!(open_metrics.ends_with("\n# EOF\n") && !prometheus.contains("# EOF") && !prometheus.contains("# UNIT"));
    for text in [prometheus, open_metrics] {
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(types.iter().collect::<BTreeSet<_>>().len(), types.len());
        assert_eq!(text.matches("# HELP").count(), types.len());
        assert!(!text.contains('\r'));
    }
}

#[test]
fn second_family_of_a_name_is_left_out() {
    let mut snapshot = snapshot();
    let twice = snapshot.metrics.clone();
    snapshot.metrics.extend(twice);
    "lenore_requests_total".clone_into(&mut snapshot.metrics[1].name);
    snapshot.metrics[1].sample = Sample::Counter(77);
    for text in both(&snapshot) {
        assert_eq!(samples(&text)["lenore_requests_total"], "210");
    }
}

#[test]
fn prefix_is_the_program_s() {
    let text = text(&snapshot(), Format::Prometheus, "shop_");
    assert!(samples(&text).contains_key("shop_children_limit") && !text.contains("lenore_"), "{text}");
    for (prefix, is_one) in
        [("lenore_", true), ("", true), ("a_b9_", true), ("a:b_", false), ("9a", false), ("a-", false), ("é", false)]
    {
        assert_eq!(is_prefix(prefix), is_one, "{prefix}");
    }
}

#[test] // O-ST-08: each name that is shown is known before it is
fn own_metrics_are_found_by_each_name() {
    let mut alone = snapshot();
    alone.metrics.clear();
    for text in [Format::Prometheus, Format::OpenMetrics].map(|format| text(&alone, format, "shop_")) {
        for sample in samples(&text).keys().filter(|sample| sample.starts_with("shop_")) {
            let name = sample.split('{').next().unwrap_or_default().to_owned();
            assert!(find_own("shop_", std::slice::from_ref(&name)).is_some(), "{name}");
            assert_eq!(find_own(PREFIX, &[name]), None);
        }
    }
    assert_eq!(find_own("", &["x".to_owned(), "forks_created".to_owned()]).as_deref(), Some("forks_total"));
    assert_eq!(find_own("", &["build".to_owned()]).as_deref(), Some("build_info"));
}

#[test] // O-ST-08
fn format_is_what_the_client_prefers() {
    for (accept, format) in [
        ("", Format::Prometheus),
        ("*/*", Format::Prometheus),
        ("text/plain", Format::Prometheus),
        ("text/html,*/*;q=0.8", Format::Prometheus),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("Application/OpenMetrics-Text;Version=\"1.0.0\"", Format::OpenMetrics),
        ("application/openmetrics-text;version=2.0.0", Format::Prometheus),
        ("application/openmetrics-text;q=0", Format::Prometheus),
        ("application/openmetrics-text;q=nonsense", Format::Prometheus),
        ("application/openmetrics-text;q=0.4,text/plain;version=0.0.4;q=0.5", Format::Prometheus),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format::OpenMetrics,
        ),
    ] {
        assert_eq!(negotiate(accept), format, "{accept}");
    }
}

/// Runs a program that reads metrics, and fails if it is not content. Without the program: a failure where the tests are run for
/// a release (`LENORE_CI`), and a line elsewhere.
fn assert_reads(program: &mut std::process::Command, is_there: bool, text: &str) {
    use std::io::Write;
    use std::process::Stdio;
    if !is_there {
        assert!(std::env::var_os("LENORE_CI").is_none(), "{program:?} is missing");
        return eprintln!("SKIPPED, it is missing: {program:?}");
    }
    let mut running =
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be started");
    running.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let output = running.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program:?}: {}\n{text}", String::from_utf8_lossy(&said));
}

#[test] // O-ST-08
fn promtool_and_the_reference_parsers_read_hostile_metrics() {
    use std::process::Command;
    let succeeds = |program: &mut Command| program.output().is_ok_and(|output| output.status.success());
    let python = std::env::var("LENORE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_promtool = succeeds(Command::new("promtool").arg("--version"));
    let has_parsers = succeeds(Command::new(&python).args(["-c", "import prometheus_client"]));
    let mut hostile = snapshot();
    hostile.listeners[0].name = HOSTILE.to_owned();
    hostile.metrics[0].help = HOSTILE.to_owned();
    for snapshot in [snapshot(), hostile] {
        let [prometheus, open_metrics] = both(&snapshot);
        assert_reads(Command::new("promtool").args(["check", "metrics"]), has_promtool, &prometheus);
        for (module, text) in
            [("prometheus_client.parser", &prometheus), ("prometheus_client.openmetrics.parser", &open_metrics)]
        {
            let program = format!(
                "import sys\nfrom {module} import text_string_to_metric_families as read\n\
                 text = sys.stdin.buffer.read().decode('utf-8')\n\
                 names = [sample.name for family in read(text) for sample in family.samples]\n\
                 assert len(names) == sum(not line.startswith('#') for line in text.split('\\n') if line), names"
            );
            assert_reads(Command::new(&python).args(["-c", &program]), has_parsers, text);
        }
    }
}
