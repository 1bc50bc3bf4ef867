//! Temporary errors: which errors they are, and how each is reported once.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use nix::errno::Errno;

/// The errors since the last success.
#[derive(Default)]
pub(super) struct Trouble {
    /// The errors that were reported.
    told: RefCell<Vec<i32>>,
}

impl Trouble {
    /// Notes an error. Returns whether it is the first of its kind.
    pub(super) fn is_news(&self, error: &io::Error) -> bool {
        let errno = error.raw_os_error().unwrap_or(0);
        let mut told = self.told.borrow_mut();
        let is_news = !told.contains(&errno);
        if is_news {
            told.push(errno);
        }
        is_news
    }

    /// Notes a success. Returns whether there were errors before.
    pub(super) fn end(&self) -> bool {
        !self.told.take().is_empty()
    }

    /// Returns the last error that was reported.
    pub(super) fn latest(&self) -> Option<io::Error> {
        self.told.borrow().last().map(|errno| io::Error::from_raw_os_error(*errno))
    }
}

/// Tells whether another attempt may succeed.
///
/// A path may lead to another file later, whatever is wrong with it now. An open file does not change.
pub(super) fn may_pass(operation: &str, error: &io::Error, has_name: bool) -> bool {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw) else {
        // A name with a NUL in it.
        return error.kind() != ErrorKind::InvalidInput;
    };
    match (has_name, operation) {
        (true, "read") => true,
        (true, _) => !matches!(errno, Errno::ENAMETOOLONG | Errno::EINVAL),
        (false, _) => !matches!(
            errno,
            Errno::EBADF
                | Errno::EINVAL
                | Errno::EISDIR
                | Errno::ENODEV
                | Errno::ENXIO
                | Errno::ESPIPE
                | Errno::ESTALE
                | Errno::ENOTCONN
                | Errno::ECONNRESET
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // K-FT-15
    fn a_name_may_lead_elsewhere_and_a_descriptor_may_not() {
        let of = |errno: Errno| io::Error::from(errno);

        let errnos = [
            Errno::EACCES,
            Errno::EMFILE,
            Errno::ENFILE,
            Errno::EIO,
            Errno::ENOMEM,
            Errno::EINTR,
            Errno::ENOTDIR,
            Errno::ELOOP,
            Errno::ESTALE,
            Errno::EISDIR,
        ];
        for errno in errnos {
            assert!(["open", "stat", "read"].iter().all(|operation| may_pass(operation, &of(errno), true)), "{errno}");
        }
        for errno in [Errno::ENAMETOOLONG, Errno::EINVAL] {
            assert!(!may_pass("open", &of(errno), true), "{errno}");
        }
        assert!(!may_pass("open", &io::Error::from(ErrorKind::InvalidInput), true));
        for (errno, passes) in
            [(Errno::EIO, true), (Errno::ENOMEM, true), (Errno::EBADF, false), (Errno::ESTALE, false)]
        {
            assert_eq!(may_pass("read", &of(errno), false), passes, "{errno}");
        }
    }

    #[test] // K-FT-19
    fn each_error_is_told_once_until_a_success() {
        let trouble = Trouble::default();
        let (denied, full) = (io::Error::from(Errno::EACCES), io::Error::from(Errno::EMFILE));
        assert!(!trouble.end());
        for _ in 0..2 {
            let told = [&denied, &denied, &full, &denied, &full].map(|error| trouble.is_news(error));
            assert_eq!(told, [true, false, true, false, false]);
            assert!(trouble.end());
            assert!(!trouble.end());
        }
    }
}
