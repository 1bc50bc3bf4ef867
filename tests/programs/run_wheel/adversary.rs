//! Children under any program, against a model that has all of the output at once.

use std::io;
use std::time::Duration;

use lenore::filter::FilterError;
use lenore::wheel::{Conduit, Failure, OnDrop, Run, RunEvent, WheelId};
use lenore::{Context, Died, Error, Kernel, Result, Session};
use util::tricky::{Line, OWN, PUT_REFUSED, Put, Told, Tricky, told};
use util::{DEADLINE, Dice};

use super::Scenario;

pub const SCENARIOS: &[(&str, Scenario)] = &[("adversary", adversary)];

type Wheel = Run<Tricky, Tricky, Tricky>;

/// What a child does with its input.
const PROGRAMS: [&str; 5] =
    ["exec cat", "exec head -c 2000", "exec cat >&2", "exit 0", "exec 0<&-; echo -n 'a0text;'; kill -9 $$"];

/// One wheel, what was done with it, and what it has told.
struct Life {
    seed: u64,
    dice: Dice,
    program: usize,
    has_marks: bool,
    delivers_last: bool,
    steps: u64,
    wheel: Option<Wheel>,
    /// What there is to be put, and how much of that has been.
    text: Vec<u8>,
    put: usize,
    flushed_at: usize,
    heard: Vec<Told>,
    /// How many lines filters have brought along, and how many of their records have come.
    own_lines: usize,
    own_records: usize,
    panics: usize,
    refused_puts: usize,
    refused_puts_told: usize,
    highs: usize,
    lows: usize,
    is_paused: bool,
    has_no_event: bool,
    /// Something was done after which the child need not get, or say, everything.
    is_cut: bool,
    stdin_is_ending: bool,
    has_failed: bool,
    /// How often the end of each output was told.
    ends: [usize; 2],
    is_closed: bool,
    is_over: bool,
}

impl Life {
    fn new(seed: u64) -> Life {
        let mut dice = Dice(seed);
        let mut text = String::new();
        let (stalls, is_cut_short) = (dice.below(4) == 0, dice.below(2) == 0);
        for number in 0..dice.below(800) as usize {
            let kind =
                Line::ALL[dice.below(2 * Line::ALL.len() as u64).saturating_sub(Line::ALL.len() as u64) as usize];
            let kind = if kind == Line::PanicsAndKeeps && !stalls { Line::Plain } else { kind };
            let padding = [0, 300, 900][dice.below(3) as usize];
            text += &kind.text(dice.below(6) as u8, number, padding, dice.below(2) == 0);
        }
        if is_cut_short {
            text += "a0 and so on";
        }
        Life {
            seed,
            program: dice.below(8).saturating_sub(3) as usize,
            has_marks: dice.below(2) == 0,
            delivers_last: dice.below(2) == 0,
            steps: dice.below(40),
            dice,
            wheel: None,
            text: text.into_bytes(),
            put: 0,
            flushed_at: 0,
            heard: Vec::new(),
            own_lines: 0,
            own_records: 0,
            panics: 0,
            refused_puts: 0,
            refused_puts_told: 0,
            highs: 0,
            lows: 0,
            is_paused: false,
            has_no_event: false,
            is_cut: stalls,
            stdin_is_ending: false,
            has_failed: false,
            ends: [0; 2],
            is_closed: false,
            is_over: false,
        }
    }

    /// The event of the stream that is listened to.
    fn output(&self) -> RunEvent {
        if self.program == 2 { RunEvent::Stderr } else { RunEvent::Stdout }
    }

    /// Not an assertion, which would be a failure of a state.
    fn expect(&self, is_right: bool, what: &str) {
        if !is_right {
            println!("seed {}: not {what}; {}", self.seed, self.describe());
        }
    }

    fn describe(&self) -> String {
        format!(
            "program {}, put {}, flushed at {}, heard {}, cut {}, ending {}, failed {}, ends {:?}, closed {}, marks {}/{}, refused {}/{}",
            self.program,
            self.put,
            self.flushed_at,
            self.heard.len(),
            self.is_cut,
            self.stdin_is_ending,
            self.has_failed,
            self.ends,
            self.is_closed,
            self.highs,
            self.lows,
            self.refused_puts,
            self.refused_puts_told,
        )
    }

