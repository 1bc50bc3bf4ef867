//! Becoming a daemon: log file, pid file, detaching, privileges, in this order, and what is to be undone of it.

use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, fchdir};

use crate::daemon::error::DaemonError;
use crate::daemon::settings::SettingsError;
use crate::error::Error;
use crate::handover::Predecessor;
use crate::inherited::{self, Leftover};
use crate::kernel::{Kernel, is_detached};
use crate::sys::{descriptors, priority};

mod detach;
mod log_file;
mod pid_file;
mod privileges;

pub use privileges::Privileges;

pub(crate) use detach::Launch;
use detach::{Leave, detach};
use log_file::{LogFile, Redirection, names_standard_stream};
use pid_file::PidFile;
use privileges::Identity;

/// The settings as the caller gave them.
#[derive(Clone, Debug, Default)]
pub struct RawProcess {
    pub(in crate::daemon) detach: bool,
    /// A service manager is not to be told anything.
    pub(in crate::daemon) is_unmanaged: bool,
    /// The service manager is to keep the listeners.
    pub(in crate::daemon) keeps_listeners: bool,
    pub(in crate::daemon) keep_descriptors: Vec<RawFd>,
    pub(in crate::daemon) strict_listeners: bool,
    pub(in crate::daemon) logfile: Option<PathBuf>,
    pub(in crate::daemon) logfile_mode: Option<u32>,
    pub(in crate::daemon) pid_file: Option<PathBuf>,
    pub(in crate::daemon) privileges: Privileges,
    pub(in crate::daemon) working_directory: Option<PathBuf>,
    pub(in crate::daemon) umask: Option<u32>,
    pub(in crate::daemon) nice: Option<i32>,
}

/// What is to be done, with names looked up and paths made absolute.
#[derive(Debug)]
pub(crate) struct Plan {
    detach: bool,
    keep_descriptors: Vec<RawFd>,
    strict_listeners: bool,
    log_file: Option<LogFile>,
    /// `logfile` names standard output or error: both stay where they are.
    keeps_output: bool,
    pid_file: Option<PathBuf>,
    identity: Identity,
    working_directory: Option<PathBuf>,
    umask: Option<Mode>,
    nice: Option<i32>,
}

/// Whom files are to belong to; `None` for who made them.
pub(crate) type Owner = (Option<Uid>, Option<Gid>);

/// What the Daemon session keeps of it.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) log_file: Option<LogFile>,
    /// In the parent. Removed when it is dropped.
    pub(crate) pid_file: Option<PidFile>,
    /// Until the daemon is ready, if somebody waits for that.
    pub(crate) launch: Option<Launch>,
    /// An inherited socket that nothing listens on is an error.
    strict_listeners: bool,
    has_jail: bool,
}

impl RawProcess {
    /// Checks the settings. Nothing is opened or changed yet.
    pub(crate) fn plan(self) -> Result<Plan, DaemonError> {
        for (setting, mode) in [("logfile_mode", self.logfile_mode), ("umask", self.umask)] {
            if let Some(mode) = mode.filter(|mode| *mode > 0o777) {
                return Err(DaemonError::Settings(SettingsError::NotAMode { setting, mode }));
            }
        }
        if let Some(nice) = self.nice.filter(|nice| !(-20..=19).contains(nice)) {
            return Err(DaemonError::Settings(SettingsError::Niceness(nice)));
        }
        if let Some(&descriptor) = self.keep_descriptors.iter().find(|fd| !descriptors::is_open(**fd)) {
            return Err(DaemonError::Settings(SettingsError::NotOpen { descriptor }));
        }
        let identity = self.privileges.look_up()?;
        let owner = (identity.uid, identity.gid);
        let mode = self.logfile_mode.unwrap_or(DEFAULT_LOGFILE_MODE);
        let log_path = self.logfile.map(absolute("logfile")).transpose()?;
        let keeps_output = log_path.as_deref().is_some_and(names_standard_stream);
        let log_file = log_path.filter(|_| !keeps_output).map(|path| LogFile::new(path, mode, owner));
        let detach = self.detach && !is_detached();
        let unset = (self.detach && !identity.has_jail()).then(|| PathBuf::from("/"));
        Ok(Plan {
            detach,
            keep_descriptors: self.keep_descriptors,
            strict_listeners: self.strict_listeners,
            log_file,
            keeps_output,
            pid_file: self.pid_file.map(absolute("pid_file")).transpose()?,
            identity,
            working_directory: self.working_directory.or(unset),
            umask: self.umask.map(|mask| Mode::from_bits_truncate(mask as _)),
            nice: self.nice,
        })
    }
}

