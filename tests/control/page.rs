//! The page in a browser.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use util::browser::Browser;
use util::{Client, kill};

use super::http::Watched;

#[test] // it shows N children, follows a killed one, and says when the parent is gone
fn page_shows_children_follows_deaths_and_says_when_the_parent_is_gone() {
    let watched = Watched::pool(3);
    let Some(mut browser) = Browser::open(&format!("http://{}/", watched.status)) else { return };
    let row = |child: &str| {
        format!(
            "[...document.querySelectorAll('#children tbody tr')].some(row => row.cells[0].textContent === '{child}')"
        )
    };
    browser.wait_for("document.querySelectorAll('#children tbody tr').length === 3");
    browser.wait_for("document.getElementById('live').textContent === 'live'");
    assert_eq!(browser.evaluate("document.querySelectorAll('#board b.idle').length"), 3);
    assert_eq!(browser.evaluate("document.title"), "ready · Daemon");
    for child in ["0:1", "1:1", "2:1"] {
        assert_eq!(browser.evaluate(&row(child)), true, "{child}");
    }
    kill(watched.children()[1], Signal::SIGKILL).unwrap();
    let begin = Instant::now();
    browser.wait_for(&format!("{} && !{}", row("1:2"), row("1:1")));
    browser.wait_for("document.querySelector('#deaths .bad')?.textContent === 'signal:SIGKILL'");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(browser.evaluate("document.getElementById('gone').hidden"), true);
    // Its children end by themselves.
    kill(watched.pid(), Signal::SIGKILL).unwrap();
    browser.wait_for("!document.getElementById('gone').hidden");
    browser.wait_for("document.getElementById('gone').textContent.startsWith('The parent process does not answer.')");
    assert_eq!(browser.evaluate("document.querySelectorAll('#children tbody tr').length"), 3, "as it was");
}

#[test] // O-ST-16: what clients say stays text, in the page as it comes and in what its script makes of it
fn hostile_label_stays_text() {
    let watched = Watched::pool(1);
    let mut client = Client::connect(watched.serves);
    client.line("label <img src=x id=evil>\x1b");
    let Some(mut browser) = Browser::open(&format!("http://{}/", watched.status)) else { return };
    browser.wait_for("document.querySelector('#children td.peer')?.textContent === '<img src=x id=evil>\\\\u{1b}'");
    browser.wait_for("document.getElementById('live').textContent === 'live'");
    browser.wait_for("document.querySelector('#children td.peer')?.textContent === '<img src=x id=evil>\\\\u{1b}'");
    assert_eq!(browser.evaluate("document.getElementById('evil')"), serde_json::Value::Null);
    assert_eq!(browser.evaluate("document.querySelectorAll('img').length"), 0);
    // And should markup get in all the same, its script does not run.
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data: onerror=\"window.ran = 1\">')");
    browser.evaluate("{ const script = document.createElement('script'); script.textContent = 'window.ran = 2'; document.body.append(script) }");
    assert_eq!(browser.evaluate("typeof window.ran"), "undefined");
}

#[test] // it reads without a script
fn page_reads_without_a_script() {
    let watched = Watched::pool(2);
    let Some(mut browser) = Browser::open("about:blank") else { return };
    browser.ask("Emulation.setScriptExecutionDisabled", &serde_json::json!({ "value": true }));
    browser.ask("Page.navigate", &serde_json::json!({ "url": format!("http://{}/", watched.status) }));
    browser.wait_for("document.querySelectorAll('#children tbody tr').length === 2");
    browser.wait_for("document.getElementById('live').textContent.startsWith('as of 20')");
    assert_eq!(browser.evaluate("document.getElementById('total').textContent"), "2 / 2");
    browser
        .wait_for("getComputedStyle(document.querySelector('#board b.idle')).backgroundColor !== 'rgba(0, 0, 0, 0)'");
}
