//! Volumes of their own, which can lose their power, be full, or be damaged.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
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

    /// Turns a bit of a file over as a disk does that rots: none of the file's times changes, and whoever reads it next reads the disk. Nobody
    /// may be writing the file. Says no when the byte is nowhere on the disk, as one of a hole is.
    ///
    /// # Errors
    /// In words.
    pub fn rot(&self, path: &Path, at: u64, bit: u8) -> Result<bool, String> {
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(told)?;
        file.sync_all().map_err(told)?;
        let Some(place) = place_of(path, at)? else { return Ok(false) };
        let image = File::options().read(true).write(true).open(&self.image).map_err(told)?;
        let (mut on_disk, mut in_file) = ([0], [0]);
        image.read_exact_at(&mut on_disk, place).map_err(told)?;
        file.read_exact_at(&mut in_file, at).map_err(told)?;
        if on_disk != in_file {
            return Err(format!("byte {at} of {} is not at {place} of the volume", path.display()));
        }
        let rotten = [on_disk[0] ^ 1 << bit];
        image.write_all_at(&rotten, place).map_err(told)?;
        let begun = Instant::now();
        // A page that somebody reads in this moment stays. What is to be found in the file is read from it at least once: a page that
        // was in memory before must not hide it.
        loop {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).map_err(|e| told(e.into()))?;
            file.read_exact_at(&mut in_file, at).map_err(told)?;
            if in_file == rotten {
                return Ok(true);
            }
            if begun.elapsed() > UNMOUNT_PATIENCE {
                return Err(format!("byte {at} of {} stays as it was", path.display()));
            }
        }
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

/// Returns where in the image a byte of a file lies.
fn place_of(path: &Path, at: u64) -> Result<Option<u64>, String> {
    let output = Command::new("filefrag").args(["-v", "-b1"]).arg(path).output();
    let output = output.map_err(|error| format!("filefrag: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let place = said.lines().find_map(|line| {
        // As `0: 0.. 4095: 8650752.. 8654847: 4096: last,eof`.
        let parts: Vec<&str> = line.split(':').map(str::trim).collect();
        let [number, logical, physical, _length, flags @ ..] = parts.as_slice() else { return None };
        number.parse::<u32>().ok()?;
        let is_data = !flags.iter().any(|flags| flags.contains("unwritten") || flags.contains("inline"));
        let range = |text: &str| {
            let (first, last) = text.split_once("..")?;
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        };
        let ((first, last), (on_disk, _)) = (range(logical)?, range(physical)?);
        (is_data && (first..=last).contains(&at)).then(|| on_disk + at - first)
    });
    Ok(place)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
