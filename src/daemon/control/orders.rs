//! Orders that clients have given: who, what, since when, and what has become of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::command::Request;
use super::dialect::{Code, Dialect, Outcome, Refusal, Reply};
use crate::daemon::machine::{Key, NewSize};

/// Who has asked for something, as the log names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Asker {
    pub(in crate::daemon) uid: u32,
    pub(in crate::daemon) pid: i32,
    pub(in crate::daemon) comm: String,
}

impl Asker {
    pub(in crate::daemon) fn of(client: &Client) -> Asker {
        Asker { uid: client.peer.uid, pid: client.peer.pid, comm: client.comm.clone().unwrap_or_default() }
    }

    /// Leaves one line in the log for each command that may change something. `untold` commands that were denied have left none.
    pub(in crate::daemon) fn audit(&self, command: &str, outcome: &Outcome, took: Duration, untold: u64) {
        let Asker { uid, pid, comm } = self;
        let verdict = match outcome {
            Ok(reply) => reply.verdict,
            Err(refusal) => refusal.code.word(),
        };
        let took = took.as_secs_f64();
        let untold = if untold > 0 { format!(" untold={untold}") } else { String::new() };
        // What a client has sent is in it, and may be long.
        let end = command.char_indices().nth(LONGEST_COMMAND).map_or(command.len(), |(end, _)| end);
        let command = &command[..end];
        log::info!(
            target: AUDIT,
            "control: command={command:?} uid={uid} pid={pid} comm={comm:?} verdict={verdict} took={took:.3}{untold}"
        );
    }
}

/// What an order is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Subject {
    /// The size of the pool, which was this before.
    Size(NewSize),
    Child(Key),
    Logs,
    /// What a child shows of itself.
    Sessions(Key),
    Level,
    /// The configuration; whether it is only to be loaded.
    Configuration(bool),
    Program,
    Drain,
    End,
}

/// An order that has no verdict yet.
#[derive(Debug)]
pub(in crate::daemon) struct Order {
    pub(in crate::daemon) asker: Asker,
    pub(in crate::daemon) command: String,
    /// It changes something.
    changes: bool,
    pub(in crate::daemon) subject: Subject,
    begun: Instant,
    /// The number of the client that waits for the verdict.
    pub(in crate::daemon) client: Option<u64>,
    pub(in crate::daemon) dialect: Dialect,
    /// When it stops waiting.
    due: Option<Instant>,
}

/// A child that has ended, for those who have asked for that.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Ended {
    pub(in crate::daemon) key: Key,
    pub(in crate::daemon) pid: i32,
    pub(in crate::daemon) cause: String,
    pub(in crate::daemon) age: f64,
    pub(in crate::daemon) requests: u64,
}

/// The orders, by number.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Orders {
    pending: BTreeMap<u64, Order>,
    /// The numbers of orders that the process before this one still carries out.
    elsewhere: BTreeSet<u64>,
    /// The last verdicts, the oldest first.
    verdicts: VecDeque<(u64, Outcome)>,
    /// The child whose death was noticed last.
    pub(in crate::daemon) last_end: Option<Ended>,
}

impl Orders {
    /// A client, if it waits, gives an order with this number.
    pub(in crate::daemon) fn begin(
        &mut self,
        number: u64,
        (asker, client): (Asker, u64),
        request: &Request,
        subject: Subject,
        dialect: Dialect,
    ) {
        let begun = Instant::now();
        let (command, changes) = (request.command.to_string(), request.command.changes());
        let due = request.timeout.map(|limit| begun + limit);
        let client = (!request.no_wait).then_some(client);
        self.pending.insert(number, Order { asker, command, changes, subject, begun, client, dialect, due });
    }

    /// Returns an order that has no verdict yet.
    pub(in crate::daemon) fn pending(&self, number: u64) -> Option<&Order> {
        self.pending.get(&number)
    }

    /// Tells whether an order has no verdict yet, here or in the process before this one.
    pub(in crate::daemon) fn is_pending(&self, number: u64) -> bool {
        self.pending.contains_key(&number) || self.elsewhere.contains(&number)
    }

    /// The process before this one still carries out an order.
    pub(in crate::daemon) fn expect(&mut self, number: u64) {
        self.elsewhere.insert(number);
    }

    /// No other process tells any more what becomes of its orders.
    pub(in crate::daemon) fn expect_nothing(&mut self) {
        self.elsewhere.clear();
    }

    /// Returns the numbers of the orders whose verdicts are remembered later and that have none yet.
    pub(in crate::daemon) fn unfinished(&self) -> Vec<u64> {
        self.pending.iter().filter(|(_, order)| order.changes).map(|(number, _)| *number).collect()
    }

    /// An order has its verdict. Returns who waits for it.
    pub(in crate::daemon) fn end(&mut self, number: u64, outcome: &Outcome) -> Option<(u64, Dialect)> {
        let order = self.pending.remove(&number)?;
        if order.changes {
            order.asker.audit(&order.command, outcome, order.begun.elapsed(), 0);
        }
        if order.changes {
            self.note(number, outcome.clone());
        }
        order.client.map(|client| (client, order.dialect))
    }

    /// Remembers what has become of an order, of this process or of the one before it.
    pub(in crate::daemon) fn note(&mut self, number: u64, outcome: Outcome) {
        self.elsewhere.remove(&number);
        if self.verdicts.len() >= MOST_VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back((number, outcome));
    }

    /// Returns the last verdicts, the oldest first, as lines that [`read_outcome`] reads.
    pub(in crate::daemon) fn lines(&self) -> Vec<String> {
        let first = self.verdicts.len().saturating_sub(MOST_TOLD);
        self.verdicts.range(first..).map(|(number, outcome)| outcome_line(*number, outcome)).collect()
    }

