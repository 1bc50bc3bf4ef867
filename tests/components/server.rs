//! `Server`: its settings. What it does is for `tests/daemon/component.rs` to see, from outside.

use lenore::Kernel;
use lenore::component::{Processes, Protocol, Server, ServerError};
use lenore::daemon::DaemonError;
use lenore::filter::Line;

#[test]
fn settings_that_serve_nobody_and_what_cannot_be_had_are_errors() {
    let echo = || Protocol::new(Line::new());
    let mut kernel = Kernel::new().expect("a kernel can be made");
    let error = Server::tcp("127.0.0.1:0", echo()).connections_per_child(0).spawn(&mut kernel).unwrap_err();
    assert!(matches!(error, ServerError::NoConnections));
    for mode in [Processes::Fork { max_children: 0 }, Processes::PreFork { start_children: 0 }] {
        let error = Server::tcp("127.0.0.1:0", echo()).processes(mode).spawn(&mut kernel).unwrap_err();
        assert!(matches!(error, ServerError::NoChildren), "{mode}");
    }
    let error = Server::tcp("", echo()).spawn(&mut kernel).unwrap_err().to_string();
    assert_eq!(error, "the server can't listen: invalid address \"\": it is empty, and needs a host, a port or both");
    let error = Server::tcp("127.0.0.1:0", echo().state("shutdown", |_| ())).spawn(&mut kernel).unwrap_err();
    assert!(error.to_string().contains("shutdown"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let error = Server::tcp(address.as_str(), echo()).spawn(&mut kernel).unwrap_err();
    assert!(matches!(error, ServerError::Listen(_)) && error.to_string().contains(&address), "{error}");

    // A test has threads. Nothing is left of the session that had listened already.
    let fork = Processes::Fork { max_children: 1 };
    let error = Server::tcp("127.0.0.1:0", echo()).processes(fork).spawn(&mut kernel).unwrap_err();
    assert!(matches!(error, ServerError::Daemon(DaemonError::Threads { count: 2.., .. })), "{error}");
    assert_eq!((kernel.peek().sessions.len(), kernel.peek().sources.len()), (0, 0));
}

#[test]
fn modes_are_read_and_written_as_text() {
    for (text, mode, shown) in [
        ("single", Processes::Single, "single"),
        ("fork", Processes::Fork { max_children: 20 }, "fork:20"),
        ("fork:7", Processes::Fork { max_children: 7 }, "fork:7"),
        ("prefork", Processes::PreFork { start_children: 4 }, "prefork:4"),
        ("prefork:9", Processes::PreFork { start_children: 9 }, "prefork:9"),
    ] {
        assert_eq!(text.parse::<Processes>().as_ref(), Ok(&mode));
        assert_eq!(mode.to_string(), shown);
    }
    for text in ["", "forking", "single:1", "fork:", "fork:-1", "prefork:x", "Single"] {
        let error = text.parse::<Processes>().unwrap_err();
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}