    fn event_of(&self, id: WheelId) {
        let is_ours = self.wheel.as_ref().is_some_and(|wheel| wheel.id() == id);
        self.expect(is_ours, "events of a wheel that is there");
    }

    fn hear(&mut self, what: Told) {
        let place = usize::from(self.program == 2);
        self.expect(!self.is_paused && !self.has_no_event && self.ends[place] == 0, "input only when it is wanted");
        if what == Told::Record(OWN.to_owned()) {
            self.own_records += 1;
        } else {
            self.heard.push(what);
        }
    }

    /// What the child has said, if it has said all.
    fn told(&self) -> (Vec<Told>, usize) {
        let last = self.delivers_last;
        match self.program {
            0 | 2 => told(&self.text[..self.put], last),
            1 => told(&self.text[..self.put.min(2000)], last),
            3 => (Vec::new(), 0),
            _ => told(b"a0text;", last),
        }
    }

    fn put(&mut self, record: Put) -> Result {
        let Some(wheel) = &self.wheel else { return Ok(()) };
        let (length, is_refused) = match &record {
            Put::Bytes(bytes) => (bytes.len(), 0),
            Put::Refused => (0, 1),
            Put::Panics => (0, 0),
        };
        let is_ending = self.stdin_is_ending || self.has_failed;
        if wheel.put(record).is_closed() {
            self.expect(is_ending, "a put that is taken");
        } else {
            // What is put after the failure is lost as that was told to be.
            self.put += length;
            self.refused_puts += if self.has_failed { 0 } else { is_refused };
        }
        Ok(())
    }
}

fn act(cx: &mut Context<'_, Life>) -> Result {
    let life = cx.heap();
    let roll = life.dice.below(32);
    match roll {
        0..=9 => {
            let most = [1, 10, 1000, 200_000][life.dice.below(4) as usize];
            // The rest is put with the end, and more than a pipe takes.
            let end = (life.text.len() / 2).max(life.put).min(life.put + most);
            let bytes = life.text[life.put..end].to_vec();
            return life.put(Put::Bytes(bytes));
        }
        10 => return life.put(Put::Refused).and_then(|()| life.put(Put::Refused)),
        11 => return life.put(Put::Panics),
        12 => return Err(io::Error::other("on purpose").into()),
        _ => {}
    }
    let (output, capacity) = (life.output(), [100, 1000, usize::MAX][life.dice.below(3) as usize]);
    let is_rare = life.dice.below(4) == 0;
    let Some(wheel) = &life.wheel else { return Ok(()) };
    match roll {
        13..=15 => {
            wheel.pause_stdout();
            wheel.pause_stderr();
            life.is_paused = true;
        }
        16..=18 => {
            life.is_paused = false;
            wheel.resume_stdout();
            wheel.resume_stderr();
        }
        19 => {
            wheel.event_clear(output);
            life.has_no_event = true;
        }
        20 => {
            wheel.event(output, "output");
            life.has_no_event = false;
        }
        // That of a stream that has ended is not asked any more.
        21 if life.ends == [0; 2] => {
            let filter = Tricky::with_line(capacity);
            if life.program == 2 {
                wheel.set_stderr_filter(filter)
            } else {
                wheel.set_stdout_filter(filter)
            }
            life.own_lines += 1;
        }
        22 | 23 => {
            wheel.set_stdout_filter(Tricky::new(capacity));
            wheel.set_stderr_filter(Tricky::new(capacity));
        }
        24 => wheel.set_stdin_filter(Tricky::new(capacity)),
        25 if is_rare => {
            wheel.shutdown_stdin();
            (life.stdin_is_ending, life.is_cut) = (true, true);
        }
        26 if is_rare => {
            wheel.shutdown_stdin_after_flush();
            life.stdin_is_ending = true;
        }
        27 if is_rare => life.wheel = None,
        28 if is_rare => {
            let _ = wheel.kill("KILL");
            life.is_cut = true;
        }
        29 => drop(wheel.kill("STOP")),
        30 => drop(wheel.kill("CONT")),
        _ => {}
    }
    Ok(())
}

