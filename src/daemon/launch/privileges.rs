//! Giving up root for good.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{
    Gid, Group, Uid, User, chdir, chroot, getgrouplist, getgroups, setegid, seteuid, setgid, setgroups, setuid,
};

use crate::daemon::error::DaemonError;
use crate::daemon::settings::SettingsError;
use crate::error::Error;

/// Drops the privileges of a process: changes its user, its groups and its root directory for good.
///
/// Use it in a server without a [`Daemon`](crate::Daemon), or in a child that handles a request as another user. A Daemon drops its
/// privileges in `spawn`, by the settings of the same names.
///
/// [`drop_privs`](Privileges::drop_privs) takes these steps, in this order:
///
/// 1. Look up the names of users and groups.
/// 2. Change the root directory, and then the working directory to the new `/`.
/// 3. Set the supplementary groups.
/// 4. Set the real, effective and saved group.
/// 5. Set the real, effective and saved user.
/// 6. Check the result. All ids and groups must be those asked for, and an attempt to become root again must fail.
///
/// Open everything that needs root before you call it, such as ports below 1024 and files that belong to root.
///
/// ```no_run
/// use lenore::daemon::Privileges;
///
/// # fn main() -> Result<(), lenore::daemon::DaemonError> {
/// Privileges::new().user("www-data").chroot("/srv/www").drop_privs()?;
/// # Ok(())
/// # }
/// ```
///
/// POE: `drop_privs`, which stands on POE::Component::Daemon's list of things to do.
#[derive(Debug, Clone, Default)]
#[must_use = "does nothing until drop_privs"]
pub struct Privileges {
    user: Option<String>,
    group: Option<String>,
    groups: Option<Vec<String>>,
    chroot: Option<PathBuf>,
    dumpable: bool,
}

impl Privileges {
    /// Begins with settings that change nothing.
    pub fn new() -> Privileges {
        Privileges::default()
    }

    /// Sets the user, by name or by number.
    ///
    /// Unless you set other groups, the process gets the groups that the user database has for this user. For a number that is not in
    /// the user database, set [`group`](Privileges::group), too.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the group, by name or by number. It replaces the user's own group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets the supplementary groups, by name or by number. With an empty list the process has none.
    pub fn groups<G: Into<String>>(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups = Some(groups.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the directory that becomes the root of all paths.
    pub fn chroot(mut self, path: impl Into<PathBuf>) -> Self {
        self.chroot = Some(path.into());
        self
    }

    /// Lets the system write a core of the process when a signal such as SEGV ends it. Linux only. Elsewhere the system decides.
    /// Default: `false`.
    ///
    /// Linux clears this flag when a process changes its user, because the memory may hold what only root may read. With the flag set,
    /// processes of the same user may read that memory and trace the process.
    ///
    /// The system writes the core into the working directory, so the user must be allowed to write there. `RLIMIT_CORE` limits
    /// the size of the core, and is often 0 (`ulimit -c`, `LimitCORE=`).
    pub fn dumpable(mut self, dumpable: bool) -> Self {
        self.dumpable = dumpable;
        self
    }

    /// Drops the privileges. A step that would change nothing is left out, so a process that already has the right user and groups
    /// does not need root.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Settings`] if there is no such user or group. Nothing was changed. [`DaemonError::Process`] if the system
    /// refuses a step, or if the process could become root again. Some steps may have been taken and can't be undone, so the process
    /// should end.
    pub fn drop_privs(self) -> Result<(), DaemonError> {
        self.look_up()?.drop_privs()
    }

    /// Turns names into numbers, while `/etc` is in sight.
    pub(crate) fn look_up(self) -> Result<Identity, DaemonError> {
        let user = self.user.as_deref().map(find_user).transpose()?;
        let group = self.group.as_deref().map(find_group).transpose()?;
        let gid = match (group, &user) {
            (Some(gid), _) => Some(gid),
            (None, Some(Found { gid: Some(gid), .. })) => Some(*gid),
            (None, Some(Found { gid: None, .. })) => {
                return Err(DaemonError::Settings(SettingsError::NoGroup { user: self.user.unwrap_or_default() }));
            }
            (None, None) => None,
        };
        let groups = match (self.groups, &user, gid) {
            (Some(names), ..) => Some(names.iter().map(|name| find_group(name)).collect::<Result<Vec<_>, _>>()?),
            (None, Some(Found { name: Some(name), .. }), Some(gid)) => {
                let list =
                    getgrouplist(name, gid).map_err(|errno| failed("getgrouplist", name.to_string_lossy(), errno))?;
                Some(list)
            }
            (None, _, Some(_)) => Some(Vec::new()),
            (None, _, None) => None,
        };
        let shown = self.user.or(self.group).unwrap_or_default();
        let (uid, dumpable) = (user.map(|user| user.uid), self.dumpable);
        Ok(Identity { uid, gid, groups, chroot: self.chroot, dumpable, shown })
    }
}

/// The same in numbers.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: Option<Uid>,
    pub(crate) gid: Option<Gid>,
    groups: Option<Vec<Gid>>,
    chroot: Option<PathBuf>,
    dumpable: bool,
    /// Whom to name in errors.
    shown: String,
}

impl Identity {
    /// Gives everything up.
    pub(crate) fn drop_privs(&self) -> Result<(), DaemonError> {
        self.enter_jail()?;
        self.become_user()
    }

