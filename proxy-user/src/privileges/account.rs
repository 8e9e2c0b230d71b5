//! Users and groups, by name or number, and becoming one.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgroups, setresgid, setresuid};

use super::PrivilegeFault;

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    /// A number that the host has no name for has no other groups either.
    known: bool,
}

impl Account {
    pub(super) fn find(user: &str, group: Option<&str>) -> Result<Self, PrivilegeFault> {
        let missing = |key, name: &str| PrivilegeFault::NoSuchAccount { key, name: name.to_owned() };
        let number = user.parse().ok().map(Uid::from_raw);
        let entry = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(user),
        };
        // A host that can't be asked has no such user, as far as we know.
        let entry = entry.unwrap_or_default();
        let (name, uid, own, known) = match (entry, number) {
            (Some(entry), _) => (entry.name, entry.uid, entry.gid, true),
            // Containers run as numbers that their images don't know.
            (None, Some(uid)) => (user.to_owned(), uid, Gid::from_raw(uid.as_raw()), false),
            (None, None) => return Err(missing("user", user)),
        };
        let gid = match group {
            None => own,
            Some(group) => match group.parse() {
                Ok(gid) => Gid::from_raw(gid),
                Err(_) => {
                    Group::from_name(group).unwrap_or_default().ok_or_else(|| missing("group", group))?.gid
                }
            },
        };
        Ok(Self { name, uid, gid, known })
    }

    /// For good: real, effective and saved.
    pub(super) fn enter(&self) -> Result<(), PrivilegeFault> {
        let fault =
            |error: nix::Error| PrivilegeFault::System { doing: "change the user", why: error.to_string() };
        match CString::new(self.name.as_str()) {
            Ok(name) if self.known => initgroups(&name, self.gid).map_err(fault)?,
            _ => setgroups(&[self.gid]).map_err(fault)?,
        }
        setresgid(self.gid, self.gid, self.gid).map_err(fault)?;
        setresuid(self.uid, self.uid, self.uid).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let root = Account::find("root", None).unwrap();
        assert!(root.uid.is_root() && root.known);
        assert_eq!(Account::find("0", None).unwrap().name, "root");
        let odd = Account::find("61777", Some("61778")).unwrap();
        assert_eq!((odd.uid.as_raw(), odd.gid.as_raw(), odd.known), (61777, 61778, false));
    }

    #[test]
    fn who_is_not_there_is_named() {
        let fault = Account::find("nobody-of-that-name", None).unwrap_err().to_string();
        assert!(fault.contains("no user `nobody-of-that-name`"), "{fault}");
        let fault = Account::find("root", Some("no-such-group")).unwrap_err().to_string();
        assert!(fault.contains("no group `no-such-group`"), "{fault}");
    }
}