fn act_now_and_then(cx: &mut Context<'_, Life>) -> Result {
    if cx.heap().steps > 0 && cx.heap().dice.below(5) == 0 { act_once_or_more(cx) } else { Ok(()) }
}

fn act_once_or_more(cx: &mut Context<'_, Life>) -> Result {
    act(cx)?;
    if cx.heap().dice.below(3) == 0 { act_once_or_more(cx) } else { Ok(()) }
}

fn error(cx: &mut Context<'_, Life>) -> Result {
    let Failure { operation, errno, text, wheel, subject: stream, .. } = cx.take(0)?;
    let life = cx.heap();
    life.event_of(wheel.expect("a wheel names itself"));
    match operation {
        "read" => {
            let place = usize::from(stream == "STDERR");
            life.ends[place] += 1;
            let is_listened_to = place == usize::from(life.program == 2);
            let is_wanted = !(life.is_paused || life.has_no_event && is_listened_to);
            life.expect(life.ends[place] == 1 && is_wanted, "one end, when it is wanted");
            let is_whole = life.is_cut || life.has_failed || !is_listened_to || life.heard == life.told().0;
            life.expect(errno != 0 || is_whole, "the end after all records");
        }
        "write" => {
            life.expect(!life.has_failed && stream == "STDIN", "one failure of the output");
            life.has_failed = true;
        }
        _ if text.ends_with(PUT_REFUSED) => life.refused_puts_told += 1,
        _ => life.hear(Told::OutOfStep(text.rsplit(": ").next().unwrap_or_default().to_owned())),
    }
    act_now_and_then(cx)
}

fn mark(cx: &mut Context<'_, Life>) -> Result {
    let (id, is_high) = (cx.take::<WheelId>(0)?, cx.state_name() == "high");
    let life = cx.heap();
    life.event_of(id);
    life.expect(life.highs == life.lows + usize::from(!is_high), "the marks by turns");
    *if is_high { &mut life.highs } else { &mut life.lows } += 1;
    act_now_and_then(cx)
}

fn step(cx: &mut Context<'_, Life>) -> Result {
    let life = cx.heap();
    if life.steps > 0 {
        life.steps -= 1;
        cx.yield_("step", ());
        return act_once_or_more(cx);
    }
    let output = life.output();
    if let Some(wheel) = &life.wheel {
        let _ = wheel.kill("CONT");
        wheel.resume_stdout();
        wheel.resume_stderr();
        wheel.event(output, "output");
        (life.is_paused, life.has_no_event) = (false, false);
        let rest = life.text[life.put..].to_vec();
        life.put(Put::Bytes(rest))?;
        life.put(Put::Refused)?;
        life.stdin_is_ending = true;
        if let Some(wheel) = &life.wheel {
            wheel.shutdown_stdin_after_flush();
        }
        cx.yield_("look", ());
    } else {
        end(cx);
    }
    Ok(())
}

/// Looks until the wheel has closed and all has been told.
fn look(cx: &mut Context<'_, Life>) {
    let life = cx.heap();
    let (told, panics) = life.told();
    let is_whole = life.is_cut || life.has_failed || life.heard == told && life.panics == panics;
    let is_even = life.refused_puts_told == life.refused_puts && life.highs == life.lows;
    let has_own = life.own_records == life.own_lines || life.is_cut;
    if life.is_closed && is_whole && has_own && (is_even || life.is_cut || life.has_failed) {
        end(cx);
    } else if !life.is_over {
        cx.delay("look", Duration::from_millis(1), ());
    }
}

fn end(cx: &mut Context<'_, Life>) {
    let life = cx.heap();
    life.wheel = None;
    life.is_over = true;
    let all = match life.program {
        0..=2 => told(&life.text, life.delivers_last).0,
        _ => life.told().0,
    };
    // A child that was cut short may have said half of a record, which is the last one then.
    let sure = life.heard.len() - usize::from(life.delivers_last && life.heard.last().is_some_and(Told::is_last));
    life.expect(all.starts_with(&life.heard[..sure]), "the records in their order");
    cx.alarm_remove_all();
}

