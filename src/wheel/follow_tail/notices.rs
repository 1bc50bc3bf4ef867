//! inotify, which makes the wheel look sooner, and does not decide what it finds.
//!
//! There are three watches. Two are for writes, to the file and to the next file with its name. The third is for other
//! files with the name in the directory. If a watch can't be set, or the directory is missing, the wheel only polls.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::{self, FsType, statfs};

use crate::kernel::{AfterFork, Core, Mailbox, Next, Readiness, SessionId, Source, SourceKey, Turn, Wanted};

/// The source that reports changes to a `FollowTail`. It is a second source, made when the wheel waits for the first
/// time.
#[derive(Default)]
pub(super) struct Notices {
    watcher: RefCell<Option<Rc<Watcher>>>,
    /// There were no inotify descriptors left, which is logged once.
    failed: Cell<bool>,
}

/// Which changes are reported while the wheel waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Some changes may not be reported.
    Blind,
    /// Changes are reported from now on, so the wheel must look for earlier ones.
    LookAgain,
    /// Changes are reported.
    Told,
}

impl Notices {
    /// Watches what `tail` waits for: the file and its successor by their descriptors, if they exist, and the directory
    /// of its path if it has one.
    pub(super) fn watch(
        &self,
        core: &mut Core,
        (tail, owner): (SourceKey, SessionId),
        files: [Option<RawFd>; 2],
        path: Option<&Path>,
    ) -> Outlook {
        if self.watcher.borrow().is_none() {
            match Watcher::start(core, (tail, owner), path) {
                Ok(watcher) => drop(self.watcher.replace(Some(watcher))),
                Err(error) if !self.failed.replace(true) => {
                    log::info!(target: "lenore::wheels", "a FollowTail of {owner} polls, as there is no inotify: {error}");
                }
                Err(_) => {}
            }
        }
        self.watcher.borrow().as_ref().map_or(Outlook::Blind, |watcher| watcher.watch(files, path))
    }

    /// The file was closed, and its successor has replaced it.
    pub(super) fn next_file(&self) {
        for watcher in self.watcher.borrow().iter() {
            watcher.end(&watcher.file);
            watcher.file.set(watcher.next.take());
        }
    }

    /// Closes the source without a call to inotify, because the parent may still use the descriptor.
    pub(super) fn close(&self, mailbox: &Mailbox) {
        self.watcher.take().into_iter().for_each(|watcher| mailbox.dropped(watcher.key));
    }
}

/// The source of the notices.
struct Watcher {
    inotify: RefCell<Option<Inotify>>,
    key: SourceKey,
    /// The source of the wheel.
    tail: SourceKey,
    mailbox: Rc<Mailbox>,
    /// `None` for a handle.
    path: Option<PathBuf>,
    file: Cell<Option<Watch>>,
    /// The next file with the name.
    next: Cell<Option<Watch>>,
    directory: Cell<Option<Watch>>,
}

#[derive(Clone, Copy)]
struct Watch {
    descriptor: WatchDescriptor,
    /// No other machine can write to the file system. This machine would not hear of that.
    is_local: bool,
}