impl Plan {
    /// Has the process stay the one that it is.
    pub(crate) fn stays(&mut self) {
        self.detach = false;
    }

    /// Tells whether the process will have to fork on its way.
    pub(crate) fn forks(&self) -> bool {
        self.detach
    }

    /// Tells whether the process will lock itself up in a directory: no path that it knows leads anywhere after that.
    #[cfg(feature = "control")]
    pub(crate) fn has_jail(&self) -> bool {
        self.identity.has_jail()
    }

    /// Returns the path of the pid file.
    #[cfg(feature = "control")]
    pub(crate) fn pid_file(&self) -> Option<PathBuf> {
        self.pid_file.clone()
    }

    /// Does it all. With `detach` it returns in another process than it was called in. `make_what_is_seen` is called in that, before
    /// it changes its root directory and its user, and told who the user will be.
    ///
    /// On an error everything is as it was, except for two steps that can't be undone. A process that was detached stays detached,
    /// and a process that gave up root does not get it back.
    pub(crate) fn carry_out(
        self,
        kernel: &mut Kernel,
        alias: &str,
        predecessor: Option<&mut Predecessor>,
        make_what_is_seen: impl FnOnce(Owner) -> Result<(), DaemonError>,
    ) -> Result<Process, DaemonError> {
        let fail = |doing| move |source| DaemonError::Process { doing, source };
        let mut redirected = None;
        // A successor's predecessor reads what it writes until it serves.
        let is_successor = predecessor.is_some();
        if let Some(log_file) = self.log_file.as_ref().filter(|_| !is_successor) {
            redirected = Some(Redirection::begin().map_err(fail("opening the log file"))?);
            log_file.redirect().map_err(fail("opening the log file"))?;
        }
        let passed = predecessor.and_then(|predecessor| predecessor.pid_file.take());
        let passed = self.pid_file.as_deref().zip(passed).and_then(|(path, file)| PidFile::take_over(path, file));
        let is_passed = passed.is_some();
        let mut pid_file = match passed {
            None => self.pid_file.clone().map(PidFile::take).transpose()?,
            passed => passed,
        };
        let mut launch = None;
        if self.detach {
            let has_log = self.log_file.is_some() || self.keeps_output;
            let leave = Leave { has_log, keep_descriptors: &self.keep_descriptors };
            launch = Some(detach(kernel, redirected.take(), pid_file.as_ref(), leave, alias)?);
        }
        let settled = match &mut pid_file {
            // The predecessor's pid stays in it until it has handed over.
            Some(file) if !is_passed => file.write_pid().map_err(fail("writing the pid file")),
            _ => Ok(()),
        };
        let owner = (self.identity.uid, self.identity.gid);
        match settled.and_then(|()| make_what_is_seen(owner)).and_then(|()| self.settle_in()) {
            Ok(()) => {
                redirected.into_iter().for_each(Redirection::keep);
                Ok(Process {
                    log_file: self.log_file,
                    pid_file,
                    launch,
                    strict_listeners: self.strict_listeners,
                    has_jail: self.identity.has_jail(),
                })
            }
            Err(error) => {
                // First, so that it is gone when the launcher has told of it.
                drop(pid_file);
                launch.into_iter().for_each(|launch| launch.failed(&error.to_string()));
                Err(error)
            }
        }
    }