    pub(crate) fn has_jail(&self) -> bool {
        self.chroot.is_some()
    }

    /// Before the rest, as only root can; and with the working directory inside, or there is a way out.
    pub(crate) fn enter_jail(&self) -> Result<(), DaemonError> {
        let Some(path) = &self.chroot else { return Ok(()) };
        let fail = |call| move |errno| failed(call, path.display(), errno);
        // Into it first: a directory that can't be entered is no place to be locked up in.
        chdir(path).map_err(fail("chdir"))?;
        chroot(".").map_err(fail("chroot"))?;
        chdir("/").map_err(fail("chdir"))
    }

    /// Groups first, as the user that comes last may not change them.
    pub(crate) fn become_user(&self) -> Result<(), DaemonError> {
        let fail = |call| move |errno| failed(call, &self.shown, errno);
        if !(self.has_group() && self.has_groups()?) {
            if let Some(groups) = &self.groups {
                setgroups(groups).map_err(fail("setgroups"))?;
            }
            if let Some(gid) = self.gid {
                set_all_gids(gid).map_err(fail("setresgid"))?;
            }
        }
        if let Some(uid) = self.uid.filter(|uid| !has_all_uids(*uid)) {
            set_all_uids(uid).map_err(fail("setresuid"))?;
        }
        self.prove()?;
        // Last, as each change of an id clears it.
        if self.dumpable { keep_dumpable().map_err(fail("prctl")) } else { Ok(()) }
    }

    fn has_group(&self) -> bool {
        self.gid.is_none_or(has_all_gids)
    }

    /// Tells whether the process is in the supplementary groups that it is to be in, and in no others.
    ///
    /// `gid` may be among them or not: it is the process's group in any case, and launchers differ in whether they list it.
    fn has_groups(&self) -> Result<bool, DaemonError> {
        let Some(groups) = &self.groups else { return Ok(true) };
        let now = getgroups().map_err(|errno| failed("getgroups", &self.shown, errno))?;
        let others = |groups: &[Gid]| {
            let others =
                groups.iter().map(|gid| gid.as_raw()).filter(|gid| self.gid.is_none_or(|own| own.as_raw() != *gid));
            others.collect::<BTreeSet<u32>>()
        };
        Ok(others(&now) == others(groups))
    }

