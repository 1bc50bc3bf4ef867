//! The splitter that both forms of the line filter share.

use memchr::memchr2;
use memchr::memmem::Finder;

use super::FilterError;

/// What ends a record.
#[derive(Clone, Debug)]
pub(super) enum Terminator {
    /// CR LF, LF CR, CR or LF, the longest that is there.
    Newline,
    /// As `Newline` for the first record; what ended that becomes the `Literal`.
    Undecided,
    /// These octets, at least one. Boxed because a finder is ten times the size of the rest.
    Literal(Box<Finder<'static>>),
}

/// Input on its way to becoming records.
///
/// Records are consumed by moving `start`; the octets in front of it are dropped when room is needed and they are at least
/// half of the buffer, so each octet is moved once or twice in all, however many records a chunk holds.
#[derive(Debug)]
pub(super) struct LineBuffer {
    octets: Vec<u8>,
    /// Where the first record not taken begins; what is in front of it is dead.
    start: usize,
    /// No terminator begins in `start..scanned`, so no octet is searched twice; at least `start`.
    scanned: usize,
    terminator: Terminator,
    /// The terminator was `Undecided` when it was set, and is so again in a clone.
    detects: bool,
    /// The newline octet that ended the last record, if it was the last octet of the input: whether the next one belongs
    /// to it is not known. The buffer holds nothing then, as the octet is consumed.
    half_newline: Option<u8>,
    /// The record in progress was given up and its terminator has not come. No terminator is in the buffer then: it holds
    /// what could be the beginning of one.
    skipping: bool,
    pub(super) max_length: usize,
    pub(super) max_buffer: usize,
}

impl Terminator {
    /// `octets` must not be empty.
    pub(super) fn literal(octets: &[u8]) -> Self {
        Self::Literal(Box::new(Finder::new(octets).into_owned()))
    }
}

impl LineBuffer {
    /// Replaces the terminator; what is still in the buffer is searched for the new one.
    pub(super) fn set_terminator(&mut self, terminator: Terminator) {
        self.detects = matches!(terminator, Terminator::Undecided);
        self.terminator = terminator;
        self.half_newline = None;
        self.scanned = self.start;
        if self.skipping {
            self.skip();
        }
    }

    pub(super) fn clone_config(&self) -> Self {
        let terminator = if self.detects { Terminator::Undecided } else { self.terminator.clone() };
        Self {
            terminator,
            detects: self.detects,
            max_length: self.max_length,
            max_buffer: self.max_buffer,
            ..Self::default()
        }
    }

