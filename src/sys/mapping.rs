//! A stretch of memory that processes share, from `mmap` to `munmap`.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A shared mapping, all zero at first or as its file has it.
///
/// After a fork parent and child each own a mapping of the same memory, and each unmaps its own on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Its start, at the beginning of a page.
    base: NonNull<c_void>,
    /// Its length in bytes, as given to `mmap`.
    length: NonZeroUsize,
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
    #[cfg(feature = "control")]
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
        Ok(Mapping { base, length })
    }

    /// Maps the beginning of a file. Where `is_writable` is false, the mapping may only be read.
    ///
    /// The caller has made sure that the file is at least `length` bytes long. A file that somebody shortens later ends the
    /// process with SIGBUS as soon as it touches what is gone.
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
        Ok(Mapping { base, length })
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