    /// Looks whether it is done, instead of believing so.
    fn prove(&self) -> Result<(), DaemonError> {
        let wrong = |call, what: &str| failed(call, &self.shown, io::Error::other(what.to_owned()));
        if self.uid.is_some_and(|uid| !has_all_uids(uid)) {
            return Err(wrong("getresuid", "not all user ids have changed"));
        }
        if !self.has_group() {
            return Err(wrong("getresgid", "not all group ids have changed"));
        }
        if !self.has_groups()? {
            return Err(wrong("getgroups", "not all groups were given up"));
        }
        // The program has asked to be root.
        let Some(uid) = self.uid.filter(|uid| !uid.is_root()) else { return Ok(()) };
        let root = Uid::from_raw(0);
        if setuid(root).is_ok() || seteuid(root).is_ok() || Uid::current() != uid || Uid::effective() != uid {
            return Err(wrong("setuid", "the process could become root again"));
        }
        let wheel = Gid::from_raw(0);
        if self.gid.is_some_and(|gid| gid != wheel) && (setgid(wheel).is_ok() || setegid(wheel).is_ok()) {
            return Err(wrong("setgid", "the process could get root's group again"));
        }
        Ok(())
    }
}

/// What the user database has.
struct Found {
    uid: Uid,
    gid: Option<Gid>,
    name: Option<CString>,
}

fn find_user(user: &str) -> Result<Found, DaemonError> {
    let (found, number) = match user.parse().ok() {
        Some(number) => (User::from_uid(Uid::from_raw(number)), Some(number)),
        None => (User::from_name(user), None),
    };
    match (found_or_none(found).map_err(|errno| failed("getpwnam", user, errno))?, number) {
        (Some(User { name, uid, gid, .. }), _) => Ok(Found { uid, gid: Some(gid), name: CString::new(name).ok() }),
        // One number means "leave it as it is" to the system.
        (None, Some(number)) if number != u32::MAX => Ok(Found { uid: Uid::from_raw(number), gid: None, name: None }),
        (None, _) => Err(DaemonError::Settings(SettingsError::UnknownUser { user: user.to_owned() })),
    }
}

fn find_group(group: &str) -> Result<Gid, DaemonError> {
    let unknown = || DaemonError::Settings(SettingsError::UnknownGroup { group: group.to_owned() });
    if let Ok(number) = group.parse() {
        return if number == u32::MAX { Err(unknown()) } else { Ok(Gid::from_raw(number)) };
    }
    let found = found_or_none(Group::from_name(group)).map_err(|errno| failed("getgrnam", group, errno))?;
    found.map(|group| group.gid).ok_or_else(unknown)
}

/// Some systems have an error for "no such entry", each its own.
fn found_or_none<T>(found: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        found => found,
    }
}

fn failed(call: &'static str, subject: impl std::fmt::Display, source: impl Into<io::Error>) -> DaemonError {
    DaemonError::Process { doing: "dropping privileges", source: Error::os(call, subject, source) }
}

#[cfg(target_os = "linux")]
fn keep_dumpable() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(true)
}

#[cfg(not(target_os = "linux"))]
fn keep_dumpable() -> nix::Result<()> {
    Ok(())
}

/// Where there are saved ids they are set and looked at as well. Elsewhere root's `setuid` sets them.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "openbsd"))]
mod ids {
    use nix::unistd::{Gid, Uid, getresgid, getresuid, setresgid, setresuid};

    pub(super) fn set_all_uids(uid: Uid) -> nix::Result<()> {
        setresuid(uid, uid, uid)
    }

    pub(super) fn set_all_gids(gid: Gid) -> nix::Result<()> {
        setresgid(gid, gid, gid)
    }

    pub(super) fn has_all_uids(uid: Uid) -> bool {
        getresuid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [uid; 3])
    }

    pub(super) fn has_all_gids(gid: Gid) -> bool {
        getresgid().is_ok_and(|ids| [ids.real, ids.effective, ids.saved] == [gid; 3])
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "openbsd")))]
mod ids {
    use nix::unistd::{Gid, Uid, setgid, setuid};

    pub(super) fn set_all_uids(uid: Uid) -> nix::Result<()> {
        setuid(uid)
    }

    pub(super) fn set_all_gids(gid: Gid) -> nix::Result<()> {
        setgid(gid)
    }

    pub(super) fn has_all_uids(uid: Uid) -> bool {
        [Uid::current(), Uid::effective()] == [uid; 2]
    }

    pub(super) fn has_all_gids(gid: Gid) -> bool {
        [Gid::current(), Gid::effective()] == [gid; 2]
    }
}

use ids::{has_all_gids, has_all_uids, set_all_gids, set_all_uids};
