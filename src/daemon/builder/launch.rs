//! The settings of a Daemon that concern its process.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonBuilder;

impl DaemonBuilder {
    /// Detaches the program from its terminal and from the process that started it. Default: no.
    ///
    /// [`spawn`](DaemonBuilder::spawn) then goes on in another process, two forks away, which leads no session of
    /// processes and has no controlling terminal. Its standard input is `/dev/null`, and so are the other two without
    /// a [`logfile`](DaemonBuilder::logfile). The process that was started waits until the application has handled
    /// `daemon_start`, or until it has handled `daemon_parent` and enough children have reported `Wait` when pre-forking, and
    /// exits with 0. If it does not come to that within [`start_timeout`](DaemonBuilder::start_timeout), or children die in
    /// their set-up five times in a row, it prints the reason to its standard error and exits with 1. When it is interrupted while it waits, the daemon
    /// shuts down. It exits with 0 exactly if it leaves a daemon. Only KILL in its last moment can come between.
    ///
    /// The daemon lets go of what the program inherited from its launcher: locks, pipes whose readers wait for their end,
    /// sockets. Each descriptor above 2 without the close-on-exec flag refers to `/dev/null` from then on. The standard
    /// library, this crate, and most others set the flag on what they open. A descriptor that a C library has opened
    /// without the flag looks like an inherited one, so open it after `spawn`. What stays open is what
    /// [`keep_descriptors`](DaemonBuilder::keep_descriptors) names, the sockets that systemd has passed, and what a session watches
    /// or a wheel uses.
    ///
    /// Leave it off where something looks after the program: systemd, a container, a supervisor. It is an error under a service
    /// manager and in process 1. A program that has been detached is not detached a second time.
    ///
    /// POE: `detach`, which exits at once, and always with 0.
    #[doc(alias = "daemonize")]
    pub fn detach(mut self, detach: bool) -> Self {
        self.1.detach = detach;
        self
    }

    /// Tells the service manager that has started the program what the Daemon does, as systemd expects of a unit with
    /// `Type=notify`. Default: if there is such a manager, that is if `NOTIFY_SOCKET` was set.
    ///
    /// - `READY=1` when the application has handled `daemon_start`, or `daemon_parent` and enough children have reported `Wait` when
    ///   pre-forking. As with [`detach`](DaemonBuilder::detach) the start fails if it does not come to that within
    ///   [`start_timeout`](DaemonBuilder::start_timeout), or if children die in their set-up five times in a row.
    /// - `WATCHDOG=1` three times in each period, where the unit has `WatchdogSec`, as long as the Daemon lives. It does not if for
    ///   longer than [`health_limit`](DaemonBuilder::health_limit) no child of the pool was ready, or no child could be
    ///   forked. Children that are all busy are ready.
    /// - `STATUS=` with what `systemctl status` shows, once a second at most.
    /// - `RELOADING=1` with `MONOTONIC_USEC=` when a reload begins, and `READY=1` when it is over, with the verdict in the status. An
    ///   operator who has asked by the control socket gets the verdict after that. A `check` is not told. HUP is also answered in this way
    ///   by a program without a configuration, as units with `Type=notify-reload` need it.
    /// - `STOPPING=1` when the Daemon ends, and that it takes longer as long as children, or clients of a server without children,
    ///   have time left.
    ///
    /// `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are removed from the environment by
    /// [`Kernel::new`](crate::Kernel::new). Children have neither the variables nor the socket.
    ///
    /// POE: nothing like it.
    #[doc(alias = "systemd")]
    #[doc(alias = "sd_notify")]
    pub fn service_manager(mut self, told: bool) -> Self {
        self.1.is_unmanaged = !told;
        self
    }

