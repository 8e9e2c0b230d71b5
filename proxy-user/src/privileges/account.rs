//! Users and groups, by name or number, and becoming one.
//!
//! Read from `/etc/passwd` and `/etc/group`, where users of services are. The C library would ask LDAP and others too,
//! but from a static binary it does so by loading whatever shared libraries the host happens to have.

use std::fs;

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::PrivilegeFault;

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub name: String,
    pub uid: Uid,
    pub gid: Gid,
    /// The others of that user's.
    groups: Vec<Gid>,
}

/// The host's two tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    passwd: String,
    group: String,
}

impl Account {
    pub(super) fn find(user: &str, group: Option<&str>) -> Result<Self, PrivilegeFault> {
        Tables::read().find(user, group)
    }

    /// For good: real, effective and saved.
    pub(super) fn enter(&self) -> Result<(), PrivilegeFault> {
        let fault =
            |error: nix::Error| PrivilegeFault::System { doing: "change the user", why: error.to_string() };
        let mut groups = self.groups.clone();
        groups.push(self.gid);
        setgroups(&groups).map_err(fault)?;
        setresgid(self.gid, self.gid, self.gid).map_err(fault)?;
        setresuid(self.uid, self.uid, self.uid).map_err(fault)
    }
}

impl Account {
    /// Whether this account may read and write what is described so, by the plain rules of files. Root may as well, where
    /// it keeps that right; the daemon doesn't.
    pub(super) fn may_use(&self, mode: u32, owner: u32, group: u32) -> bool {
        let in_group = self.gid.as_raw() == group || self.groups.contains(&Gid::from_raw(group));
        let bits = match (self.uid.as_raw() == owner, in_group) {
            (true, _) => mode >> 6,
            (false, true) => mode >> 3,
            (false, false) => mode,
        };
        bits & 0o6 == 0o6
    }
}

impl Tables {
    /// A host without them knows numbers only, as containers do.
    pub(crate) fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    pub(crate) fn knows(&self, user: &str) -> bool {
        rows(&self.passwd).any(|row| row.first() == Some(&user))
    }

    pub(crate) fn name_of(&self, uid: Uid) -> String {
        let number = uid.to_string();
        let row = rows(&self.passwd).find(|row| row.get(2) == Some(&number.as_str()));
        row.and_then(|row| row.first().map(|name| (*name).to_owned())).unwrap_or(number)
    }

    fn find(&self, user: &str, group: Option<&str>) -> Result<Account, PrivilegeFault> {
        let missing = |key, name: &str| PrivilegeFault::NoSuchAccount { key, name: name.to_owned() };
        let number: Option<u32> = user.parse().ok();
        let is_it = |row: &Vec<&str>| match number {
            Some(_) => row.get(2) == Some(&user),
            None => row.first() == Some(&user),
        };
        let entry = rows(&self.passwd).find(is_it).and_then(|row| {
            Some((row.first()?.to_string(), row.get(2)?.parse().ok()?, row.get(3)?.parse().ok()?))
        });
        let (name, uid, own): (String, u32, u32) = match (entry, number) {
            (Some(entry), _) => entry,
            // Containers run as numbers that their images don't know.
            (None, Some(number)) => (user.to_owned(), number, number),
            (None, None) => return Err(missing("user", user)),
        };
        let gid = match group {
            None => own,
            Some(group) => match group.parse() {
                Ok(number) => number,
                Err(_) => rows(&self.group)
                    .find(|row| row.first() == Some(&group))
                    .and_then(|row| row.get(2)?.parse().ok())
                    .ok_or_else(|| missing("group", group))?,
            },
        };
        let groups = rows(&self.group)
            .filter(|row| row.get(3).is_some_and(|members| members.split(',').any(|member| member == name)))
            .filter_map(|row| row.get(2)?.parse().ok().map(Gid::from_raw))
            .collect();
        Ok(Account { name, uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })
    }
}

fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        Tables {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweir:x:990:991::/:/bin/false\n".into(),
            group: "root:x:0:\nweir:x:991:\nssl-cert:x:110:backup,weir\nadm:x:4:weirdo\n".into(),
        }
    }

    #[test]
    fn accounts_are_found_by_name_and_by_number() {
        let weir = tables().find("weir", None).unwrap();
        assert_eq!((weir.uid.as_raw(), weir.gid.as_raw()), (990, 991));
        assert_eq!(weir.groups, [Gid::from_raw(110)]);
        assert_eq!(tables().find("990", Some("root")).unwrap().name, "weir");
        let odd = tables().find("61777", Some("61778")).unwrap();
        assert_eq!((odd.uid.as_raw(), odd.gid.as_raw()), (61777, 61778));
        assert_eq!(tables().name_of(Uid::from_raw(990)), "weir");
        assert_eq!(tables().name_of(Uid::from_raw(7)), "7");
        assert!(tables().knows("weir") && !tables().knows("wei"));
    }

    #[test]
    fn a_socket_is_for_its_owner_and_its_group() {
        let weir = tables().find("weir", None).unwrap();
        for (mode, owner, group, may) in [
            (0o660, 0, 110, true),
            (0o660, 0, 991, true),
            (0o660, 0, 4, false),
            (0o600, 990, 0, true),
            (0o060, 990, 991, false),
            (0o666, 0, 0, true),
            (0o664, 0, 0, false),
        ] {
            assert_eq!(weir.may_use(mode, owner, group), may, "{mode:o} {owner}:{group}");
        }
    }

    #[test]
    fn who_is_not_there_is_named() {
        let fault = tables().find("nobody-of-that-name", None).unwrap_err().to_string();
        assert!(fault.contains("no user `nobody-of-that-name`"), "{fault}");
        let fault = tables().find("root", Some("no-such-group")).unwrap_err().to_string();
        assert!(fault.contains("no group `no-such-group`"), "{fault}");
    }
}
