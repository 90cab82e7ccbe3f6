//! The number of a Unix group.

use rustix::fs::Gid;

use super::SocketError;

/// Where groups are listed. Those of a directory service are not; they are configured by number.
const FILE: &str = "/etc/group";

/// Finds a group by its name or number.
pub(in crate::api) fn find(name: &str) -> Result<Gid, SocketError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let groups = std::fs::read(FILE).map_err(|source| SocketError::Groups {
        name: name.to_owned(),
        file: FILE,
        source,
    })?;
    in_list(&String::from_utf8_lossy(&groups), name)
        .map(Gid::from_raw)
        .ok_or_else(|| SocketError::NoSuchGroup { name: name.to_owned(), file: FILE })
}

/// Finds a group in lines of `name:password:number:members`.
fn in_list(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut parts = line.split(':');
        if parts.next()? != name { None } else { parts.nth(1)?.trim().parse().ok() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_their_whole_name() {
        let groups =
            "root:x:0:\n# artists:x:1:\nbroken\nartist:x:7:anna\nartists:x:1001:anna,ben\nbad:x:many:\n";
        assert_eq!(in_list(groups, "artists"), Some(1001));
        assert_eq!(in_list(groups, "root"), Some(0));
        for missing in ["art", "anna", "bad", "broken", ""] {
            assert_eq!(in_list(groups, missing), None, "{missing:?}");
        }
    }

    #[test]
    fn numbers_are_taken_as_they_are() {
        assert_eq!(find("1234").unwrap().as_raw(), 1234);
        assert!(matches!(find("no-such-group-here"), Err(SocketError::NoSuchGroup { .. })));
    }
}