    /// Takes `chunk` whole, or nothing of it if the limit does not allow it.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        let Some(&first) = chunk.first() else {
            return Ok(());
        };
        let absorbed = self.half_newline.is_some_and(|half| first == complement(half));
        let chunk = &chunk[usize::from(absorbed)..];
        self.check_limit(chunk.len())?;
        if let Some(half) = self.half_newline.take() {
            self.settle_newline(half, absorbed);
        }
        self.make_room(chunk.len());
        self.octets.extend_from_slice(chunk);
        if self.skipping {
            self.skip();
        }
        Ok(())
    }

    /// Consumes the next record with its terminator, and lends it until the next call.
    pub(super) fn take_record(&mut self) -> Result<Option<&[u8]>, FilterError> {
        let Some(end) = self.find_terminator() else {
            self.release_if_drained();
            return Ok(None);
        };
        let record = self.start..end;
        self.consume_terminator(end);
        if record.len() > self.max_length {
            return Err(FilterError::RecordTooLong { limit: self.max_length, length: record.len() });
        }
        Ok(Some(&self.octets[record]))
    }

    /// Consumes what is pending as if it were terminated; `None` if there is nothing.
    pub(super) fn take_pending(&mut self) -> Result<Option<&[u8]>, FilterError> {
        let record = self.start..self.octets.len();
        self.start = record.end;
        self.scanned = record.end;
        let was_given_up = std::mem::take(&mut self.skipping);
        if record.is_empty() || was_given_up {
            return Ok(None);
        }
        if record.len() > self.max_length {
            return Err(FilterError::RecordTooLong { limit: self.max_length, length: record.len() });
        }
        Ok(Some(&self.octets[record]))
    }

    /// What was appended and has not become a record; nothing of a record that was given up.
    pub(super) fn pending(&self) -> &[u8] {
        if self.skipping { &[] } else { &self.octets[self.start..] }
    }

    /// Where the next terminator begins.
    fn find_terminator(&mut self) -> Option<usize> {
        let unsearched = &self.octets[self.scanned..];
        let (found, keep) = match &self.terminator {
            Terminator::Newline | Terminator::Undecided => (memchr2(b'\r', b'\n', unsearched), 0),
            // All of a literal but its last octet may be here already: that much is searched again.
            Terminator::Literal(finder) => (finder.find(unsearched), finder.needle().len() - 1),
        };
        match found {
            Some(offset) => self.scanned += offset,
            None => self.scanned = self.scanned.max(self.octets.len().saturating_sub(keep)),
        }
        found.map(|_| self.scanned)
    }

    /// Moves `start` behind the terminator at `end`, of which the buffer may hold only one octet of two.
    fn consume_terminator(&mut self, end: usize) {
        self.start = end
            + match &self.terminator {
                Terminator::Literal(finder) => finder.needle().len(),
                Terminator::Newline | Terminator::Undecided => self.newline_len(end),
            };
        self.scanned = self.start;
    }

    fn newline_len(&mut self, end: usize) -> usize {
        let first = self.octets[end];
        let Some(&next) = self.octets.get(end + 1) else {
            // The peer may be waiting for an answer to this very line: deliver it, and leave the rest to `append`.
            self.half_newline = Some(first);
            return 1;
        };
        let paired = next == complement(first);
        self.settle_newline(first, paired);
        1 + usize::from(paired)
    }

    /// Notes that it is known whether the newline `first` is a pair. The first to be known decides what is detected.
    fn settle_newline(&mut self, first: u8, paired: bool) {
        if matches!(self.terminator, Terminator::Undecided) {
            let pair = [first, complement(first)];
            self.terminator = Terminator::literal(&pair[..1 + usize::from(paired)]);
        }
    }

    /// Fails if `more` octets do not fit, and gives up the record in progress if taking records would not help.
    fn check_limit(&mut self, more: usize) -> Result<(), FilterError> {
        // The beginning of a terminator that `skip` keeps does not count, or a chunk refused once could be refused again.
        let needed = self.pending().len().saturating_add(more);
        if needed <= self.max_buffer {
            return Ok(());
        }
        if self.find_terminator().is_none() {
            self.skipping = true;
            self.start = self.scanned;
        }
        Err(FilterError::BufferFull { limit: self.max_buffer, needed })
    }

    /// Discards the record in progress as far as it has come.
    fn skip(&mut self) {
        match self.find_terminator() {
            Some(end) => {
                self.consume_terminator(end);
                self.skipping = false;
            }
            None => self.start = self.scanned,
        }
    }

    fn make_room(&mut self, more: usize) {
        let live = self.octets.len() - self.start;
        let short_of_room = self.octets.capacity() - self.octets.len() < more;
        // Moving no more than what was consumed since the last time keeps the cost per octet constant.
        if live == 0 || (short_of_room && live <= self.start) {
            self.octets.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
    }

    /// Gives back the memory of an unusual burst, so that an idle connection does not keep it.
    fn release_if_drained(&mut self) {
        if self.start == self.octets.len() && self.octets.capacity() > KEPT_CAPACITY {
            self.octets = Vec::new();
            self.start = 0;
            self.scanned = 0;
        }
    }
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self {
            octets: Vec::new(),
            start: 0,
            scanned: 0,
            terminator: Terminator::Newline,
            detects: false,
            half_newline: None,
            skipping: false,
            max_length: 64 << 20,
            max_buffer: 512 << 20,
        }
    }
}

/// The octet that makes a pair with the newline `octet`: LF for CR, CR for LF.
fn complement(octet: u8) -> u8 {
    octet ^ (b'\r' ^ b'\n')
}

/// The most capacity a drained buffer keeps, in octets: twice a generous read.
const KEPT_CAPACITY: usize = 128 * 1024;

#[cfg(test)]
impl LineBuffer {
    /// How many octets of the record in progress have been searched.
    pub(super) fn scanned(&self) -> usize {
        self.scanned - self.start
    }

    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
    }
}
