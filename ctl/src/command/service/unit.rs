//! The text of the units, and paths as they are written in them.

use std::path::{Component, Path, PathBuf};

use thiserror::Error;

/// The unit of a system's daemon.
pub(super) const SYSTEM: &str = include_str!("avalond.service");

/// The unit of a user's own daemon.
pub(super) const USER: &str = include_str!("avalond-user.service");

/// Directories that `ProtectHome=tmpfs` hides; a root in them has to be bound back in.
const HIDDEN: [&str; 3] = ["/home", "/root", "/run/user"];

/// Why a path cannot stand in a unit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum RootError {
    /// systemd takes absolute paths only.
    #[error("it is not absolute")]
    Relative,
    /// `..` would be refused by systemd when the unit is loaded.
    #[error("it contains `..`")]
    Dots,
    /// A unit is UTF-8 text in lines.
    #[error("it has control characters, or is not UTF-8")]
    Unprintable,
}

/// What goes into a template.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) template: &'static str,
    pub(super) avalond: &'a Path,
    pub(super) config: &'a Path,
    pub(super) user: &'a str,
    pub(super) group: &'a str,
}

impl Unit<'_> {
    /// Returns the unit, or the path that cannot stand in it.
    pub(super) fn text(&self) -> Result<String, (PathBuf, RootError)> {
        let quoted = |path: &Path| quote(path, Dollar::IsDoubled).map_err(|error| (path.to_owned(), error));
        let text = self.template.replace("@AVALOND@", &quoted(self.avalond)?);
        let text = text.replace("@CONFIG@", &quoted(self.config)?);
        Ok(text.replace("@USER@", self.user).replace("@GROUP@", self.group))
    }
}

/// Returns the drop-in that lets the service write to project roots, or the root that cannot stand in it.
///
/// The `-` lets the service start while a root is missing: the daemon pauses its projects and says so.
pub(super) fn roots(roots: &[PathBuf]) -> Result<String, (PathBuf, RootError)> {
    let mut text =
        "# Written by `avalonctl service install --root DIR`: where the projects are.\n[Service]\n"
            .to_owned();
    for root in roots {
        let quoted = quote(root, Dollar::IsPlain).map_err(|error| (root.clone(), error))?;
        if HIDDEN.iter().any(|hidden| root.starts_with(hidden)) {
            text.push_str(&format!("BindPaths=-{quoted}\n"));
        }
        text.push_str(&format!("ReadWritePaths=-{quoted}\n"));
    }
    Ok(text)
}

/// What `$` is: in command lines it begins a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dollar {
    IsDoubled,
    IsPlain,
}

/// Writes a path as systemd reads it: `%` begins a specifier, white space ends a word.
fn quote(path: &Path, dollar: Dollar) -> Result<String, RootError> {
    if !path.is_absolute() {
        return Err(RootError::Relative);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(RootError::Dots);
    }
    let text = path.to_str().filter(|text| !text.contains(char::is_control)).ok_or(RootError::Unprintable)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    for character in text.chars() {
        match character {
            '%' => quoted.push_str("%%"),
            '$' if dollar == Dollar::IsDoubled => quoted.push_str("$$"),
            '"' | '\\' => quoted.extend(['\\', character]),
            _ => quoted.push(character),
        }
    }
    let needs_quotes =
        |character: char| character.is_whitespace() || matches!(character, '"' | '\'' | '\\' | ';');
    Ok(if text.contains(needs_quotes) { format!("\"{quoted}\"") } else { quoted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_systemd_reads_them() {
        let quoted = |path: &str| quote(Path::new(path), Dollar::IsPlain);
        assert_eq!(quoted("/mnt/proj").unwrap(), "/mnt/proj");
        assert_eq!(quoted("/mnt/100%").unwrap(), "/mnt/100%%");
        assert_eq!(quoted("/mnt/my \"show\"").unwrap(), "\"/mnt/my \\\"show\\\"\"");
        assert_eq!(quote(Path::new("/a$b"), Dollar::IsDoubled).unwrap(), "/a$$b");
        assert_eq!(quoted("mnt/proj"), Err(RootError::Relative));
        assert_eq!(quoted("/mnt/../etc"), Err(RootError::Dots));
        assert_eq!(quoted("/mnt/a\nExecStart=/bin/sh"), Err(RootError::Unprintable));
    }

    #[test]
    fn a_root_that_the_unit_hides_is_bound_back_in() {
        let text = roots(&[PathBuf::from("/mnt/proj"), PathBuf::from("/home/anna/show")]).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "[Service]",
                "ReadWritePaths=-/mnt/proj",
                "BindPaths=-/home/anna/show",
                "ReadWritePaths=-/home/anna/show"
            ]
        );
    }

    #[test]
    fn both_units_are_filled_in_completely() {
        for template in [SYSTEM, USER] {
            let (avalond, config) = (Path::new("/usr/bin/avalond"), Path::new("/etc/avalond/avalond.toml"));
            let unit = Unit { template, avalond, config, user: "avalon", group: "artists" };
            let text = unit.text().unwrap();
            assert!(
                text.contains("\nExecStart=/usr/bin/avalond --config /etc/avalond/avalond.toml\n"),
                "{text}"
            );
            for placeholder in ["@AVALOND@", "@CONFIG@", "@USER@", "@GROUP@"] {
                assert!(!text.contains(placeholder), "{placeholder}");
            }
        }
    }
}
