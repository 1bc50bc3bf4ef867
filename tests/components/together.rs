//! Both components in one kernel.

use std::cell::RefCell;
use std::rc::Rc;

use lenore::component::{Protocol, TcpClient, TcpServer};
use lenore::filter::Line;

use util::component::serve;
use util::in_process::{Log, kernel, run};

#[test] // K-CS-23
fn a_simple_exchange_goes_in_order() {
    let mut kernel = kernel();
    let (server_log, client_log) = (Log::default(), Log::default());
    let say = |log: &Log, word: &'static str| {
        let log = log.clone();
        move || log.push(word)
    };
    let (connected, flushed, disconnected, stopped, input, looked) = (
        say(&server_log, "Connected"),
        say(&server_log, "Flushed"),
        say(&server_log, "Disconnected"),
        say(&server_log, "Stopped"),
        say(&server_log, "Input"),
        say(&server_log, "PreConnect"),
    );
    let talk = Protocol::new(Line::new())
        .pre_connect(move |_, socket| {
            looked();
            Ok(Some(socket))
        })
        .on_connect(move |cx| {
            connected();
            cx.heap().put("welcome");
        })
        .on_input(move |cx, line: String| {
            input();
            cx.heap().put(format!("you said {line}"));
            if line == "quit" {
                cx.yield_("shutdown", ());
                cx.post("server", "shutdown", ())?;
            }
            lenore::Result::Ok(())
        })
        .on_flushed(move |_| flushed())
        .on_disconnect(move |_| disconnected());
    let server = TcpServer::new("127.0.0.1:0", talk).on_stopped(move |_| stopped());
    let address = serve(&mut kernel, server);

    let (started, connected, flushed, disconnected, looked) = (
        say(&client_log, "Started"),
        say(&client_log, "Connected"),
        say(&client_log, "Flushed"),
        say(&client_log, "Disconnected"),
        say(&client_log, "PreConnect"),
    );
    let (input_log, error_log) = (client_log.clone(), client_log.clone());
    let lines = Rc::new(RefCell::new(vec!["quit", "hello"]));
    let ask = Protocol::new(Line::new())
        .pre_connect(move |_, socket| {
            looked();
            Ok(Some(socket))
        })
        .on_connect(move |_| connected())
        .on_input(move |cx, _line: String| {
            input_log.push("Input");
            lines.borrow_mut().pop().map(|line| cx.heap().put(line));
        })
        .on_flushed(move |_| flushed())
        .on_error(move |_, failure| error_log.push(format_args!("Error({} {})", failure.operation, failure.errno)))
        .on_disconnect(move |_| disconnected());
    TcpClient::new(address.to_string(), ask).on_started(move |_| started()).spawn(&mut kernel).unwrap();

    run(&mut kernel);
    assert_eq!(server_log.text(), "PreConnect Connected Flushed Input Flushed Input Flushed Disconnected Stopped");
    assert_eq!(
        client_log.text(),
        "Started PreConnect Connected Input Flushed Input Flushed Input Error(read 0) Disconnected"
    );
}
