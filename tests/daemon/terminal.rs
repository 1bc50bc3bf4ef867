//! D-SH-11 and D-SH-12: a Daemon that was started from a terminal and stays there, as a job of a shell.

use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::site::{Site, stat_fields};
use util::{Client, DEADLINE, Program, Running, kill, proc, stays, test_program, wait_until};

/// A shell on a terminal of its own, with a Daemon for its job.
struct Shell {
    /// The terminal: its standard error is what comes out there.
    terminal: Running,
    shell: i32,
    job: i32,
    site: Site,
}

impl Shell {
    /// `@name` in `args` is the path of a file in the shell's own site.
    fn start(how: &str, program: &str, args: &str) -> Shell {
        let site = Site::new();
        let words = site.words(args);
        let terminal = Program::new(test_program("daemon_shell")).args(how.split_whitespace());
        let terminal = terminal.arg(test_program(program)).args(words).start();
        let told = terminal.next_line(DEADLINE);
        let pid = |who: &str| told.split(' ').skip_while(|word| *word != who).nth(1).and_then(|pid| pid.parse().ok());
        let (shell, job) = (pid("shell").expect("a pid"), pid("job").expect("a pid"));
        Shell { terminal, shell, job, site }
    }

    /// Passes over what the job says on its standard output.
    #[track_caller]
    fn expect(&self, line: &str) {
        while self.terminal.next_line(DEADLINE) != line {}
    }

    /// The job with all its children.
    fn processes(&self) -> Vec<i32> {
        let family = self.terminal.descendants_alive();
        family.into_iter().filter(|pid| *pid == self.job || proc::ppid(*pid) == Some(self.job)).collect()
    }

    fn to_foreground(&self) {
        kill(self.shell, Signal::SIGUSR1).expect("the shell");
    }

    /// The user closes the window.
    fn close(&self) {
        self.terminal.signal(Signal::SIGTERM);
    }

    /// Waits for the end of the shell, which ends with its job.
    #[track_caller]
    fn expect_end(mut self, how: &str) {
        self.expect(how);
        assert!(self.terminal.wait_exit(DEADLINE).success());
        assert_eq!(self.terminal.descendants_alive(), [0; 0], "left behind");
    }
}

