//! A filter that panics, refuses and repeats itself as its input says, so that what comes of an input does not depend on how it
//! is cut; and the model of it, which has the whole input at once.

use lenore::filter::{Filter, FilterError};

/// What has come of the input, in its order. Panics are not among it: they are signals, which have an order of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Record(String),
    /// A refused event.
    Refused(String),
    /// An error event, `"filter"`.
    OutOfStep(String),
}

impl Told {
    /// Tells whether it is a last record that had no end.
    pub fn is_last(&self) -> bool {
        matches!(self, Told::Record(text) if text.starts_with("last "))
    }
}

/// Lines of a kind, a digit and a text. Each ends in `;`, and a newline after that belongs to it. What is left of the digit
/// stands in the input itself, so that any other filter of this kind can go on.
pub struct Tricky {
    input: Vec<u8>,
    /// How much it holds at most.
    capacity: usize,
    /// The last line has gone, and its newline may still come.
    newline_may_come: bool,
}

/// What [`Tricky`] does with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Plain,
    /// It panics, and has taken the line.
    Panics,
    /// It panics as often as the digit says, without taking anything.
    PanicsAndKeeps,
    Refused,
    /// It refuses as often as the digit says, without taking anything.
    RefusedAndKept,
    /// As many records more as the digit says.
    Many,
    OutOfStep,
}

impl Line {
    pub const ALL: [Line; 7] = [
        Line::Plain,
        Line::Panics,
        Line::PanicsAndKeeps,
        Line::Refused,
        Line::RefusedAndKept,
        Line::Many,
        Line::OutOfStep,
    ];

    /// Returns the line with so much padding as input, `number` being its text.
    pub fn text(self, digit: u8, number: usize, padding: usize, has_newline: bool) -> String {
        let newline = if has_newline { "\n" } else { "" };
        format!("{}{digit}{number}{};{newline}", self.letter() as char, ".".repeat(padding))
    }

    fn letter(self) -> u8 {
        b'a' + self as u8
    }
}

impl Tricky {
    pub fn new(capacity: usize) -> Tricky {
        Tricky { input: Vec::new(), capacity, newline_may_come: false }
    }

    /// Makes one that comes with a line, whose record is [`OWN`].
    pub fn with_line(capacity: usize) -> Tricky {
        Tricky { input: b"a0own;".to_vec(), ..Tricky::new(capacity) }
    }

    /// Returns the first line's kind, digit and text.
    fn line(&self) -> Option<(Line, u8, String)> {
        let end = self.input.iter().position(|byte| *byte == b';')?;
        let line = &self.input[..end];
        let kind = line.first().and_then(|letter| Line::ALL.into_iter().find(|kind| kind.letter() == *letter));
        let kind = kind.unwrap_or_else(|| panic!("not a line: {:?}", String::from_utf8_lossy(line)));
        Some((kind, line[1] - b'0', String::from_utf8_lossy(&line[2..]).into_owned()))
    }

    fn take_line(&mut self) {
        let end = self.input.iter().position(|byte| *byte == b';').expect("there is a line");
        let has_newline = self.input.get(end + 1) == Some(&b'\n');
        self.input.drain(..=end + usize::from(has_newline));
        self.newline_may_come = self.input.is_empty() && !has_newline;
    }
}

fn refusal(text: String) -> FilterError {
    FilterError::malformed(text)
}

impl Filter for Tricky {
    type Input = String;
    type Output = Put;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        let skipped = self.finish_record(chunk).unwrap_or(0);
        if !chunk.is_empty() {
            self.newline_may_come = false;
        }
        self.input.extend_from_slice(&chunk[skipped..]);
        Ok(())
    }

    fn get_one(&mut self) -> Result<Option<String>, FilterError> {
        let Some((kind, digit, text)) = self.line() else { return Ok(None) };
        let is_kept = digit > 0 && matches!(kind, Line::PanicsAndKeeps | Line::RefusedAndKept | Line::Many);
        if is_kept {
            self.input[1] -= 1;
        } else {
            self.take_line();
        }
        match kind {
            Line::Panics => panic!("filter, {text}"),
            Line::PanicsAndKeeps if is_kept => panic!("filter, {text}"),
            Line::Refused => Err(refusal(text)),
            Line::RefusedAndKept if is_kept => Err(refusal(text)),
            Line::OutOfStep => Err(FilterError::out_of_step(text)),
            _ => Ok(Some(format!("{digit} {text}"))),
        }
    }

    fn get_last(&mut self) -> Result<Option<String>, FilterError> {
        let last = String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned();
        Ok((!last.is_empty()).then(|| format!("last {last}")))
    }

    fn put(&mut self, record: &Put, out: &mut Vec<u8>) -> Result<(), FilterError> {
        match record {
            Put::Bytes(bytes) => out.extend_from_slice(bytes),
            Put::Refused => {
                out.extend_from_slice(b"half a record");
                return Err(refusal(String::from(PUT_REFUSED)));
            }
            Put::Panics => {
                out.extend_from_slice(b"half a record");
                panic!("with half a record put");
            }
        }
        Ok(())
    }

    fn get_pending(&self) -> &[u8] {
        &self.input
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.input.len())
    }

    fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        match chunk.first() {
            None if self.newline_may_come => None,
            Some(b'\n') if self.newline_may_come => Some(1),
            _ => Some(0),
        }
    }

    fn clone_config(&self) -> Tricky {
        Tricky::new(self.capacity)
    }
}

/// What is put through [`Tricky`].
#[derive(Debug, Clone)]
pub enum Put {
    Bytes(Vec<u8>),
    Refused,
    Panics,
}

/// What comes of the line that a filter has brought along.
pub const OWN: &str = "0 own";

/// The reason for a record that was not put.
pub const PUT_REFUSED: &str = "not to be put";

/// What a whole input comes to, in order, and how often the filter panics on it.
pub fn told(input: &[u8], has_last: bool) -> (Vec<Told>, usize) {
    let text = String::from_utf8_lossy(input);
    let (mut told, mut panics) = (Vec::new(), 0);
    let mut lines: Vec<&str> = text.split(';').map(|line| line.strip_prefix('\n').unwrap_or(line)).collect();
    let last = lines.pop().unwrap_or_default();
    for line in lines {
        let kind = Line::ALL[usize::from(line.as_bytes()[0] - b'a')];
        let (digit, text) = (line.as_bytes()[1] - b'0', line[2..].to_owned());
        let record = |left: u8| Told::Record(format!("{left} {text}"));
        match kind {
            Line::Plain => told.push(record(digit)),
            Line::Panics => panics += 1,
            Line::PanicsAndKeeps => {
                panics += usize::from(digit);
                told.push(record(0));
            }
            Line::Refused => told.push(Told::Refused(text)),
            Line::RefusedAndKept => {
                told.extend((0..digit).map(|_| Told::Refused(text.clone())));
                told.push(record(0));
            }
            Line::Many => told.extend((0..=digit).rev().map(record)),
            Line::OutOfStep => told.push(Told::OutOfStep(text)),
        }
    }
    if has_last && !last.is_empty() {
        told.push(Told::Record(format!("last {last}")));
    }
    (told, panics)
}

/// Bytes from place `start` of an output on: any that is missing, doubled or moved shows.
pub fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length).map(|place| ((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}
