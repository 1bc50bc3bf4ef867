//! A headless Chromium, which is told what to do through a pair of pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, wait_until};

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    process: Child,
    orders: ChildStdin,
    answers: Receiver<Value>,
    asked: u64,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page; `None` if there is no Chromium, which is a failure where the tests are run for a release (`LENORE_CI`).
    #[track_caller]
    pub fn open(url: &str) -> Option<Browser> {
        if !Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("LENORE_CI").is_none(), "there is no chromium");
            eprintln!("SKIPPED, there is no chromium");
            return None;
        }
        let profile = tempfile::tempdir().expect("a directory");
        // It speaks on descriptors 3 and 4. The sandbox needs what containers do not give.
        let mut process = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null", "sh"])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let (orders, pipe) = (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let (sender, answers) = channel();
        // Ends with the browser.
        thread::spawn(move || {
            for message in BufReader::new(pipe).split(0) {
                let message = message.ok().and_then(|message| serde_json::from_slice(&message).ok());
                if message.is_none_or(|message| sender.send(message).is_err()) {
                    break;
                }
            }
        });
        let mut browser = Browser { process, orders, answers, asked: 0, session: String::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", &json!({ "url": url }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        Some(browser)
    }

    /// Gives an order, and returns its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let mut order = json!({ "id": self.asked, "method": method, "params": params });
        if !self.session.is_empty() {
            order["sessionId"] = json!(self.session);
        }
        self.orders.write_all(format!("{order}\0").as_bytes()).expect("the browser reads");
        loop {
            // A browser takes its time to start on a busy machine.
            let message = self.answers.recv_timeout(DEADLINE * 3).unwrap_or_else(|_| panic!("no answer to {order}"));
            if message["id"] == self.asked {
                assert!(message.get("error").is_none(), "{order}: {message}");
                return message["result"].clone();
            }
        }
    }

    /// Evaluates an expression in the page.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", &json!({ "expression": expression, "returnByValue": true }));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression has a value that is true.
    #[track_caller]
    pub fn wait_for(&mut self, expression: &str) {
        let what = format!("{expression}; the page says: {}", self.evaluate("document.body?.innerText"));
        wait_until(&what, DEADLINE, || (self.evaluate(expression) == true).then_some(()));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own processes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