    /// Has the service manager keep the listeners, so that they outlive a crash: a program that is started again gets them back, with
    /// the clients that have come meanwhile in their queues. The unit needs `FileDescriptorStoreMax=`, with at least the number of
    /// listeners. Default: no.
    ///
    /// The manager gets the listeners that a [`SocketFactory`](crate::wheel::SocketFactory), a [`TcpServer`](crate::component::TcpServer) or a
    /// [`Server`](crate::component::Server) has opened when the application has handled `daemon_start`, and later ones as they
    /// come. It keeps them by their [`listener_name`](crate::wheel::SocketFactoryBuilder::listener_name), or else as `lenore`. It
    /// lets go of one that is closed while the Daemon goes on. When the service stops, and is not started again at once, the manager lets
    /// go of all, unless the unit has `FileDescriptorStorePreserve=yes`.
    ///
    /// After a crash a listener finds its socket as described at
    /// [`SocketFactory`](crate::wheel::SocketFactory#sockets-that-were-inherited): by its name, or by its address. So one without a name
    /// whose port is 0 is not kept. Nor is a UNIX socket with a path, which goes with the process, nor a socket that was passed to the
    /// program: the launcher that has passed it keeps it.
    ///
    /// POE: nothing like it.
    #[doc(alias = "FDSTORE")]
    #[doc(alias = "FileDescriptorStoreMax")]
    pub fn descriptor_store(mut self, kept: bool) -> Self {
        self.1.keeps_listeners = kept;
        self
    }

    /// Sets how long the Daemon may be unable to serve before it counts as dead: without a child that was ever ready, or with forks
    /// that fail. Default: 30 s, not zero.
    ///
    /// A watchdog then hears nothing any more, and `/live` of the [status listener](DaemonBuilder#method.status) answers 503. The log has
    /// a line when that begins, and one when it is over.
    ///
    /// POE: nothing like it.
    pub fn health_limit(mut self, limit: Duration) -> Self {
        self.0.health_limit = Some(limit);
        self
    }

    /// Asks the service manager for a restart as soon as the Daemon counts as dead, by `WATCHDOG=trigger`, in place of waiting until its
    /// watchdog finds out. Default: off.
    ///
    /// POE: nothing like it.
    pub fn restart_when_dead(mut self, restart: bool) -> Self {
        self.0.gives_up = restart;
        self
    }

    /// Sets which inherited descriptors stay open when the program [detaches](DaemonBuilder::detach), by number. Default:
    /// none but the sockets that systemd has passed in `LISTEN_FDS`.
    ///
    /// A number that is not open is an error. 0, 1 and 2 go where `detach` and [`logfile`](DaemonBuilder::logfile) say, and
    /// can't be kept by this.
    ///
    /// POE: nothing like it. Its daemon keeps all descriptors.
    pub fn keep_descriptors(mut self, descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        self.1.keep_descriptors = descriptors.into_iter().collect();
        self
    }

    /// Makes it an error if systemd has passed a socket on which nothing listens when the Daemon begins to serve: the Daemon then
    /// ends, and [`Kernel::run`](crate::Kernel::run) returns [`DaemonError::UnclaimedSockets`](crate::daemon::DaemonError). Default: no.
    /// Such a socket is closed, and the log has a warning.
    ///
    /// The Daemon begins to serve when the application has handled `daemon_start`, before the first child is forked. See
    /// [`SocketFactory`](crate::wheel::SocketFactory#sockets-that-were-inherited).
    ///
    /// POE: nothing like it.
    pub fn strict_listeners(mut self, strict: bool) -> Self {
        self.1.strict_listeners = strict;
        self
    }

