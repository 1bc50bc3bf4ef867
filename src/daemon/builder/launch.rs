//! The settings of a Daemon that are about its process.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Detaches the program from its terminal and from the process that started it. Default: no.
    ///
    /// [`spawn`](DaemonBuilder::spawn) then goes on in another process, two forks away. That process is not a session
    /// leader and has no controlling terminal. Its standard input is `/dev/null`. Without a
    /// [`logfile`](DaemonBuilder::logfile), so are its standard output and standard error.
    ///
    /// The process that was started, the launcher, waits until the daemon is [ready](crate::daemon#becoming-a-daemon),
    /// and exits with 0. If the daemon is not ready within [`start_timeout`](DaemonBuilder::start_timeout), or if
    /// children die in their set-up five times in a row, the launcher prints the reason to its standard error and exits
    /// with 1. If the launcher is interrupted while it waits, the daemon shuts down. So the launcher exits with 0 if it
    /// leaves a daemon, and otherwise with another code. The one exception is KILL in its last moment.
    ///
    /// The daemon closes what the program inherited from its launcher, such as locks, sockets, and pipes whose readers
    /// wait for the end. Each descriptor above 2 without the close-on-exec flag then refers to `/dev/null`. The
    /// standard library, this crate, and most others set the flag on everything that they open. If a C library opens a
    /// descriptor without the flag, open it after `spawn`. These descriptors stay open: those that
    /// [`keep_descriptors`](DaemonBuilder::keep_descriptors) names, sockets that systemd has passed, and descriptors
    /// that a session watches or a wheel uses.
    ///
    /// Leave it off under systemd, in a container, and under any other supervisor. It is an error under a service
    /// manager and in process 1. A detached program does not detach a second time.
    ///
    /// POE: `detach`, which exits at once, and always with 0.
    #[doc(alias = "daemonize")]
    pub fn detach(mut self, detach: bool) -> Self {
        self.1.detach = detach;
        self
    }

    /// Reports what the Daemon does to the service manager that has started the program. systemd expects this of a unit
    /// with `Type=notify`. Default: yes, if `NOTIFY_SOCKET` was set.
    ///
    /// - `READY=1` when the daemon is [ready](crate::daemon#becoming-a-daemon). As with
    ///   [`detach`](DaemonBuilder::detach), the start fails if that takes longer than
    ///   [`start_timeout`](DaemonBuilder::start_timeout), or if children die in their set-up five times in a row.
    /// - `WATCHDOG=1` three times in each period, if the unit has `WatchdogSec`, while the Daemon counts as alive. It
    ///   counts as dead if no child of the pool was ready, no child could be forked, or the babysitter did not come, for
    ///   longer than [`health_limit`](DaemonBuilder::health_limit). Busy children count as ready.
    /// - `STATUS=` with the text that `systemctl status` shows, at most once a second.
    /// - `RELOADING=1` with `MONOTONIC_USEC=` when a reload begins, and `READY=1` with the verdict in the status when
    ///   it is over. An operator who has asked on the control socket gets the verdict after that. A `check` is not
    ///   reported. A program without a configuration reports HUP in the same way, because units with
    ///   `Type=notify-reload` need that.
    /// - `STOPPING=1` when the Daemon ends. While children, or clients of a server without children, have time left, it
    ///   also asks for more time.
    ///
    /// [`Kernel::new`](crate::Kernel::new) removes `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` from the
    /// environment. Children have neither the variables nor the socket.
    ///
    /// POE: nothing like it.
    #[doc(alias = "systemd")]
    #[doc(alias = "sd_notify")]
    pub fn service_manager(mut self, told: bool) -> Self {
        self.1.is_unmanaged = !told;
        self
    }

    /// Lets the service manager keep the listeners, so that they outlive a crash. When the program is started again, it
    /// gets them back, with the clients in their queues. The unit needs `FileDescriptorStoreMax=` with at least the
    /// number of listeners. Default: no.
    ///
    /// When the application has handled `daemon_start`, the manager gets the listeners that a
    /// [`SocketFactory`](crate::wheel::SocketFactory), a [`TcpServer`](crate::component::TcpServer) or a
    /// [`Server`](crate::component::Server) has opened. It gets later listeners when they are opened. [Listeners that
    /// outlive a crash](crate::daemon#listeners-that-outlive-a-crash) says by which name each is kept, and which are
    /// not.
    ///
    /// POE: nothing like it.
    #[doc(alias = "FDSTORE")]
    #[doc(alias = "FileDescriptorStoreMax")]
    pub fn descriptor_store(mut self, kept: bool) -> Self {
        self.1.keeps_listeners = kept;
        self
    }

    /// Sets how long the Daemon may be unable to serve before it counts as dead. It is unable to serve while no child
    /// of its pool, idle or busy, has become ready, while forks fail, or while the [babysitter](DaemonBuilder::babysit)
    /// does not come. A Daemon that forks a child for each request is unable to serve while requests wait and no child
    /// is busy.
    ///
    /// A dead Daemon no longer feeds the watchdog, and `/live` of the [status listener](DaemonBuilder#method.status)
    /// answers 503. It logs a line when that begins, and one when it is over.
    ///
    /// Default: 30 s. Range: more than zero.
    ///
    /// POE: nothing like it.
    pub fn health_limit(mut self, limit: Duration) -> Self {
        self.0.health_limit = Some(limit);
        self
    }

    /// Asks the service manager for a restart, with `WATCHDOG=trigger`, as soon as the Daemon counts as dead. Without
    /// it, the manager's watchdog notices when it gets no more reports. Default: no.
    ///
    /// POE: nothing like it.
    pub fn restart_when_dead(mut self, restart: bool) -> Self {
        self.0.gives_up = restart;
        self
    }

    /// Sets the numbers of inherited descriptors that stay open when the program [detaches](DaemonBuilder::detach). The
    /// sockets that systemd has passed in `LISTEN_FDS` always stay open. Default: no others.
    ///
    /// A number that is not open is an error. 0, 1 and 2 can't be kept, because `detach` and
    /// [`logfile`](DaemonBuilder::logfile) set them.
    ///
    /// POE: nothing like it. Its daemon keeps all descriptors.
    pub fn keep_descriptors(mut self, descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        self.1.keep_descriptors = descriptors.into_iter().collect();
        self
    }

    /// Ends the Daemon if systemd has passed a socket on which nothing listens when the Daemon begins to serve.
    /// [`Kernel::run`](crate::Kernel::run) then returns [`DaemonError::UnclaimedSockets`](crate::daemon::DaemonError).
    /// Without this setting the Daemon closes such a socket with a warning. Default: no.
    ///
    /// The Daemon begins to serve when the application has handled `daemon_start`, before the first child is forked. See
    /// [`SocketFactory`](crate::wheel::SocketFactory#sockets-that-were-inherited).
    ///
    /// POE: nothing like it.
    pub fn strict_listeners(mut self, strict: bool) -> Self {
        self.1.strict_listeners = strict;
        self
    }

    /// Sets the file to which standard output and standard error go, including panics and output of C libraries. A
    /// relative path starts at the working directory at spawn. Default: none.
    ///
    /// The Daemon appends to the file, or creates it with [`logfile_mode`](DaemonBuilder::logfile_mode). On HUP, after
    /// `daemon_HUP`, the parent opens the file again by its name, and then all of its children do. So `mv log log.1;
    /// kill -HUP PARENT` rotates the log. If opening fails, the old file stays in use. A line that is written in one
    /// piece stays whole. Loggers write lines in one piece, and `println!` does so for short lines, but `eprintln!`
    /// does not.
    ///
    /// In a program with a [`config`](DaemonBuilder::config), HUP also reloads. In a pool the reload replaces every
    /// child and closes idle connections, even if the configuration has not changed. To rotate the log of such a
    /// program, use `lenorectl reopen` (feature `control`), which does not reload.
    ///
    /// With [`user`](DaemonBuilder::user) a new file belongs to that user. For the next file, the user must be allowed
    /// to write to the directory, or the program that rotates must create the file. With
    /// [`chroot`](DaemonBuilder::chroot) the Daemon can't open the file again, because its path lies outside of the new
    /// root.
    ///
    /// `/dev/stdout`, `/dev/stderr`, their other names such as `/proc/self/fd/2`, and links to them leave standard
    /// output and standard error where they are, even with `detach`. HUP then opens nothing.
    ///
    /// POE: `logfile`, which is opened again only in the process that gets the HUP.
    pub fn logfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.logfile = Some(path.into());
        self
    }

    /// Sets the permissions of a log file that the Daemon creates, whatever the umask. Default: `0o640`.
    ///
    /// POE: nothing like it.
    pub fn logfile_mode(mut self, mode: u32) -> Self {
        self.1.logfile_mode = Some(mode);
        self
    }

    /// Sets the file that holds the pid of the daemon. A relative path starts at the working directory at spawn.
    /// Default: none.
    ///
    /// The file is locked while the daemon lives, so a second daemon with the same file does not start. A file that a
    /// dead daemon has left is taken over. A symbolic link is refused. The Daemon removes the file when it ends in the
    /// usual way. If it has dropped its privileges and may not remove the file, it leaves an empty file.
    ///
    /// POE: nothing like it.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.pid_file = Some(path.into());
        self
    }

    /// Sets the user, by name or number, that the program runs as from `spawn` on. Needs root.
    /// [`Privileges`](crate::daemon::Privileges) says how the change is made and checked. Default: unchanged.
    ///
    /// Open everything that only root may open before that. For example, listen in `_start`, and spawn the Daemon
    /// afterwards.
    ///
    /// POE: `drop_privs`, which was planned.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.user(user);
        self
    }

    /// Sets the group, by name or number. Default: the user's own group.
    ///
    /// POE: nothing like it.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.group(group);
        self
    }

    /// Sets the supplementary groups, by name or number. An empty list is the safest. Default: the groups that the user
    /// has in the user database.
    ///
    /// POE: nothing like it.
    pub fn groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.1.privileges = self.1.privileges.groups(groups);
        self
    }

    /// Makes a directory the root of all paths. Needs root. Use it with [`user`](DaemonBuilder::user), because root can
    /// leave the directory. Default: none.
    ///
    /// There is no `/etc`, `/dev` or `/proc` inside, unless the directory has one.
    ///
    /// POE: nothing like it.
    pub fn chroot(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.privileges = self.1.privileges.chroot(path);
        self
    }

    /// Lets the system write core dumps of this process and its children although [`user`](DaemonBuilder::user) is set.
    /// See [`Privileges::dumpable`](crate::daemon::Privileges::dumpable). Linux only. Default: no.
    ///
    /// When a child leaves a core dump, the log line of its death ends with `core=dumped`.
    ///
    /// POE: nothing like it.
    #[doc(alias = "core_dumps")]
    pub fn dumpable(mut self, dumpable: bool) -> Self {
        self.1.privileges = self.1.privileges.dumpable(dumpable);
        self
    }

    /// Sets the working directory. With [`chroot`](DaemonBuilder::chroot) it is inside the new root. Default: `/` when
    /// detached, so that the daemon does not keep a file system from being unmounted, and otherwise unchanged.
    ///
    /// POE: nothing like it. A detached daemon changes to `/`.
    pub fn working_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.working_directory = Some(path.into());
        self
    }

    /// Sets which permissions new files do not get, such as `0o022`. Default: inherited.
    ///
    /// POE: nothing like it.
    pub fn umask(mut self, umask: u32) -> Self {
        self.1.umask = Some(umask);
        self
    }

    /// Sets the niceness. A lower one is more urgent, and lowering it needs root. Default: inherited. Range: -20 to 19.
    ///
    /// POE: nothing like it.
    pub fn nice(mut self, nice: i32) -> Self {
        self.1.nice = Some(nice);
        self
    }
}
