//! inotify, which makes the next look come sooner, and knows nothing of what it will find.
//!
//! Three watches: the file, and the one that has got its name since, for what is written to them; and the directory, for another
//! file of its name. Where a watch can't be set, and while the directory is missing, there is polling alone.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::{self, FsType, statfs};

use crate::kernel::{AfterFork, Core, Mailbox, Next, Readiness, SessionId, Source, SourceKey, Turn, Wanted};

/// What tells a `FollowTail` of changes: a source beside its own, made when it waits for the first time.
#[derive(Default)]
pub(super) struct Notices {
    watcher: RefCell<Option<Rc<Watcher>>>,
    /// There were no more inotify descriptors; that is said once.
    failed: Cell<bool>,
}

/// What can be relied on while waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Nobody may tell of a change.
    Blind,
    /// Changes are told of from now on; what came before has to be looked for.
    LookAgain,
    /// Changes are told of.
    Told,
}

impl Notices {
    /// Watches what `tail` waits for: the file and its successor if they are there, by their descriptors, and the directory of
    /// its name if it has one.
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

    /// The file was closed, and its successor has taken its place.
    pub(super) fn next_file(&self) {
        for watcher in self.watcher.borrow().iter() {
            watcher.end(&watcher.file);
            watcher.file.set(watcher.next.take());
        }
    }

    /// Closes the source; nothing is said to inotify, which a parent may go on using.
    pub(super) fn close(&self, mailbox: &Mailbox) {
        self.watcher.take().into_iter().for_each(|watcher| mailbox.dropped(watcher.key));
    }
}

/// The source.
struct Watcher {
    inotify: RefCell<Option<Inotify>>,
    key: SourceKey,
    /// The wheel.
    tail: SourceKey,
    mailbox: Rc<Mailbox>,
    /// `None` for a handle.
    path: Option<PathBuf>,
    file: Cell<Option<Watch>>,
    /// What has got the file's name since.
    next: Cell<Option<Watch>>,
    directory: Cell<Option<Watch>>,
}

#[derive(Clone, Copy)]
struct Watch {
    descriptor: WatchDescriptor,
    /// No other machine writes there, which this one would not be told of.
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
        // By its descriptor: the name may lead to another file by now.
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
            // What a link leads to may be removed and made anew in a directory that is not watched.
            Outlook::Blind
        } else {
            Outlook::Told
        }
    }

    /// Sets a watch, unless it is set already; asked each time, as the name of the directory may lead to another one by now,
    /// and an overflow may have hidden that a watch has ended.
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

    /// Tells whether something is new for the wheel.
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
            // The name leads to another directory now, or will. That one is watched when the wheel waits again.
            self.end(&self.directory);
            return true;
        }
        // Without a name it is about the directory, which may let this process in now.
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
                    // All of them: a watch that has ended is noted.
                    if events.iter().filter(|event| self.concerns(event)).count() > 0 {
                        self.mailbox.woken(self.tail);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return Next::Wait,
            }
        }
        // Somebody is busy there. The poller will not tell of what is left.
        self.mailbox.woken(self.tail);
        Next::Again(Readiness::Read)
    }

    fn close(&self) {
        self.inotify.take();
    }

    /// The descriptor's queue of events is the parent's.
    fn fork(&self) -> AfterFork {
        AfterFork::Close
    }

    fn describe(&self) -> String {
        format!("inotify for the FollowTail of {}", self.path.as_deref().unwrap_or(Path::new("a handle")).display())
    }
}

/// Where the name is looked up.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

/// Removing a name of the file changes its attributes: its count of links.
const OF_A_FILE: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_ATTRIB).union(AddWatchFlags::IN_MOVE_SELF);

/// A file that may not be read yet is made readable by a change of its attributes.
const OF_A_DIRECTORY: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The watched directory is no longer what its name leads to.
const GONE: AddWatchFlags =
    AddWatchFlags::IN_MOVE_SELF.union(AddWatchFlags::IN_DELETE_SELF).union(AddWatchFlags::IN_IGNORED);

/// File systems that no other machine writes to. On others the wheel polls as if nobody told it anything.
const LOCAL: [FsType; 4] = [statfs::EXT4_SUPER_MAGIC, XFS, statfs::BTRFS_SUPER_MAGIC, statfs::TMPFS_MAGIC];

/// nix has its name for glibc alone.
const XFS: FsType = FsType(0x5846_5342);

/// How often a turn reads: a directory can be busier than its reader.
const READS: usize = 16;