    /// Sets the file to which standard output and standard error go, and with them panics and what C libraries write; a
    /// relative path counts from the working directory at spawn.
    ///
    /// The file is appended to, and created with [`logfile_mode`](DaemonBuilder::logfile_mode). On HUP, once
    /// `daemon_HUP` has been handled, the parent opens it again by its name, and then all of its children do: `mv log log.1; kill
    /// -HUP PARENT` is all that rotating takes. If that fails the old file stays in use. A line is never torn as long
    /// as it is written in one piece, as loggers do and `println!` does for short ones, but `eprintln!` does not.
    ///
    /// With [`user`](DaemonBuilder::user) a new file is that user's; for the next one the user must be allowed to
    /// create files in the directory, or whatever rotates must create it. With [`chroot`](DaemonBuilder::chroot) the
    /// name leads nowhere any more, and the file can't be opened again.
    ///
    /// `/dev/stdout`, `/dev/stderr`, their other names such as `/proc/self/fd/2`, and links to them mean that standard
    /// output and error stay where they are, also with `detach`. There is nothing to open again on HUP then.
    ///
    /// POE: `logfile`, which is opened again only in the process that gets the HUP.
    pub fn logfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.logfile = Some(path.into());
        self
    }

    /// Sets the permissions of a log file that has to be created; `0o640` unless set, whatever the umask.
    ///
    /// POE: nothing like it.
    pub fn logfile_mode(mut self, mode: u32) -> Self {
        self.1.logfile_mode = Some(mode);
        self
    }

    /// Sets the file that says which process the daemon is; none unless set. A relative path counts from the working
    /// directory at spawn.
    ///
    /// It is locked while the daemon lives: a second one with the same file is not started, and what a dead one has left
    /// behind is taken over, whatever it says. A symbolic link is refused. The Daemon removes it on its orderly end;
    /// where it may not do so, having dropped its privileges, the file is left behind empty.
    ///
    /// POE: nothing like it.
    pub fn pid_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.pid_file = Some(path.into());
        self
    }

    /// Sets the user, by name or number, that the program is from the spawn on; needs root. See
    /// [`Privileges`](crate::daemon::Privileges) for what is done, and proved.
    ///
    /// What only root may open has to be open by then: a usual application listens in its `_start` and spawns
    /// the Daemon after that.
    ///
    /// POE: `drop_privs`, a plan.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.user(user);
        self
    }

    /// Sets the group, by name or number; the user's own unless set.
    ///
    /// POE: nothing like it.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.1.privileges = self.1.privileges.group(group);
        self
    }

    /// Sets the supplementary groups, by name or number; those that the user database has for the user unless set. An
    /// empty list is the safest.
    ///
    /// POE: nothing like it.
    pub fn groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.1.privileges = self.1.privileges.groups(groups);
        self
    }

    /// Locks the program up in a directory, which becomes the root of all paths; needs root. Of use only with
    /// [`user`](DaemonBuilder::user), as root finds its way out.
    ///
    /// Inside there is no `/etc`, `/dev` or `/proc` but what the directory holds.
    ///
    /// POE: nothing like it.
    pub fn chroot(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.privileges = self.1.privileges.chroot(path);
        self
    }

    /// Lets the system write cores of this process and its children although [`user`](DaemonBuilder::user) is set; see
    /// [`Privileges::dumpable`](crate::daemon::Privileges::dumpable). Linux only. Default: off.
    ///
    /// The record of a child that leaves a core ends with `core=dumped`.
    ///
    /// POE: nothing like it.
    #[doc(alias = "core_dumps")]
    pub fn dumpable(mut self, dumpable: bool) -> Self {
        self.1.privileges = self.1.privileges.dumpable(dumpable);
        self
    }

    /// Sets the working directory. When detached it is `/` unless set, so that no file system is kept from being
    /// unmounted; otherwise it stays. With [`chroot`](DaemonBuilder::chroot) it is one inside of that.
    ///
    /// POE: nothing like it; a detached daemon changes to `/`.
    pub fn working_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.1.working_directory = Some(path.into());
        self
    }

    /// Sets which permissions files are created without, `0o022` for example; as inherited unless set.
    ///
    /// POE: nothing like it.
    pub fn umask(mut self, umask: u32) -> Self {
        self.1.umask = Some(umask);
        self
    }

    /// Sets the niceness, from -20 (goes first) to 19 (takes what is left); as inherited unless set. Less than it was
    /// needs root.
    ///
    /// POE: nothing like it.
    pub fn nice(mut self, nice: i32) -> Self {
        self.1.nice = Some(nice);
        self
    }
}