impl Watcher {
    fn start(
        core: &mut Core,
        (tail, owner): (SourceKey, SessionId),
        path: Option<&Path>,
    ) -> Result<Rc<Watcher>, crate::Error> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
            .map_err(|errno| crate::Error::os("inotify_init", "", errno))?;
        let mailbox = core.mailbox();
        let make = |key| {
            Rc::new(Watcher {
                inotify: RefCell::new(Some(inotify)),
                key,
                tail,
                mailbox: mailbox.clone(),
                path: path.map(Path::to_owned),
                file: Cell::default(),
                next: Cell::default(),
                directory: Cell::default(),
            })
        };
        let mut watcher = None;
        core.add_source(owner, |key| watcher.insert(make(key)).clone())?;
        Ok(watcher.expect("add_source has made it"))
    }

    fn watch(&self, [file, next]: [Option<RawFd>; 2], path: Option<&Path>) -> Outlook {
        // Watches the descriptor, because the name may lead to another file by now.
        let watch_file = |watch, fd| self.begin(watch, Path::new(&format!("/proc/self/fd/{fd}")), OF_A_FILE);
        if next.is_none() {
            self.end(&self.next);
        }
        let outlooks = [
            file.map(|fd| watch_file(&self.file, fd)),
            next.map(|fd| watch_file(&self.next, fd)),
            path.map(|path| self.begin(&self.directory, directory_of(path), OF_A_DIRECTORY)),
        ];
        let is_any = |outlook| outlooks.contains(&Some(outlook));
        if is_any(Outlook::LookAgain) {
            Outlook::LookAgain
        } else if is_any(Outlook::Blind) || path.is_some_and(Path::is_symlink) {
            // The target of a link may be replaced in a directory that is not watched.
            Outlook::Blind
        } else {
            Outlook::Told
        }
    }

    /// Sets a watch unless it is set. It is called each time, because the directory's path may lead to another
    /// directory by now, and because an overflow may have hidden that a watch has ended.
    fn begin(&self, watch: &Cell<Option<Watch>>, path: &Path, flags: AddWatchFlags) -> Outlook {
        let before = watch.get();
        match self.inotify.borrow().as_ref().map(|inotify| inotify.add_watch(path, flags)) {
            Some(Ok(descriptor)) if before.is_some_and(|before| before.descriptor == descriptor) => {
                if before.is_some_and(|before| before.is_local) { Outlook::Told } else { Outlook::Blind }
            }
            Some(Ok(descriptor)) => {
                self.end(watch);
                let is_local = statfs(path).is_ok_and(|system| LOCAL.contains(&system.filesystem_type()));
                watch.set(Some(Watch { descriptor, is_local }));
                Outlook::LookAgain
            }
            Some(Err(errno)) => {
                log::debug!(target: "lenore::wheels", "no notices of {}: {errno}", path.display());
                Outlook::Blind
            }
            None => Outlook::Blind,
        }
    }

    fn end(&self, watch: &Cell<Option<Watch>>) {
        if let (Some(watch), Some(inotify)) = (watch.take(), &*self.inotify.borrow()) {
            // It may have ended by itself.
            let _ = inotify.rm_watch(watch.descriptor);
        }
    }

    /// Tells whether the event matters to the wheel.
    fn concerns(&self, event: &InotifyEvent) -> bool {
        let is = |watch: &Cell<Option<Watch>>| watch.get().is_some_and(|watch| watch.descriptor == event.wd);
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        for watch in [&self.file, &self.next] {
            if is(watch) {
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    watch.take();
                }
                return true;
            }
        }
        if !is(&self.directory) {
            return false;
        }
        if event.mask.intersects(GONE) {
            // The path leads to another directory now, or will. That directory is watched when the wheel waits again.
            self.end(&self.directory);
            return true;
        }
        // An event without a name is about the directory itself, which this process may now be allowed to search.
        event.name.is_none() || event.name.as_deref() == self.path.as_deref().and_then(Path::file_name)
    }
}

impl Source for Watcher {
    fn fd(&self) -> RawFd {
        self.inotify.borrow().as_ref().map_or(-1, |inotify| inotify.as_fd().as_raw_fd())
    }

    fn wanted(&self) -> Option<Wanted> {
        Wanted::of(true, false, false)
    }

    fn turn(&self, _: &mut Turn<'_>, _: Readiness) -> Next {
        for _ in 0..READS {
            let events = match &*self.inotify.borrow() {
                Some(inotify) => inotify.read_events(),
                None => return Next::Wait,
            };
            match events {
                Ok(events) => {
                    // All events are read, to notice a watch that has ended.
                    if events.iter().filter(|event| self.concerns(event)).count() > 0 {
                        self.mailbox.woken(self.tail);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return Next::Wait,
            }
        }
        // The directory is busy. The poller will not report the events that are left.
        self.mailbox.woken(self.tail);
        Next::Again(Readiness::Read)
    }

    fn close(&self) {
        self.inotify.take();
    }

    /// The queue of events belongs to the parent.
    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        format!("inotify for the FollowTail of {}", self.path.as_deref().unwrap_or(Path::new("a handle")).display())
    }
}

/// Returns the directory in which the file's name is.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Removing the file's name changes its attributes, because it changes the count of links.
const OF_A_FILE: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_ATTRIB).union(AddWatchFlags::IN_MOVE_SELF);

/// A change of attributes can make the file readable.
const OF_A_DIRECTORY: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The path no longer leads to the watched directory.
const GONE: AddWatchFlags =
    AddWatchFlags::IN_MOVE_SELF.union(AddWatchFlags::IN_DELETE_SELF).union(AddWatchFlags::IN_IGNORED);

/// File systems to which no other machine writes. On others the wheel polls at the plain interval.
const LOCAL: [FsType; 4] = [statfs::EXT4_SUPER_MAGIC, XFS, statfs::BTRFS_SUPER_MAGIC, statfs::TMPFS_MAGIC];

/// nix defines it for glibc only.
const XFS: FsType = FsType(0x5846_5342);

/// How often a turn reads. A directory can change faster than the wheel reads.
const READS: usize = 16;
