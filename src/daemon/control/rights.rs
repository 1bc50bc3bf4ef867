//! Who may ask what.

use nix::unistd::{Gid, Group, Uid, User};

use crate::daemon::error::DaemonError;
use crate::daemon::settings::SettingsError;
use crate::error::Error;
use crate::sys::peer::Peer;

/// Which commands a client of the control socket may give. Each level includes the levels before it.
///
/// POE: nothing like it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rights {
    /// Commands that only read: `hello`, `help`, `status`, `live`, `ready`, `children`, `peek`, `metrics`, `watch`, `verdict`.
    Read,
    /// Commands that change how the Daemon works: `reload`, `check`, `resize`, `retire`, `reopen`, `log-level`.
    Operate,
    /// Commands that end or replace processes by force or for good: `kill`, `stop`, `upgrade`, `finish`.
    Admin,
}

impl Rights {
    /// Returns the word for the level: `read`, `operate` or `admin`.
    pub fn word(self) -> &'static str {
        match self {
            Rights::Read => "read",
            Rights::Operate => "operate",
            Rights::Admin => "admin",
        }
    }
}

/// The user or group that [`control_allow`](crate::daemon::DaemonBuilder::control_allow) gives rights to.
///
/// POE: nothing like it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Who {
    /// A user, by name or number.
    User(String),
    /// The members of a group, by name or number.
    Group(String),
}

/// The same in numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::daemon) enum Id {
    User(u32),
    Group(u32),
}

impl Who {
    /// Looks the name up, while `/etc` is in sight.
    pub(in crate::daemon) fn look_up(&self) -> Result<Id, DaemonError> {
        let failed = |call, name: &str, errno: nix::errno::Errno| DaemonError::Process {
            doing: "looking up who may use the control socket",
            source: Error::os(call, name, errno),
        };
        match self {
            Who::User(name) => {
                if let Ok(number) = name.parse() {
                    return Ok(Id::User(number));
                }
                let user = User::from_name(name).map_err(|errno| failed("getpwnam", name, errno))?;
                let unknown = || DaemonError::Settings(SettingsError::UnknownUser { user: name.clone() });
                user.map(|user| Id::User(user.uid.as_raw())).ok_or_else(unknown)
            }
            Who::Group(name) => {
                if let Ok(number) = name.parse() {
                    return Ok(Id::Group(number));
                }
                let group = Group::from_name(name).map_err(|errno| failed("getgrnam", name, errno))?;
                let unknown = || DaemonError::Settings(SettingsError::UnknownGroup { group: name.clone() });
                group.map(|group| Id::Group(group.gid.as_raw())).ok_or_else(unknown)
            }
        }
    }
}

/// Who has which rights.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Policy {
    /// The user that the Daemon is.
    pub(in crate::daemon) own: u32,
    /// The number by which the system shows users and groups that have none in this user namespace; `None` if all have one.
    pub(in crate::daemon) unmapped: Option<u32>,
    /// Who else has rights.
    pub(in crate::daemon) allowed: Vec<(Id, Rights)>,
}

impl Policy {
    /// Returns what this client may ask for; `None` for nothing.
    pub(in crate::daemon) fn rights(&self, peer: &Peer) -> Option<Rights> {
        // Any user of another namespace has this number.
        let is_known = |id: u32| Some(id) != self.unmapped;
        if is_known(peer.uid) && (peer.uid == self.own || peer.uid == 0) {
            return Some(Rights::Admin);
        }
        let is_meant = |id: &Id| match *id {
            Id::User(uid) => is_known(uid) && uid == peer.uid,
            Id::Group(gid) => is_known(gid) && (gid == peer.gid || peer.groups.contains(&gid)),
        };
        self.allowed.iter().filter(|(id, _)| is_meant(id)).map(|(_, rights)| *rights).max()
    }

    /// Returns the permissions of the socket's path, and its group unless that is the process's own. As far as permissions can tell
    /// users apart, a user without rights can't connect.
    pub(in crate::daemon) fn mode(&self) -> (u32, Option<Gid>) {
        match self.allowed[..] {
            [] => (0o600, None),
            [(Id::Group(gid), _)] => (0o660, Some(Gid::from_raw(gid))),
            _ => (0o666, None),
        }
    }
}

/// Returns the user that this process is, or is about to be.
pub(in crate::daemon) fn own_uid(about_to_be: Option<Uid>) -> u32 {
    about_to_be.unwrap_or_else(Uid::effective).as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, pid: 1000, groups: groups.to_vec() }
    }

    fn policy(allowed: &[(Id, Rights)]) -> Policy {
        Policy { own: 500, unmapped: Some(65_534), allowed: allowed.to_vec() }
    }

    #[test] // O-CT-06
    fn same_user_and_root_are_admins_and_others_have_no_rights() {
        let policy = policy(&[]);
        assert_eq!(policy.rights(&peer(500, 1, &[])), Some(Rights::Admin));
        assert_eq!(policy.rights(&peer(0, 1, &[])), Some(Rights::Admin));
        assert_eq!(policy.rights(&peer(501, 0, &[0, 500])), None);
        assert_eq!(policy.mode(), (0o600, None));
    }

    #[test] // O-CT-06
    fn user_or_group_has_the_best_rights_that_it_is_allowed() {
        let policy =
            policy(&[(Id::User(7), Rights::Read), (Id::Group(8), Rights::Operate), (Id::Group(9), Rights::Read)]);
        assert_eq!(policy.rights(&peer(7, 1, &[])), Some(Rights::Read));
        assert_eq!(policy.rights(&peer(7, 1, &[9, 8])), Some(Rights::Operate));
        assert_eq!(policy.rights(&peer(6, 9, &[])), Some(Rights::Read));
        assert_eq!(policy.rights(&peer(6, 10, &[7])), None);
        assert_eq!(policy.mode(), (0o666, None));
    }

    #[test] // O-CT-06
    fn path_is_the_groups_if_one_group_is_allowed() {
        assert_eq!(policy(&[(Id::Group(8), Rights::Read)]).mode(), (0o660, Some(Gid::from_raw(8))));
        assert_eq!(policy(&[(Id::User(8), Rights::Read)]).mode(), (0o666, None));
    }

    #[test] // trap of user namespaces: who has no number here has nobody's rights
    fn unmapped_user_has_no_rights() {
        let mut policy = policy(&[(Id::User(65_534), Rights::Admin), (Id::Group(65_534), Rights::Read)]);
        policy.own = 65_534;
        assert_eq!(policy.rights(&peer(65_534, 65_534, &[65_534])), None);
        // In the initial namespace it is a user as any other.
        policy.unmapped = None;
        assert_eq!(policy.rights(&peer(65_534, 1, &[])), Some(Rights::Admin));
        assert_eq!(policy.rights(&peer(1, 65_534, &[])), Some(Rights::Read));
    }
}
