//! The files of `examples/deploy`: those who read them accept them, they fit each other, and the programs know the flags in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use util::http::{get, status_address};
use util::{DEADLINE, Program, example, test_program, wait_until};

/// What children have to end, unless a program sets it: `shutdown_timeout`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/deploy").join(name)
}

/// The text of a file of `examples/deploy`.
#[track_caller]
fn shipped(name: &str) -> String {
    fs::read_to_string(path(name)).expect("it is shipped")
}

/// Runs a program of the system; `None` if there is no such program, which is a failure in CI.
#[track_caller]
fn run(program: &str, args: &[&str]) -> Option<Output> {
    let output = Command::new(program).args(args).output();
    if output.is_err() {
        assert!(std::env::var_os("LENORE_CI").is_none(), "there is no {program}");
        eprintln!("skipped: there is no {program}");
    }
    output.ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Asserts that a program of ours knows all words of a command line, whose first is its name.
#[track_caller]
fn assert_known<S: AsRef<str>>(line: &[S]) {
    let (program, args) = line.split_first().expect("a program");
    let path = match program.as_ref().rsplit('/').next() {
        Some("http_prefork") => example("http_prefork"),
        Some("lenorectl") => test_program("lenorectl"),
        _ => panic!("{} is not ours", program.as_ref()),
    };
    let args = args.iter().map(AsRef::as_ref);
    let output = Command::new(path).args(args).arg("--help").output().expect("it is built");
    assert!(output.status.success(), "{}", said(&output));
}

/// The values of all lines `NAME=VALUE` of a unit.
fn values<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// The word behind a flag.
#[track_caller]
fn after<'a>(words: &[&'a str], flag: &str) -> &'a str {
    let place = words.iter().position(|word| *word == flag).unwrap_or_else(|| panic!("no {flag} in {words:?}"));
    words[place + 1]
}

#[test]
fn systemd_accepts_the_units() {
    let dir = tempfile::tempdir().expect("a directory");
    let [service, socket] = ["lenore-http.service", "lenore-http.socket"].map(|name| {
        let text = shipped(name)
            .replace("/usr/local/bin/http_prefork", example("http_prefork").to_str().expect("text"))
            .replace("/usr/local/bin/lenorectl", test_program("lenorectl").to_str().expect("text"));
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("text").to_owned()
    });
    let Some(output) = run("systemd-analyze", &["verify", &service, &socket]) else { return };
    // It also speaks of other units of the machine.
    let said = said(&output);
    assert!(output.status.success() && !said.contains("lenore-http"), "{said}");
}

#[test]
fn units_fit_each_other_and_the_program() {
    let (service, socket) = (shipped("lenore-http.service"), shipped("lenore-http.socket"));
    let [start] = values(&service, "ExecStart")[..] else { panic!("one ExecStart") };
    let environment = values(&service, "Environment").concat();
    let mut start = start.to_owned();
    for (name, value) in environment.split(' ').filter_map(|pair| pair.split_once('=')) {
        start = start.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    assert!(!start.contains('$'), "{start}");
    let words: Vec<_> = start.split_whitespace().collect();
    assert_known(&words);
    assert_eq!(values(&socket, "ListenStream"), [after(&words, "--listen")]);
    assert_eq!(values(&service, "Type"), ["notify"]);
    assert_eq!(values(&service, "KillMode"), ["mixed"]);
    let stop = values(&service, "TimeoutStopSec").concat();
    let stop: u64 = stop.trim_end_matches('s').parse().expect("seconds");
    assert!(Duration::from_secs(stop) > SHUTDOWN_TIMEOUT);
    let [reload] = values(&service, "ExecReload")[..] else { panic!("one ExecReload") };
    let reload: Vec<_> = reload.split_whitespace().collect();
    assert_known(&reload);
    assert_eq!(after(&words, "--config"), "/etc/lenore-http.toml");

    // What the service does, elsewhere: a file that can't be read is a failure of the command, and changes nothing.
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("lenore-http.toml");
    fs::write(&config, shipped("lenore-http.toml")).expect("a file");
    let elsewhere = |word: &str| match word {
        "/etc/lenore-http.toml" => config.to_str().expect("text").to_owned(),
        address if address.contains(':') => "127.0.0.1:0".to_owned(),
        word => word.to_owned(),
    };
    let program = Program::new(example("http_prefork")).env("RUNTIME_DIRECTORY", dir.path());
    let running = program.args(words[1..].iter().copied().map(elsewhere)).start();
    let (address, status) = (running.listening_addr(), status_address(&running));
    wait_until("a server that is ready", DEADLINE, || (get(status, "/ready").status == 200).then_some(()));
    let reload = || {
        let mut command = Command::new(test_program("lenorectl"));
        command.args(&reload[1..]).env("RUNTIME_DIRECTORY", dir.path()).output().expect("it is built")
    };
    let applied = reload();
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    fs::write(&config, "max_children = many").expect("a file");
    let rejected = reload();
    assert_eq!(rejected.status.code(), Some(1), "{}", said(&rejected));
    assert_eq!(get(address, "/hello").status, 200);
}

#[test]
fn haproxy_accepts_its_configuration() {
    let path = path("haproxy.cfg");
    if let Some(output) = run("haproxy", &["-c", "-f", path.to_str().expect("text")]) {
        assert!(output.status.success() && !said(&output).contains("WARNING"), "{}", said(&output));
    }
    // The command line that the nodes have.
    let text = shipped("haproxy.cfg");
    let node = text.lines().find_map(|line| line.strip_prefix("#     http_prefork")).expect("it is named");
    let words: Vec<_> = ["http_prefork"].into_iter().chain(node.split_whitespace()).collect();
    assert_known(&words);
    assert!(text.contains(&format!("server node1 {}", after(&words, "--listen"))));
    let (_, port) = after(&words, "--status").split_once(':').expect("a port");
    assert!(text.contains(&format!("check port {port} ")));
    assert!(text.contains(&format!(" maxconn {}\n", after(&words, "--max-children"))));
}

/// The instructions of a Dockerfile, with what follows each.
fn instructions(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap_or_else(|| panic!("{line}"))).collect()
}

