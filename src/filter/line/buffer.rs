//! The splitter that both forms of the line filter share.

use memchr::memchr2;
use memchr::memmem::Finder;

use super::FilterError;
use crate::filter::buffer::{Buffer, Limits};

/// What ends a record.
#[derive(Clone, Debug)]
pub(super) enum Terminator {
    /// CR LF, LF CR, CR or LF, whichever is longest.
    Newline,
    /// `Newline` for the first record. The terminator of that record then becomes the `Literal`.
    Undecided,
    /// These bytes, at least one. Boxed because a finder is ten times the size of the rest.
    Literal(Box<Finder<'static>>),
}

/// Input on its way to becoming records.
#[derive(Debug)]
pub(super) struct LineBuffer {
    octets: Buffer,
    /// No terminator begins in the first `scanned` bytes, so none is searched twice.
    scanned: usize,
    terminator: Terminator,
    /// The terminator was set as `Undecided`, and is `Undecided` again in a clone.
    detects: bool,
    /// The newline byte that ended the last record, if it was the last byte of the input. Whether the next byte belongs
    /// to it is not known yet. The buffer is empty then, because the byte is consumed.
    half_newline: Option<HalfNewline>,
    /// The record in progress was given up and its terminator has not come. No terminator is in the buffer then: it holds
    /// what could be the beginning of one.
    skipping: bool,
    pub(super) limits: Limits,
}

/// A newline byte that may be the first of two.
#[derive(Clone, Copy, Debug)]
struct HalfNewline {
    octet: u8,
    /// It has ended a record under the current terminator, and so decides which terminator is detected.
    is_current: bool,
}

impl Terminator {
    /// `octets` must not be empty.
    pub(super) fn literal(octets: &[u8]) -> Self {
        Self::Literal(Box::new(Finder::new(octets).into_owned()))
    }
}

impl LineBuffer {
    /// Replaces the terminator. Bytes still in the buffer are searched for the new one.
    pub(super) fn set_terminator(&mut self, terminator: Terminator) {
        self.detects = matches!(terminator, Terminator::Undecided);
        self.terminator = terminator;
        // The other half belongs to the record before it, whatever the new terminator is.
        self.half_newline = self.half_newline.map(|half| HalfNewline { is_current: false, ..half });
        self.scanned = 0;
        if self.skipping {
            self.skip();
        }
    }

    pub(super) fn clone_config(&self) -> Self {
        let terminator = if self.detects { Terminator::Undecided } else { self.terminator.clone() };
        Self { terminator, detects: self.detects, limits: self.limits, ..Self::default() }
    }