    /// Returns what has become of an order, as long as it is remembered.
    pub(in crate::daemon) fn verdict(&self, number: u64) -> Option<&Outcome> {
        self.verdicts.iter().find(|(other, _)| *other == number).map(|(_, outcome)| outcome)
    }

    /// Returns the clients that have waited for long enough, with the numbers of their orders, which go on.
    pub(in crate::daemon) fn tired(&mut self, now: Instant) -> Vec<(u64, u64, Dialect)> {
        let is_tired = |order: &&mut Order| order.client.is_some() && order.due.is_some_and(|due| due <= now);
        let mut tired = Vec::new();
        for (number, order) in &mut self.pending {
            if is_tired(&order)
                && let Some(client) = order.client.take()
            {
                tired.push((client, *number, order.dialect));
            }
        }
        tired
    }

    /// Returns when the next client has waited for long enough.
    pub(in crate::daemon) fn next_due(&self) -> Option<Instant> {
        self.pending.values().filter(|order| order.client.is_some()).filter_map(|order| order.due).min()
    }
}

/// Writes a verdict in one line, for another process.
pub(in crate::daemon) fn outcome_line(number: u64, outcome: &Outcome) -> String {
    match outcome {
        Ok(Reply { verdict, text, data }) => json!([number, verdict, text, data]),
        Err(Refusal { code, text, last_words }) => json!([number, code.word(), text, last_words]),
    }
    .to_string()
}

/// Reads such a line; `None` if it is none.
pub(in crate::daemon) fn read_outcome(line: &str) -> Option<(u64, Outcome)> {
    let (number, word, text, rest): (u64, String, String, String) = serde_json::from_str(line).ok()?;
    let verdict = ["applied", "done"].into_iter().find(|verdict| *verdict == word);
    Some((
        number,
        match verdict {
            Some(verdict) => Ok(Reply { verdict, text, data: rest }),
            None => Err(Refusal { code: Code::of(&word)?, text, last_words: rest }),
        },
    ))
}

/// The target of the audit lines, which a level set at run time does not switch off.
const AUDIT: &str = "lenore::audit";

/// How many characters of a command the log has.
const LONGEST_COMMAND: usize = 200;

/// How many verdicts another process is told at once: with last words they are long, and it may not listen.
const MOST_TOLD: usize = 16;

/// How many verdicts are remembered.
const MOST_VERDICTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::super::dialect::{Code, Refusal};
    use super::*;

    fn request(no_wait: bool, timeout: Option<Duration>) -> Request {
        Request { command: Command::Reopen, no_wait, timeout }
    }

    fn outcome() -> Outcome {
        Err(Refusal::new(Code::Failed, "x"))
    }

    fn begin(orders: &mut Orders, number: u64, request: &Request) {
        let asker = Asker { uid: 1, pid: 2, comm: "test".to_owned() };
        orders.begin(number, (asker, 7), request, Subject::Logs, Dialect::Text);
    }

    #[test] // O-CT-17
    fn verdict_is_kept_for_a_while_and_told_to_a_client_that_waits() {
        let mut orders = Orders::default();
        begin(&mut orders, 1, &request(false, None));
        begin(&mut orders, 2, &request(true, None));
        assert!(orders.pending(1).is_some() && orders.verdict(1).is_none());
        assert_eq!(orders.end(1, &outcome()), Some((7, Dialect::Text)));
        assert_eq!(orders.end(1, &outcome()), None, "there is one verdict");
        assert_eq!(orders.end(2, &outcome()), None, "nobody waits");
        assert!(orders.pending(1).is_none() && orders.verdict(1).is_some() && orders.verdict(2).is_some());
        for number in 3..3 + MOST_VERDICTS as u64 {
            begin(&mut orders, number, &request(true, None));
            orders.end(number, &outcome());
        }
        assert!(orders.verdict(2).is_none() && orders.verdict(3).is_some());
    }

    #[test] // O-UP-04: a verdict of the process that has served before
    fn verdict_is_told_to_another_process_in_one_line() {
        let refused = Refusal { code: Code::RolledBack, text: "two\nlines".to_owned(), last_words: "ü".to_owned() };
        let applied = Reply { verdict: "applied", text: "pid=7\n".to_owned(), data: "{\"pid\":7}".to_owned() };
        for outcome in [Err(refused), Ok(applied), outcome()] {
            let line = outcome_line(9, &outcome);
            assert!(!line.contains('\n'), "{line}");
            let (number, read) = read_outcome(&line).unwrap();
            assert_eq!((number, format!("{read:?}")), (9, format!("{outcome:?}")));
        }
        assert!(read_outcome("[1, \"colour\", \"\", \"\"]").is_none() && read_outcome("x").is_none());
    }

    #[test] // O-CT-05: the order outlives its client's patience
    fn client_whose_time_is_up_is_told_once_and_the_order_goes_on() {
        let mut orders = Orders::default();
        begin(&mut orders, 1, &request(false, Some(Duration::from_secs(5))));
        begin(&mut orders, 2, &request(false, None));
        let now = Instant::now();
        assert!(orders.tired(now).is_empty());
        assert!(orders.next_due().is_some_and(|due| due > now && due <= now + Duration::from_secs(5)));
        assert_eq!(orders.tired(now + Duration::from_secs(6)), [(7, 1, Dialect::Text)]);
        assert!(orders.tired(now + Duration::from_secs(6)).is_empty() && orders.next_due().is_none());
        assert!(orders.pending(1).is_some());
        assert_eq!(orders.end(1, &outcome()), None);
        assert!(orders.verdict(1).is_some());
    }
}