    /// Makes the process what it is to be. Who it is comes last, as the rest may need root.
    fn settle_in(&self) -> Result<(), DaemonError> {
        let mut before = Surroundings::default();
        if let Some(mask) = self.umask {
            before.umask = Some(umask(mask));
        }
        if let Some(nice) = self.nice {
            let fail = |errno| DaemonError::Process {
                doing: "setting the niceness",
                source: Error::os("setpriority", nice, errno),
            };
            before.nice = Some(priority::niceness().map_err(fail)?);
            priority::set_niceness(nice).map_err(fail)?;
        }
        if self.identity.has_jail() || self.working_directory.is_some() {
            // A directory that may not be opened can't be gone back to.
            before.directory = open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok();
        }
        self.identity.enter_jail()?;
        if let Some(path) = &self.working_directory {
            chdir(path).map_err(|errno| DaemonError::Process {
                doing: "changing the working directory",
                source: Error::os("chdir", path.display(), errno),
            })?;
        }
        self.identity.become_user()?;
        before.forget();
        Ok(())
    }
}

impl Process {
    /// Tells whether the process has locked itself up in a directory.
    pub(crate) fn has_jail(&self) -> bool {
        self.has_jail
    }

    /// Closes the inherited sockets on which nothing listens by the time that the Daemon begins to serve, and returns their names.
    ///
    /// # Errors
    ///
    /// [`DaemonError::UnclaimedSockets`] if there are any, and the program is strict about that.
    pub(crate) fn close_unclaimed(&self) -> Result<Vec<String>, DaemonError> {
        let sockets = inherited::close_unclaimed();
        if self.strict_listeners && !sockets.is_empty() {
            let sockets = sockets.into_iter().map(|socket| socket.text).collect();
            return Err(DaemonError::UnclaimedSockets { sockets });
        }
        for Leftover { text, .. } in &sockets {
            log::warn!(target: "lenore::daemon", "inherited socket closed, as nothing listens on it: {text}");
        }
        Ok(sockets.into_iter().map(|socket| socket.name).collect())
    }

    /// In a forked child: lets go of what is the parent's.
    pub(crate) fn leave_to_parent(&mut self) {
        self.pid_file = None;
        self.launch = None;
    }

    /// Has the launcher, if there is one, say why it still waits.
    pub(crate) fn not_yet(&self, reason: &dyn std::fmt::Display) {
        self.launch.iter().for_each(|launch| launch.not_yet(&reason.to_string()));
    }

    /// Lets the launcher, if there is one, fail with this reason.
    pub(crate) fn fail(&mut self, reason: &dyn std::fmt::Display) {
        self.launch.take().into_iter().for_each(|launch| launch.failed(&reason.to_string()));
    }
}

/// What the process had, to be put back when this is dropped.
#[derive(Default)]
struct Surroundings {
    umask: Option<Mode>,
    nice: Option<i32>,
    directory: Option<OwnedFd>,
}

impl Surroundings {
    fn forget(mut self) {
        self.umask = None;
        self.nice = None;
        self.directory = None;
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        self.umask.map(umask);
        // Not root any more, perhaps: what can't be put back stays.
        self.nice.map(priority::set_niceness);
        self.directory.take().map(fchdir);
    }
}

/// Makes a path independent of the working directory.
pub(crate) fn absolute(setting: &'static str) -> impl Fn(PathBuf) -> Result<PathBuf, DaemonError> {
    move |path| {
        if path.as_os_str().is_empty() {
            return Err(DaemonError::Settings(SettingsError::EmptyPath { setting }));
        }
        std::path::absolute(&path).map_err(|error| DaemonError::Process {
            doing: "finding the working directory",
            source: Error::os("getcwd", path.display(), error),
        })
    }
}

/// The owner writes, the group reads, nobody else does: logs hold what is not everybody's business.
const DEFAULT_LOGFILE_MODE: u32 = 0o640;