    /// Takes `chunk` whole, or nothing of it if the limit does not allow it.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        let Some(&first) = chunk.first() else {
            return Ok(());
        };
        let absorbed = self.half_newline.is_some_and(|half| first == complement(half.octet));
        let chunk = &chunk[usize::from(absorbed)..];
        self.check_limit(chunk.len())?;
        if let Some(half) = self.half_newline.take().filter(|half| half.is_current) {
            self.settle_newline(half.octet, absorbed);
        }
        self.octets.append(chunk);
        if self.skipping {
            self.skip();
        }
        Ok(())
    }

    /// Consumes the next record with its terminator, and lends it until the next call.
    pub(super) fn take_record(&mut self) -> Result<Option<&[u8]>, FilterError> {
        let Some(end) = self.find_terminator() else {
            self.octets.release_if_drained();
            return Ok(None);
        };
        let terminator = self.terminator_len(end);
        self.scanned = 0;
        let record = &self.octets.consume(end + terminator)[..end];
        self.limits.check_length(record.len())?;
        Ok(Some(record))
    }

    /// Consumes the pending bytes as if they were terminated. Returns `None` if there are none.
    pub(super) fn take_pending(&mut self) -> Result<Option<&[u8]>, FilterError> {
        self.scanned = 0;
        let was_given_up = std::mem::take(&mut self.skipping);
        let record = self.octets.consume(self.octets.len());
        if record.is_empty() || was_given_up {
            return Ok(None);
        }
        self.limits.check_length(record.len())?;
        Ok(Some(record))
    }

    /// Returns the bytes that have not become a record, but not those of a record that was given up.
    pub(super) fn pending(&self) -> &[u8] {
        if self.skipping { &[] } else { self.octets.live() }
    }

    pub(super) fn is_between_records(&self) -> bool {
        self.octets.live().is_empty() && !self.skipping
    }

    /// Returns how many bytes of `chunk` belong to the last record, or `None` if all do and more may follow. This is
    /// for a buffer whose pending bytes another filter has taken over.
    pub(super) fn finish_record(&mut self, chunk: &[u8]) -> Option<usize> {
        if self.skipping {
            let held = self.octets.len();
            self.octets.append(chunk);
            self.skip();
            let rest = self.octets.len();
            if self.skipping || self.half_newline.is_some() {
                return None;
            }
            self.octets.clear();
            return Some(held + chunk.len() - rest);
        }
        match (self.half_newline, chunk.first()) {
            (Some(_), None) => None,
            (Some(half), Some(&first)) => {
                self.half_newline = None;
                Some(usize::from(first == complement(half.octet)))
            }
            (None, _) => Some(0),
        }
    }

    /// Returns where the next terminator begins.
    fn find_terminator(&mut self) -> Option<usize> {
        let unsearched = &self.octets.live()[self.scanned..];
        if unsearched.is_empty() {
            return None;
        }
        let (found, keep) = match &self.terminator {
            Terminator::Newline | Terminator::Undecided => (memchr2(b'\r', b'\n', unsearched), 0),
            // The buffer may have all of a terminator but its last byte, so that much is searched again.
            Terminator::Literal(finder) => (finder.find(unsearched), finder.needle().len() - 1),
        };
        match found {
            Some(offset) => self.scanned += offset,
            None => self.scanned = self.scanned.max(self.octets.len().saturating_sub(keep)),
        }
        found.map(|_| self.scanned)
    }

    /// Returns how long the terminator at `end` is. The buffer may hold only one byte of two.
    fn terminator_len(&mut self, end: usize) -> usize {
        match &self.terminator {
            Terminator::Literal(finder) => finder.needle().len(),
            Terminator::Newline | Terminator::Undecided => self.newline_len(end),
        }
    }

    fn newline_len(&mut self, end: usize) -> usize {
        let live = self.octets.live();
        let first = live[end];
        let Some(&next) = live.get(end + 1) else {
            // The peer may be waiting for an answer to this very line: deliver it, and leave the rest to `append`.
            self.half_newline = Some(HalfNewline { octet: first, is_current: true });
            return 1;
        };
        let paired = next == complement(first);
        self.settle_newline(first, paired);
        1 + usize::from(paired)
    }

    /// Notes that it is now known whether the newline `first` is a pair. The first such newline decides which
    /// terminator is detected.
    fn settle_newline(&mut self, first: u8, paired: bool) {
        if matches!(self.terminator, Terminator::Undecided) {
            let pair = [first, complement(first)];
            self.terminator = Terminator::literal(&pair[..1 + usize::from(paired)]);
        }
    }

    /// Fails if `more` bytes do not fit, and gives up the record in progress if taking records would not help.
    fn check_limit(&mut self, more: usize) -> Result<(), FilterError> {
        // The beginning of a terminator that `skip` keeps does not count. Otherwise a chunk could be refused a second
        // time.
        let fits = self.limits.check_buffer(self.pending().len(), more);
        if fits.is_err() && self.find_terminator().is_none() {
            self.skipping = true;
            self.drop_scanned();
        }
        fits
    }

    /// Discards the record in progress as far as it has come.
    fn skip(&mut self) {
        if let Some(end) = self.find_terminator() {
            self.scanned += self.terminator_len(end);
            self.skipping = false;
        }
        self.drop_scanned();
    }

    fn drop_scanned(&mut self) {
        self.octets.consume(self.scanned);
        self.scanned = 0;
    }
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self {
            octets: Buffer::default(),
            scanned: 0,
            terminator: Terminator::Newline,
            detects: false,
            half_newline: None,
            skipping: false,
            limits: Limits::default(),
        }
    }
}

/// The byte that makes a pair with the newline `octet`: LF for CR, CR for LF.
fn complement(octet: u8) -> u8 {
    octet ^ (b'\r' ^ b'\n')
}

#[cfg(test)]
impl LineBuffer {
    /// How many bytes of the record in progress have been searched.
    pub(super) fn scanned(&self) -> usize {
        self.scanned
    }

    pub(super) fn capacity(&self) -> usize {
        self.octets.capacity()
    }
}