/// The life of a seed, and of others after it that are below `limit`.
fn life(seed: u64, limit: u64) -> Session<Life> {
    Session::new(Life::new(seed))
        .state("_start", |cx| {
            cx.sig("DIE", "die");
            cx.delay("late", 3 * DEADLINE, ());
            let life = cx.heap();
            let mut wheel = Run::shell(PROGRAMS[life.program])
                .conduit([Conduit::Pipe, Conduit::SocketPair][life.dice.below(2) as usize])
                .stdio_filter(Tricky::new(1000))
                .stderr_filter(Tricky::new(usize::MAX))
                .on_stdin("flushed")
                .on_stdout("output")
                .on_stderr("output")
                .on_error("error")
                .on_refused("refused")
                .on_close("close")
                .on_drop(OnDrop::Kill);
            if life.has_marks {
                wheel = wheel.watermarks(100, 5000).on_high("high").on_low("low");
            }
            if life.delivers_last {
                wheel = wheel.deliver_last();
            }
            let wheel = wheel.start(cx)?;
            cx.heap().wheel = Some(wheel);
            cx.yield_("step", ());
            Ok(())
        })
        .state("_stop", move |cx| {
            let next = seed.wrapping_add(LIVES_AT_ONCE);
            if next < limit {
                life(next, limit).spawn(cx)?;
            }
            Ok(())
        })
        .state("step", step)
        .state("look", look)
        .state("late", |cx| {
            let life = cx.heap();
            life.expect(false, "the end in time");
            end(cx);
        })
        .state("output", |cx| {
            let (record, id) = (cx.take::<String>(0)?, cx.take::<WheelId>(1)?);
            cx.heap().event_of(id);
            cx.heap().hear(Told::Record(record));
            act_now_and_then(cx)
        })
        .state("refused", |cx| {
            let (error, id) = (cx.take::<FilterError>(0)?, cx.take::<WheelId>(1)?);
            cx.heap().event_of(id);
            let FilterError::Malformed { reason } = error else { return Err(error.into()) };
            cx.heap().hear(Told::Refused(reason.into_owned()));
            act_now_and_then(cx)
        })
        .state("flushed", |cx| {
            let id = cx.take::<WheelId>(0)?;
            let life = cx.heap();
            life.event_of(id);
            let is_empty = life.wheel.as_ref().is_some_and(|wheel| wheel.pending_output() == 0);
            life.expect(
                is_empty && life.put > life.flushed_at && !life.has_failed,
                "flushed once, when all is written",
            );
            life.flushed_at = life.put;
            act_now_and_then(cx)
        })
        .state("high", mark)
        .state("low", mark)
        .state("error", error)
        .state("close", |cx| {
            let id = cx.take::<WheelId>(0)?;
            let life = cx.heap();
            life.event_of(id);
            life.expect(life.ends == [1; 2] && !life.is_closed, "closed once both outputs have ended");
            life.is_closed = true;
            Ok(())
        })
        .state("die", |cx| {
            let text = cx.take::<Died>(1)?.exception.to_string();
            let life = cx.heap();
            life.panics += usize::from(text.contains("filter, "));
            let is_usual = ["filter, ", "on purpose", "half a record"].iter().any(|usual| text.contains(usual));
            life.expect(is_usual, &text);
            cx.sig_handled();
            Ok(())
        })
}

/// Several lives at a time, each followed by others.
fn adversary(kernel: &mut Kernel) -> std::result::Result<(), Error> {
    std::panic::set_hook(Box::new(|_| {}));
    let first = Dice::from_env("LENORE_STREAM_SEED").0;
    let lives = std::env::var("LENORE_STREAM_LIVES").map_or(30, |text| text.parse().expect("a number"));
    let limit = first.wrapping_add(lives);
    (0..LIVES_AT_ONCE.min(lives)).try_for_each(|number| life(first.wrapping_add(number), limit).spawn(kernel).map(drop))
}

const LIVES_AT_ONCE: u64 = 10;
