//! Volumes of their own, which can lose their power, be full, or be damaged.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::trace;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// ext4 as Debian makes it.
    Ext4,
    /// XFS as Debian makes it.
    Xfs,
}

/// How large an image is; XFS is not made smaller. It is sparse.
const IMAGE_BYTES: u64 = 320 << 20;

/// The file that takes the room of a full volume.
const BALLAST: &str = "ballast";

/// How long the kernel may need to let go of a volume whose programs have ended.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(20);

/// A file system in a file, mounted while this is there.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    mount: PathBuf,
    is_mounted: bool,
}

impl Volume {
    /// Makes a volume and mounts it at `mount`, which is made. `image` is where its file goes.
    ///
    /// # Errors
    /// In words: the machine lacks a program or the right.
    pub fn new(system: FileSystem, image: &Path, mount: &Path) -> Result<Self, String> {
        let file = File::create(image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        fs::create_dir_all(mount).map_err(|error| error.to_string())?;
        let make: &[&str] = match system {
            // Nothing is kept for root, who runs this.
            FileSystem::Ext4 => &["mkfs.ext4", "-q", "-F", "-m", "0"],
            FileSystem::Xfs => &["mkfs.xfs", "-q", "-f"],
        };
        run(Command::new(make[0]).args(&make[1..]).arg(image))?;
        let mut volume = Self { image: image.to_owned(), mount: mount.to_owned(), is_mounted: false };
        volume.mount()?;
        Ok(volume)
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Returns how many bytes of it are free.
    ///
    /// # Errors
    /// In words.
    pub fn free_bytes(&self) -> Result<u64, String> {
        let stat = rustix::fs::statvfs(&self.mount).map_err(|error| error.to_string())?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// Fills it with a file until so many bytes are free, or about as many: it works in blocks.
    ///
    /// # Errors
    /// In words.
    pub fn fill(&self, free: u64) -> Result<(), String> {
        let taken = self.free_bytes()?.saturating_sub(free);
        let file = File::create(self.mount.join(BALLAST)).map_err(|error| error.to_string())?;
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(&file, flags, 0, taken.max(1)) {
            // The blocks that say where its blocks are may be the last.
            Ok(()) | Err(rustix::io::Errno::NOSPC) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Gives back what [`Volume::fill`] took.
    ///
    /// # Errors
    /// In words.
    pub fn make_room(&self) -> Result<(), String> {
        fs::remove_file(self.mount.join(BALLAST)).map_err(|error| error.to_string())
    }

    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).args([&self.image, &self.mount]))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Cuts its power: it has what its disk has, and refuses everything until [`Volume::mount_again`].
    ///
    /// # Errors
    /// In words.
    pub fn cut(&self) -> Result<(), String> {
        trace::cut(&self.mount)
    }

    /// Mounts it again, by which its journal is replayed. Nobody may use it any more.
    ///
    /// # Errors
    /// In words.
    pub fn mount_again(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(error) = run(Command::new("umount").arg(&self.mount)) {
            if begun.elapsed() > UNMOUNT_PATIENCE {
                return Err(error);
            }
        }
        self.is_mounted = false;
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.is_mounted {
            // Whoever still has something open keeps it until he ends.
            run(Command::new("umount").arg("--lazy").arg(&self.mount)).ok();
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
