//! A stretch of memory that processes share, from `mmap` to `munmap`.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::cut_short::Watch;

/// A shared mapping, all zero at first or as its file has it.
///
/// After a fork parent and child each own a mapping of the same memory, and each unmaps its own on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Its start, at the beginning of a page.
    base: NonNull<c_void>,
    /// Its length in bytes, as given to `mmap`.
    length: NonZeroUsize,
    /// Of a file that may be cut short.
    watch: Option<Watch>,
}

impl Mapping {
    /// Maps memory without a name: the kernel frees it when the last process has unmapped it or died.
    ///
    /// # Errors
    ///
    /// What `mmap` says, `ENOMEM` above all; also for a length of zero or one that does not fit the address space.
    pub(crate) fn unnamed(length: usize) -> io::Result<Mapping> {
        Mapping::anonymous(length, MapFlags::MAP_SHARED)
    }

    /// Maps memory without a name, of which little will be used: Linux counts a page when it is used, and not all of them now.
    ///
    /// # Errors
    ///
    /// As [`unnamed`](Mapping::unnamed).
    pub(crate) fn sparse(length: usize) -> io::Result<Mapping> {
        #[cfg(target_os = "linux")]
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        #[cfg(not(target_os = "linux"))]
        let flags = MapFlags::MAP_SHARED;
        Mapping::anonymous(length, flags)
    }

    fn anonymous(length: usize, flags: MapFlags) -> io::Result<Mapping> {
        let length = checked(length)?;
        // SAFETY: an anonymous mapping at an address of the kernel's choosing: it replaces no memory that anything
        // refers to, and no file can shrink beneath it.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) }?;
        Ok(Mapping { base, length, watch: None })
    }

    /// Maps the beginning of a file. Where `is_writable` is false, the mapping may only be read.
    ///
    /// The caller has made sure that the file is at least `length` bytes long. If the file is cut short later, zeroes of this
    /// process's own take the place of the whole mapping as soon as this process touches what is gone.
    ///
    /// # Errors
    ///
    /// As [`unnamed`](Mapping::unnamed).
    pub(crate) fn of_file(file: impl AsFd, length: usize, is_writable: bool) -> io::Result<Mapping> {
        let length = checked(length)?;
        let writes = if is_writable { ProtFlags::PROT_WRITE } else { ProtFlags::empty() };
        // SAFETY: a mapping at an address of the kernel's choosing: it replaces no memory that anything refers to. What
        // other processes write to the file shows up here, so nothing but atomics is ever made of it.
        let base = unsafe { mmap(None, length, ProtFlags::PROT_READ | writes, MapFlags::MAP_SHARED, file, 0) }?;
        let watch = Watch::new(base.as_ptr().expose_provenance(), length.get(), is_writable);
        Ok(Mapping { base, length, watch })
    }

    /// Tells whether the file was cut short, so that memory of this process's own is in its place.
    pub(crate) fn is_lost(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_lost)
    }

    /// Returns where it begins.
    #[inline]
    pub(crate) fn base(&self) -> NonNull<c_void> {
        self.base
    }
}

fn checked(length: usize) -> io::Result<NonZeroUsize> {
    let fits = isize::try_from(length).is_ok();
    NonZeroUsize::new(length).filter(|_| fits).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before the addresses are another mapping's.
        self.watch = None;
        // SAFETY: this value has mapped exactly this range and nothing else unmaps it in this process; every reference into
        // it borrows from its owner, so none is left. Other processes' mappings of the memory are their own.
        let unmapped = unsafe { munmap(self.base, self.length.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

// SAFETY: a mapping belongs to the process, not to a thread, so it may be unmapped from any.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives access to an address only.
unsafe impl Sync for Mapping {}

#[cfg(all(test, feature = "testing", not(any(lenore_loom, lenore_shuttle))))]
mod tests {
    use std::fs::File;
    use std::sync::atomic::AtomicU8;
    use std::sync::atomic::Ordering::Relaxed;

    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;
    use crate::sys::fork::{Side, exit_now, fork_beside_a_waiting_harness};
    use crate::testing::{TempDir, in_process};

    const LENGTH: usize = 8192;

    fn file(dir: &TempDir) -> File {
        let path = dir.path().join("file");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        file.set_len(LENGTH as u64).unwrap();
        file
    }

    fn at(mapping: &Mapping, offset: usize) -> &AtomicU8 {
        // SAFETY: `offset` is below the length, and any byte is a valid `AtomicU8`.
        unsafe { mapping.base().cast::<AtomicU8>().byte_add(offset).as_ref() }
    }

    #[test]
    fn zeroes_take_the_place_of_a_file_that_is_cut_short() {
        let dir = TempDir::new();
        let file = file(&dir);
        let [first, second] = [true, false].map(|is_writable| Mapping::of_file(&file, LENGTH, is_writable).unwrap());
        at(&first, 0).store(1, Relaxed);
        at(&first, 5000).store(2, Relaxed);
        assert_eq!(at(&second, 5000).load(Relaxed), 2);
        file.set_len(4096).unwrap();
        assert_eq!((at(&first, 0).load(Relaxed), at(&second, 0).load(Relaxed)), (1, 1), "this page is there");
        assert!(!first.is_lost() && !second.is_lost());
        at(&first, 5000).store(3, Relaxed);
        assert!(first.is_lost() && !second.is_lost());
        assert_eq!((at(&first, 0).load(Relaxed), at(&first, 5000).load(Relaxed)), (0, 3));
        assert_eq!((at(&second, 5000).load(Relaxed), at(&second, 0).load(Relaxed)), (0, 0));
        assert!(second.is_lost());
        drop(first);
        // Its place in the list is free, and nothing is known of the mapping that gets it.
        file.set_len(LENGTH as u64).unwrap();
        assert!(!Mapping::of_file(&file, LENGTH, true).unwrap().is_lost());
    }

    #[test]
    fn sigbus_elsewhere_ends_the_process_as_before() {
        in_process(|| {
            let dir = TempDir::new();
            let file = file(&dir);
            let _watched = Mapping::of_file(&file, LENGTH, true).unwrap();
            let mut other = Mapping::of_file(&file, LENGTH, true).unwrap();
            other.watch = None;
            file.set_len(0).unwrap();
            match fork_beside_a_waiting_harness().unwrap() {
                Side::Parent(child) => {
                    let end = waitpid(child, None).unwrap();
                    assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGBUS, _)), "{end:?}");
                }
                Side::Child => {
                    at(&other, 0).store(1, Relaxed);
                    exit_now(0);
                }
            }
        });
    }
}
