//! Who published, when nobody says: the owner of the version directory.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Returns the name of a path's owner, as `/etc/passwd` has it, or `uid 1001` where it does not; empty when the path is
/// gone.
pub fn owner_of(path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else { return String::new() };
    name_of(metadata.uid())
}

/// Returns the name of a user.
pub fn name_of(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    find(&users, uid).unwrap_or_else(|| format!("uid {uid}"))
}

fn find(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_name_by_the_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nanna:x:1001:1001::/home/anna:/bin/sh\nbroken\n";
        assert_eq!(find(users, 1001).as_deref(), Some("anna"));
        assert_eq!(find(users, 7), None);
    }
}
