//! The user and the groups that a child runs as.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::error::Error;
use crate::sys::child::Setup;

/// Completes `setup` with the ids of a user and a group, each given by name or number.
///
/// # Errors
///
/// [`Error::Os`] if there is no such name, or if the lookup fails.
pub(super) fn resolve(user: Option<&str>, group: Option<&str>, setup: &mut Setup) -> Result<(), Error> {
    let user = user.map(find_user).transpose()?;
    if let Some(group) = group {
        setup.gid = Some(find_group(group)?);
    }
    if let Some((uid, account)) = &user {
        setup.uid = Some(*uid);
        setup.gid = setup.gid.or(account.as_ref().map(|account| account.gid));
    }
    // Only root may change the groups, and only root has groups to lose that the user is not in.
    if !Uid::effective().is_root() {
        return Ok(());
    }
    setup.groups = match (&user, setup.gid) {
        (Some((_, Some(account))), Some(gid)) => Some(groups_of(account, gid)?),
        (Some(_), _) => Some(Vec::new()),
        (None, Some(gid)) => Some(vec![gid]),
        (None, None) => None,
    };
    Ok(())
}

/// Finds a user. A number need not belong to an account.
fn find_user(text: &str) -> Result<(Uid, Option<User>), Error> {
    let fail = |errno| Error::os("getpwnam", format_args!("user {text}"), errno);
    if let Ok(number) = text.parse() {
        let uid = Uid::from_raw(number);
        return Ok((uid, User::from_uid(uid).map_err(fail)?));
    }
    let account = User::from_name(text).map_err(fail)?.ok_or_else(|| fail(Errno::ENOENT))?;
    Ok((account.uid, Some(account)))
}

fn find_group(text: &str) -> Result<Gid, Error> {
    let fail = |errno| Error::os("getgrnam", format_args!("group {text}"), errno);
    match text.parse() {
        Ok(number) => Ok(Gid::from_raw(number)),
        Err(_) => Ok(Group::from_name(text).map_err(fail)?.ok_or_else(|| fail(Errno::ENOENT))?.gid),
    }
}

fn groups_of(account: &User, gid: Gid) -> Result<Vec<Gid>, Error> {
    let name = CString::new(account.name.as_str()).unwrap_or_default();
    getgrouplist(&name, gid).map_err(|errno| Error::os("getgrouplist", format_args!("user {}", account.name), errno))
}