/// Processor time, in clock ticks.
fn ticks(pid: i32) -> u64 {
    stat_fields(pid)[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[track_caller]
fn assert_stopped(shell: &Shell) {
    let all = shell.processes();
    assert!(all.contains(&shell.job));
    let is_stopped = |pid: &i32| proc::state(*pid) == Some('T');
    // The shell is told when the first of them stops.
    wait_until("all of them stopped", DEADLINE, || all.iter().all(is_stopped).then_some(()));
    let times: Vec<u64> = all.iter().map(|pid| ticks(*pid)).collect();
    stays("stopped", Duration::from_millis(200), || all.iter().all(is_stopped));
    assert_eq!(all.iter().map(|pid| ticks(*pid)).collect::<Vec<_>>(), times, "stopped processes use no processor");
}

#[test] // D-SH-11: the first line of the log stops the job, and not for good
fn background_daemon_that_logs_to_its_terminal_is_stopped_until_it_is_in_the_foreground() {
    for mode in ["--start 2", "--max 2", ""] {
        let args = format!("{mode} --report @report --start-with-a-line");
        let shell = Shell::start("--background --tostop", "daemon_process", &args);
        shell.expect("job stopped by SIGTTOU");
        assert_stopped(&shell);
        shell.to_foreground();
        shell.expect("job continued");
        shell.site.wait_for(if mode == "--start 2" { "daemon_child" } else { "daemon_start" });
        kill(shell.job, Signal::SIGTERM).expect("the job");
        shell.expect_end("job exited with 0");
    }
}

#[test] // D-SH-11: also in a child, and in the middle of a request
fn background_daemon_whose_child_reads_its_terminal_is_stopped() {
    for mode in ["--start 1", "--max 1", ""] {
        let shell = Shell::start("--background", "daemon_process", &format!("{mode} --report @report --usr1-read"));
        let reader = shell.site.wait_for(if mode == "--start 1" { "daemon_child" } else { "daemon_start" });
        let status = proc::sig_masks(reader).expect("it runs");
        assert!(!status.catches(Signal::SIGTTIN) && !status.catches(Signal::SIGTTOU));
        kill(reader, Signal::SIGUSR1).expect("one of the job");
        // The terminal stops the whole job.
        shell.expect("job stopped by SIGTTIN");
        assert_stopped(&shell);
        shell.to_foreground();
        shell.expect("job continued");
        shell.terminal.signal(Signal::SIGUSR1);
        shell.site.wait_for("usr1");
        assert!(!shell.terminal.stderr_text().contains("resized"));
        kill(shell.job, Signal::SIGTERM).expect("the job");
        shell.expect_end("job exited with 0");
    }
}

#[test] // D-SH-11: with a terminal only the shell means something by them
fn daemon_on_a_terminal_is_stopped_by_ttin_and_not_resized() {
    let shell = Shell::start("", "daemon_process", "--start 1 --report @report");
    shell.site.wait_for("daemon_parent");
    kill(shell.job, Signal::SIGTTIN).expect("the job");
    shell.expect("job stopped by SIGTTIN");
    shell.to_foreground();
    shell.expect("job continued");
    kill(shell.job, Signal::SIGTERM).expect("the job");
    shell.expect_end("job exited with 0");
}

#[test] // D-SH-11: without one they are commands, also in a program that had one when it began
fn detached_daemon_is_resized_by_ttin() {
    let args = "--detach --start 1 --room 5 --report @report --logfile @log";
    let shell = Shell::start("", "daemon_process", args);
    let daemon = shell.site.wait_for("daemon_parent");
    shell.expect("job exited with 0");
    kill(daemon, Signal::SIGTTIN).expect("the daemon");
    shell.site.wait_in("log", "resized: max_children=");
    assert_ne!(proc::state(daemon), Some('T'));
    kill(daemon, Signal::SIGTERM).expect("the daemon");
    wait_until("its end", DEADLINE, || (!proc::is_alive(daemon)).then_some(()));
}

#[test] // D-SH-12: whoever started it is gone, and so is the log
fn closed_terminal_ends_a_server_that_logs_to_it() {
    for how in ["", "--background"] {
        for mode in ["--start 2", "--max 2", ""] {
            let shell = Shell::start(how, "daemon_process", &format!("{mode} --report @report --pid-file @pid"));
            let addr = shell.terminal.listening_addr();
            let last = if mode == "--start 2" { "daemon_parent" } else { "daemon_start" };
            shell.site.wait_for(last);
            if mode == "--start 2" {
                wait_until("the pool", DEADLINE, || (shell.site.count("daemon_child") == 2).then_some(()));
            }
            shell.close();
            let end = (shell.job, "run returned".to_owned());
            wait_until("its end", DEADLINE, || shell.site.report().contains(&end).then_some(()));
            assert_eq!(shell.site.count("daemon_HUP"), 0);
            assert!(shell.site.count("daemon_shutdown") >= 1);
            assert!(!shell.site.exists("pid"));
            shell.expect_end("job exited with 0");
            assert!(TcpStream::connect(addr).is_err(), "the port is free");
        }
    }
}

/// Closes the terminal of a server, and looks whether it goes on.
#[track_caller]
fn assert_survives_its_terminal(how: &str, args: &str) {
    let shell = Shell::start(how, "daemon_process", &format!("{args} --in-state --report @report"));
    let addr = shell.terminal.listening_addr();
    assert_eq!(shell.site.wait_for("daemon_parent"), shell.job);
    wait_until("the pool", DEADLINE, || (shell.site.count("daemon_child") == 2).then_some(()));
    shell.close();
    let handled = (shell.job, "daemon_HUP".to_owned());
    wait_until("its HUP", DEADLINE, || shell.site.report().contains(&handled).then_some(()));
    assert!(Client::connect(addr).line("after").ends_with("after"), "{how} {args}");
    if args.contains("--logfile") {
        shell.site.wait_in("log", "has reopened");
    }
    kill(shell.job, Signal::SIGTERM).expect("the job");
    shell.expect_end("job exited with 0");
}

#[test] // D-SH-12: with nohup it is to live on
fn closed_terminal_does_not_end_a_server_under_nohup() {
    for how in ["--nohup", "--nohup --background"] {
        assert_survives_its_terminal(how, "--start 2");
    }
}

#[test] // D-SH-12: HUP is the command to open the log file again
fn closed_terminal_does_not_end_a_server_with_a_log_file() {
    assert_survives_its_terminal("", "--start 2 --logfile @log");
}

#[test] // D-SH-12: without a terminal, under a supervisor, it is a command too
fn hup_without_a_terminal_does_not_end_a_server() {
    for mode in ["--start 1", "--max 1", ""] {
        let site = Site::new();
        let mut running = site.start(&format!("{mode} --report @report"));
        let pid = site.wait_for("daemon_start");
        kill(pid, Signal::SIGHUP).expect("the program");
        site.wait_for("daemon_HUP");
        running.signal(Signal::SIGTERM);
        assert!(running.wait_exit(DEADLINE).success());
        assert!(site.count("daemon_HUP") >= 1);
    }
}