/// The words of the exec form, which starts no shell.
#[track_caller]
fn exec_form(instruction: &str) -> Vec<String> {
    serde_json::from_str(instruction).unwrap_or_else(|error| panic!("{instruction}: {error}"))
}

#[test]
fn dockerfile_makes_an_image_without_root_and_without_a_shell() {
    let text = shipped("Dockerfile");
    let all = instructions(&text);
    let stage = all.iter().rposition(|(name, _)| *name == "FROM").expect("a stage");
    let (build, last) = all.split_at(stage);
    assert!(build[0].1.ends_with(" AS build"), "{build:?}");
    // What a stage without a shell can't run, and what a shell would hide from signals.
    assert!(!last.iter().any(|(name, _)| *name == "RUN"));
    build.iter().filter(|(name, _)| *name == "RUN").for_each(|(_, line)| _ = exec_form(line));
    let only = |wanted: &str| {
        let found: Vec<_> = last.iter().filter(|(name, _)| *name == wanted).map(|(_, rest)| *rest).collect();
        assert_eq!(found.len(), 1, "{wanted}: {found:?}");
        found[0]
    };
    assert!(last[0].1.contains("distroless"));
    let user = only("USER").split(':').next().and_then(|uid| uid.parse::<u32>().ok());
    assert!(user.is_some_and(|uid| uid > 0), "kubelet checks runAsNonRoot by the number");
    assert_eq!(only("STOPSIGNAL"), "SIGTERM");
    assert_known(&[exec_form(only("ENTRYPOINT")), exec_form(only("CMD"))].concat());
    let (_, health) = only("HEALTHCHECK").split_once("CMD ").expect("a command");
    assert_known(&exec_form(health));
    // What it copies is what it builds.
    for program in ["http_prefork", "lenorectl"] {
        assert!(build.iter().any(|(name, line)| *name == "RUN" && line.contains(&format!("\"{program}\""))));
        assert!(last.iter().any(|(name, line)| *name == "COPY" && line.contains(program)));
    }
}

#[test]
fn kubernetes_manifest_fits_the_image_and_the_time_that_the_server_needs() {
    let python = std::env::var("LENORE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let path = path("kubernetes.yaml");
    let Some(output) = run(&python, &["-c", program, path.to_str().expect("text")]) else { return };
    if said(&output).contains("No module named 'yaml'") && std::env::var_os("LENORE_CI").is_none() {
        return eprintln!("skipped: there is no module yaml");
    }
    assert!(output.status.success(), "{}", said(&output));
    let documents: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (deployment, service) = (&documents[0], &documents[1]);
    assert_eq!((&deployment["kind"], &service["kind"]), (&"Deployment".into(), &"Service".into()));
    let template = &deployment["spec"]["template"];
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    assert_eq!(service["spec"]["selector"], template["metadata"]["labels"]);
    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);

    let dockerfile = shipped("Dockerfile");
    let image = instructions(&dockerfile);
    let of = |wanted: &str| image.iter().find(|(name, _)| *name == wanted).expect("it is there").1;
    let args: Vec<String> = serde_json::from_value(container["args"].clone()).expect("words");
    let line = [exec_form(of("ENTRYPOINT")), args].concat();
    assert_known(&line);
    let line: Vec<_> = line.iter().map(String::as_str).collect();
    let port = |flag| after(&line, flag).rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
    assert_eq!(container["ports"][0]["containerPort"], port("--listen"));
    assert_eq!(container["ports"][1]["containerPort"], port("--status"));
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    assert!(pod["volumes"].as_array().is_some_and(|volumes| volumes.len() == 1));
    assert_eq!(
        of("ENV"),
        format!("RUNTIME_DIRECTORY={}", container["volumeMounts"][0]["mountPath"].as_str().expect("a path"))
    );

    // The lame duck is a part of shutdown_timeout, and KILL comes after both.
    let lame_duck = Duration::from_millis(after(&line, "--lame-duck-ms").parse().expect("a number"));
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().expect("a number"));
    assert!(lame_duck < SHUTDOWN_TIMEOUT && SHUTDOWN_TIMEOUT < grace);
    for (probe, path) in [("startupProbe", "/ready"), ("readinessProbe", "/ready"), ("livenessProbe", "/live")] {
        let asks = &container[probe]["httpGet"];
        assert_eq!((&asks["path"], &asks["port"]), (&path.into(), &container["ports"][1]["name"]), "{probe}");
    }
    // It hears that the server ends before the server closes anything.
    let readiness = &container["readinessProbe"];
    let heard = readiness["periodSeconds"].as_u64().zip(readiness["failureThreshold"].as_u64());
    assert!(heard.is_some_and(|(period, failures)| Duration::from_secs(period * failures) < lame_duck));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let user = of("USER").split(':').next().and_then(|uid| uid.parse::<u64>().ok());
    assert_eq!(pod["securityContext"]["runAsUser"].as_u64(), user);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
}
