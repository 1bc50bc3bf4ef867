//! The settings of a Daemon that concern its process.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Detaches the program from its terminal and from the process that started it. Default: no.
    ///
    /// [`spawn`](DaemonBuilder::spawn) then goes on in another process, two forks away. That process leads no session of processes
    /// and has no controlling terminal. Its standard input is `/dev/null`, and so are the other two without a
    /// [`logfile`](DaemonBuilder::logfile).
    ///
    /// The process that was started, the launcher, waits until the daemon is [ready](crate::daemon#becoming-a-daemon), and exits
    /// with 0. If the daemon is not ready within [`start_timeout`](DaemonBuilder::start_timeout), or if children die in their
    /// set-up five times in a row, the launcher prints the reason to its standard error and exits with 1. If the launcher is
    /// interrupted while it waits, the daemon shuts down. So it exits with 0 exactly if it leaves a daemon, except when KILL ends
    /// it in its last moment.
    ///
    /// The daemon lets go of what the program inherited from its launcher: locks, pipes whose readers wait for their end, sockets.
    /// Each descriptor above 2 without the close-on-exec flag refers to `/dev/null` from then on. The standard library, this crate,
    /// and most others set the flag on what they open. Open a descriptor of a C library that does not set the flag after `spawn`.
    /// These stay open: what [`keep_descriptors`](DaemonBuilder::keep_descriptors) names, the sockets that systemd has passed, and
    /// what a session watches or a wheel uses.
    ///
    /// Leave it off under systemd, in a container, and under any other supervisor. It is an error under a service manager and in
    /// process 1. A program that has been detached is not detached a second time.
    ///
    /// POE: `detach`, which exits at once, and always with 0.
    #[doc(alias = "daemonize")]
    pub fn detach(mut self, detach: bool) -> Self {
        self.1.detach = detach;
        self
    }

    /// Tells the service manager that has started the program what the Daemon does, as systemd expects of a unit with
    /// `Type=notify`. Default: yes, if `NOTIFY_SOCKET` was set.
    ///
    /// - `READY=1` when the daemon is [ready](crate::daemon#becoming-a-daemon). As with [`detach`](DaemonBuilder::detach) the start
    ///   fails if that takes longer than [`start_timeout`](DaemonBuilder::start_timeout), or if children die in their set-up five
    ///   times in a row.
    /// - `WATCHDOG=1` three times in each period, where the unit has `WatchdogSec`, as long as the Daemon lives. It does not live
    ///   if no child of the pool was ready, or no child could be forked, for longer than
    ///   [`health_limit`](DaemonBuilder::health_limit). Children that are all busy are ready.
    /// - `STATUS=` with what `systemctl status` shows, once a second at most.
    /// - `RELOADING=1` with `MONOTONIC_USEC=` when a reload begins, and `READY=1` when it is over, with the verdict in the status.
    ///   An operator who has asked by the control socket gets the verdict after that. A `check` is not told. A program without a
    ///   configuration answers HUP in this way, too, as units with `Type=notify-reload` need.
    /// - `STOPPING=1` when the Daemon ends, and that the end takes longer as long as children, or clients of a server without
    ///   children, have time left.
    ///
    /// [`Kernel::new`](crate::Kernel::new) removes `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` from the environment.
    /// Children have neither the variables nor the socket.
    ///
    /// POE: nothing like it.
    #[doc(alias = "systemd")]
    #[doc(alias = "sd_notify")]
    pub fn service_manager(mut self, told: bool) -> Self {
        self.1.is_unmanaged = !told;
        self
    }

    /// Has the service manager keep the listeners, so that they outlive a crash. A program that is started again gets them back,
    /// with the clients in their queues. The unit needs `FileDescriptorStoreMax=` with at least the number of listeners. Default:
    /// no.
    ///
    /// The manager gets the listeners that a [`SocketFactory`](crate::wheel::SocketFactory), a
    /// [`TcpServer`](crate::component::TcpServer) or a [`Server`](crate::component::Server) has opened when the application has
    /// handled `daemon_start`, and later ones as they come. [Listeners that outlive a
    /// crash](crate::daemon#listeners-that-outlive-a-crash) says by which name each is kept, and which are not.
    ///
    /// POE: nothing like it.
    #[doc(alias = "FDSTORE")]
    #[doc(alias = "FileDescriptorStoreMax")]
    pub fn descriptor_store(mut self, kept: bool) -> Self {
        self.1.keeps_listeners = kept;
        self
    }

    /// Sets how long the Daemon may be unable to serve before it counts as dead: without a child that was ever ready, or with forks
    /// that fail.
    ///
    /// A watchdog then hears nothing any more, and `/live` of the [status listener](DaemonBuilder#method.status) answers 503. The
    /// log has a line when that begins, and one when it is over.
    ///
    /// Default: 30 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn health_limit(mut self, limit: Duration) -> Self {
        self.0.health_limit = Some(limit);
        self
    }

    /// Asks the service manager for a restart, by `WATCHDOG=trigger`, as soon as the Daemon counts as dead. Default: no. The
    /// manager's watchdog then finds out by itself.
    ///
    /// POE: nothing like it.
    pub fn restart_when_dead(mut self, restart: bool) -> Self {
        self.0.gives_up = restart;
        self
    }

    /// Sets which inherited descriptors stay open when the program [detaches](DaemonBuilder::detach), by number. Default: none
    /// except the sockets that systemd has passed in `LISTEN_FDS`.
    ///
    /// A number that is not open is an error. 0, 1 and 2 can't be kept: they go where `detach` and
    /// [`logfile`](DaemonBuilder::logfile) say.
    ///
    /// POE: nothing like it. Its daemon keeps all descriptors.
    pub fn keep_descriptors(mut self, descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        self.1.keep_descriptors = descriptors.into_iter().collect();
        self
    }

    /// Has the Daemon end if systemd has passed a socket on which nothing listens when the Daemon begins to serve.
    /// [`Kernel::run`](crate::Kernel::run) then returns [`DaemonError::UnclaimedSockets`](crate::daemon::DaemonError). Default: no.
    /// Such a socket is closed then, with a warning.
    ///
    /// The Daemon begins to serve when the application has handled `daemon_start`, before the first child is forked. See
    /// [`SocketFactory`](crate::wheel::SocketFactory#sockets-that-were-inherited).
    ///
    /// POE: nothing like it.
    pub fn strict_listeners(mut self, strict: bool) -> Self {
        self.1.strict_listeners = strict;
        self
    }

    /// Sets the file to which standard output and standard error go, and with them panics and what C libraries write. A relative
    /// path counts from the working directory at spawn. Default: none.
    ///
    /// The file is appended to, and created with [`logfile_mode`](DaemonBuilder::logfile_mode). On HUP, once `daemon_HUP` has been
    /// handled, the parent opens it again by its name, and then all of its children do. So `mv log log.1; kill -HUP PARENT` rotates
    /// the log. If opening fails the old file stays in use. A line that is written in one piece stays whole. Loggers do that, and
    /// `println!` does for short lines, but `eprintln!` does not.
    ///
    /// With [`user`](DaemonBuilder::user) a new file belongs to that user. To create the next one, the user must be allowed to
    /// write to the directory, or the program that rotates must create it. With [`chroot`](DaemonBuilder::chroot) the file can't be
    /// opened again, as its name leads nowhere.
    ///
    /// `/dev/stdout`, `/dev/stderr`, their other names such as `/proc/self/fd/2`, and links to them leave standard output and error
    /// where they are, also with `detach`. HUP has nothing to open again then.
    ///
    /// POE: `logfile`, which is opened again only in the process that gets the HUP.
    pub fn logfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.logfile = Some(path.into());
        self
    }

    /// Sets the permissions of a log file that has to be created, whatever the umask. Default: `0o640`.
    ///
    /// POE: nothing like it.
    pub fn logfile_mode(mut self, mode: u32) -> Self {
        self.1.logfile_mode = Some(mode);
        self
    }

    /// Sets the file that holds the pid of the daemon. A relative path counts from the working directory at spawn. Default: none.
    ///
    /// The file is locked while the daemon lives, so a second daemon with the same file does not start. A file that a dead daemon
    /// has left is taken over. A symbolic link is refused. The Daemon removes the file at its orderly end. If it has dropped its
    /// privileges and may not remove the file, it leaves an empty file.
    ///
    /// POE: nothing like it.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.pid_file = Some(path.into());
        self
    }

    /// Sets the user, by name or number, that the program runs as from the spawn on. Needs root.
    /// [`Privileges`](crate::daemon::Privileges) says what is done, and proved. Default: unchanged.
    ///
    /// Open what only root may open before that: listen in `_start`, and spawn the Daemon afterwards.
    ///
    /// POE: `drop_privs`, a plan.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.user(user);
        self
    }

    /// Sets the group, by name or number. Default: the user's own.
    ///
    /// POE: nothing like it.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.group(group);
        self
    }

    /// Sets the supplementary groups, by name or number. An empty list is the safest. Default: those that the user database has for
    /// the user.
    ///
    /// POE: nothing like it.
    pub fn groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.1.privileges = self.1.privileges.groups(groups);
        self
    }

    /// Makes a directory the root of all paths. Needs root. Use it with [`user`](DaemonBuilder::user), because root can leave the
    /// directory. Default: none.
    ///
    /// Inside there is no `/etc`, `/dev` or `/proc` but what the directory holds.
    ///
    /// POE: nothing like it.
    pub fn chroot(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.privileges = self.1.privileges.chroot(path);
        self
    }

    /// Lets the system write cores of this process and its children although [`user`](DaemonBuilder::user) is set. See
    /// [`Privileges::dumpable`](crate::daemon::Privileges::dumpable). Linux only. Default: no.
    ///
    /// The record of a child that leaves a core ends with `core=dumped`.
    ///
    /// POE: nothing like it.
    #[doc(alias = "core_dumps")]
    pub fn dumpable(mut self, dumpable: bool) -> Self {
        self.1.privileges = self.1.privileges.dumpable(dumpable);
        self
    }

    /// Sets the working directory. With [`chroot`](DaemonBuilder::chroot) it is inside the new root. Default: `/` when detached, so
    /// that the daemon keeps no file system from being unmounted; otherwise unchanged.
    ///
    /// POE: nothing like it; a detached daemon changes to `/`.
    pub fn working_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.working_directory = Some(path.into());
        self
    }

    /// Sets the permissions that new files do not get, `0o022` for example. Default: inherited.
    ///
    /// POE: nothing like it.
    pub fn umask(mut self, umask: u32) -> Self {
        self.1.umask = Some(umask);
        self
    }

    /// Sets the niceness. Lowering it needs root. Default: inherited. Range: -20 (first) to 19 (last).
    ///
    /// POE: nothing like it.
    pub fn nice(mut self, nice: i32) -> Self {
        self.1.nice = Some(nice);
        self
    }
}
