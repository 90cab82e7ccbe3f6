//! Which programs may be hooks: those that nobody but root and the daemon's user can change.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path},
};

/// Checks a program: absolute, a regular file that can be run, and neither it nor a directory above it can be written by
/// anybody but root and this user. It is asked when the configuration is read and again before each run. Blocks.
///
/// # Errors
/// What is wrong with it and what to do, for people.
pub fn check_program(program: &Path) -> Result<(), String> {
    let shown = program.display();
    if !program.is_absolute() || program.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{shown} is not an absolute path without `..`; no search path is used"));
    }
    let stat = |path: &Path| {
        path.symlink_metadata().map_err(|error| format!("{} cannot be used: {error}", path.display()))
    };
    let file = stat(program)?;
    if file.is_symlink() {
        return Err(format!("{shown} is a symbolic link; name the program itself"));
    }
    if !file.is_file() || file.mode() & 0o111 == 0 {
        return Err(format!("{shown} is not a program: chmod +x it"));
    }
    check_owner(program, &file)?;
    for above in program.ancestors().skip(1) {
        let dir = stat(above)?;
        if dir.is_symlink() {
            return Err(format!("{} is a symbolic link; name the directory itself", above.display()));
        }
        check_owner(above, &dir)?;
    }
    Ok(())
}

fn check_owner(path: &Path, stat: &Metadata) -> Result<(), String> {
    let me = rustix::process::geteuid().as_raw();
    if stat.uid() != 0 && stat.uid() != me {
        return Err(format!(
            "{} belongs to another user (uid {}); chown it to root",
            path.display(),
            stat.uid()
        ));
    }
    // In a sticky directory, as /tmp, only the owner of a file replaces it.
    let is_sticky_dir = stat.is_dir() && stat.mode() & 0o1000 != 0;
    if stat.mode() & 0o022 != 0 && !is_sticky_dir {
        return Err(format!("{} can be written by its group or by everybody; chmod go-w it", path.display()));
    }
    Ok(())
}
