//! Who `USER[:GROUP]` is, by the container's own `/etc/passwd` and `/etc/group` (given as text, which anyone may have
//! written): Docker's rules.

use crate::{Error, Result};

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` where nothing is known.
    pub home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// The largest number that Docker takes: `(uid_t) -1` means "leave it as it is" to the kernel, and what is cut off to 32 bits
/// may be root (CVE-2024-40635).
const LARGEST: i64 = i32::MAX as i64;

/// What is written in digits is a number, whatever the files call by that name (CVE-2016-3697).
fn number(name: &str) -> Result<Option<u32>> {
    let digits = name.strip_prefix(['-', '+']).unwrap_or(name);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    name.parse::<i64>().ok().and_then(in_range).map(Some).ok_or_else(out_of_range)
}

fn in_range(id: i64) -> Option<u32> {
    u32::try_from(id).ok().filter(|_| id <= LARGEST)
}

fn out_of_range() -> Error {
    Error::invalid(format!("uids and gids must be in range 0-{LARGEST}"))
}

fn group_id(name: &str, group: &str) -> Result<u32> {
    let number = number(name)?;
    let known = |(known, gid, _): &(&str, u32, &str)| number.map_or(*known == name, |number| number == *gid);
    let gid = groups(group).find(known).map(|(_, gid, _)| gid).or(number).ok_or_else(|| {
        Error::invalid(format!("unable to find group {name}: no matching entries in group file"))
    })?;
    in_range(gid.into()).ok_or_else(out_of_range)
}

/// Resolves `user` (empty is root) and the names or numbers of `additional` groups.
///
/// # Errors
/// Docker's texts for a user or group that is neither known nor a number.
pub fn resolve(user: &str, additional: &[String], passwd: &str, group: &str) -> Result<Identity> {
    let (name, wanted_group) = user.split_once(':').map_or((user, ""), |(name, group)| (name, group));
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name)?;
    let account =
        accounts(passwd).find(|account| number.map_or(account.name == name, |number| number == account.uid));
    let mut identity = match (&account, number) {
        (Some(account), _) => {
            Identity { uid: account.uid, gid: account.gid, groups: Vec::new(), home: account.home.to_owned() }
        }
        (None, Some(uid)) => Identity { uid, ..Identity::default() },
        (None, None) => {
            return Err(Error::invalid(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    };
    if wanted_group.is_empty() {
        if let Some(account) = &account {
            let member = |members: &str| members.split(',').any(|member| member == account.name);
            identity
                .groups
                .extend(groups(group).filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid));
        }
    } else {
        identity.gid = group_id(wanted_group, group)?;
    }
    if !identity.groups.contains(&identity.gid) {
        identity.groups.insert(0, identity.gid);
    }
    for name in additional {
        let gid = group_id(name, group)?;
        if !identity.groups.contains(&gid) {
            identity.groups.push(gid);
        }
    }
    let ids = identity.groups.iter().chain([&identity.uid, &identity.gid]);
    if ids.into_iter().any(|&id| in_range(id.into()).is_none()) {
        return Err(out_of_range());
    }
    if identity.home.is_empty() {
        identity.home = "/".to_owned();
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_cannot_make_a_number_another_one() {
        let passwd =
            "1000:x:0:0::/root:/bin/sh\nminus:x:4294967295:0::/:/bin/sh\nwide:x:5:4294967295::/:/bin/sh\n";
        let group = "77:x:0:\nminus:x:4294967295:five\n";
        let who = resolve("1000:77", &[], passwd, group).unwrap();
        assert_eq!((who.uid, who.gid, who.groups), (1000, 77, vec![77]));
        assert_eq!(resolve("7", &["77".to_owned()], passwd, group).unwrap().groups, [0, 77]);
        for user in ["minus", "wide", "7:minus"] {
            let error = resolve(user, &[], passwd, group).unwrap_err().to_string();
            assert_eq!(error, "uids and gids must be in range 0-2147483647", "{user}");
        }
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad\napp:x:1000:100:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:app,other\nwheel:x:10:root\n";

    #[test]
    fn as_docker() {
        let who = |user: &str, add: &[&str]| {
            let add: Vec<String> = add.iter().map(|name| (*name).to_owned()).collect();
            resolve(user, &add, PASSWD, GROUP)
                .map(|id| (id.uid, id.gid, id.groups, id.home))
                .map_err(|error| error.to_string())
        };
        assert_eq!(who("", &[]), Ok((0, 0, vec![0, 10], "/root".into())));
        assert_eq!(who("app", &[]), Ok((1000, 100, vec![100, 29], "/home/app".into())));
        assert_eq!(who("1000", &["wheel", "77"]), Ok((1000, 100, vec![100, 29, 10, 77], "/home/app".into())));
        assert_eq!(who("app:audio", &[]), Ok((1000, 29, vec![29], "/home/app".into())));
        assert_eq!(who("4242:4343", &[]), Ok((4242, 4343, vec![4343], "/".into())));
        assert_eq!(who("4242", &[]), Ok((4242, 0, vec![0], "/".into())));
        assert_eq!(who("no", &[]), Err("unable to find user no: no matching entries in passwd file".into()));
        assert_eq!(
            who("0:no", &[]),
            Err("unable to find group no: no matching entries in group file".into())
        );
        let range = "uids and gids must be in range 0-2147483647";
        assert_eq!(who("2147483647:2147483647", &[]).unwrap().0, 2_147_483_647);
        for user in ["-1", "2147483648", "4294967295", "4294967296", "99999999999999999999", "0:4294967296"] {
            assert_eq!(who(user, &[]), Err(range.into()), "{user}");
        }
        assert_eq!(who("0", &["4294967296"]), Err(range.into()));
    }
}
