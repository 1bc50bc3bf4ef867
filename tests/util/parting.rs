//! A filter that does something when it is dropped, as one does that holds a file, a lock or a postback.

use lenore::filter::{Filter, FilterError, Stream};

/// Passes everything on, and runs a closure at its end.
pub struct Parting {
    stream: Stream,
    at_end: Option<Box<dyn FnOnce()>>,
}

impl Parting {
    pub fn new(at_end: impl FnOnce() + 'static) -> Parting {
        Parting { stream: Stream::new(), at_end: Some(Box::new(at_end)) }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}

impl Filter for Parting {
    type Input = <Stream as Filter>::Input;
    type Output = <Stream as Filter>::Output;

    fn get_one_start(&mut self, chunk: &[u8]) -> Result<(), FilterError> {
        self.stream.get_one_start(chunk)
    }

    fn get_one(&mut self) -> Result<Option<Self::Input>, FilterError> {
        self.stream.get_one()
    }

    fn put(&mut self, record: &Self::Output, out: &mut Vec<u8>) -> Result<(), FilterError> {
        self.stream.put(record, out)
    }

    fn get_pending(&self) -> &[u8] {
        self.stream.get_pending()
    }

    /// The copy does nothing at its end.
    fn clone_config(&self) -> Parting {
        Parting { stream: self.stream.clone_config(), at_end: None }
    }
}
