//! A disk under the catalog that takes writes and then cannot keep them: a volume whose device has no room behind it.

use std::{
    io,
    process::{Command, Stdio},
};

use super::{
    full_disk::{Volume, check_all_there, commit, may_mount},
    *,
};
use crate::{
    catalog::Cause,
    fs::{Dir, path_of},
    manifest_file::ManifestFiles,
};

/// A device of 64 MiB in a file, made as ext4, on a volume that has less.
struct Device {
    image: std::path::PathBuf,
    behind: Volume,
}

impl Device {
    fn make(dir: &Path) -> Option<Self> {
        Self::make_with(dir, "has_journal")
    }

    fn make_with(dir: &Path, features: &str) -> Option<Self> {
        let behind = Volume::mount(dir, 12 << 10);
        let image = dir.join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made =
            Command::new("mkfs.ext4").args(["-q", "-E", "nodiscard", "-O", features]).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("SKIPPED: mkfs.ext4 does not work here");
            return None;
        }
        Some(Self { image, behind })
    }

    fn mount(&self, at: &Path) -> Option<Volume> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("SKIPPED: no loop device can be mounted here");
            return None;
        }
        Some(Volume::mounted(at))
    }

    fn repair(&self) {
        let quiet = Stdio::null;
        let checked =
            Command::new("e2fsck").arg("-fy").arg(&self.image).stdout(quiet()).stderr(quiet()).status();
        assert!(checked.unwrap().code().is_some_and(|code| code <= 1), "1: what was wrong was mended");
    }
}

#[test]
fn a_catalog_whose_disk_does_not_keep_what_it_took_loses_nothing_acknowledged() {
    let name = "dead_disk::a_catalog_whose_disk_does_not_keep_what_it_took_loses_nothing_acknowledged";
    if !may_mount(name) {
        return;
    }
    let world = World::new();
    let Some(device) = Device::make(&world.temp.path().join("device")) else { return };
    let catalog = world.state_path().join("catalog");
    let Some(mounted) = device.mount(&catalog) else { return };
    let node = world.open();
    commit(&node, 0, 200).unwrap();
    node.ledger.sync().unwrap();
    device.behind.fill(64);

    let (mut count, mut failure) = (200, None);
    while failure.is_none() {
        commit(&node, count, 200).unwrap();
        count += 200;
        failure = node.ledger.sync().err();
        assert!(count < 100_000, "the device has room for it all");
    }
    let Some(LedgerError::Catalog { source: CatalogError::Damaged { generation, cause } }) = failure else {
        panic!("{failure:?}")
    };
    assert!(matches!(cause, Cause::Fsync { .. } | Cause::NoSpace | Cause::Engine { .. }), "{cause:?}");
    assert_eq!(generation, 1);
    for _ in 0..5 {
        commit(&node, count, 200).unwrap();
        count += 200;
        node.ledger.sync().unwrap_err();
    }
    node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
    let head = node.ledger.heads(&project())[0].1;
    drop(node);
    assert_eq!(head.next_seq, u64::from(count) + 1);

    device.behind.empty();
    mounted.release();
    device.repair();
    let Some(mounted) = device.mount(&catalog) else { return };
    let node = world.open();
    check_all_there(&node, head.next_seq);
    commit(&node, count, 200).unwrap();
    node.ledger.sync().unwrap();
    drop((node, mounted, device));
}

#[test]
fn an_error_of_writing_back_is_heard_also_where_somebody_else_synced_the_volume() {
    let name = "dead_disk::an_error_of_writing_back_is_heard_also_where_somebody_else_synced_the_volume";
    if !may_mount(name) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    // Without a journal only the bytes fail, not the whole volume.
    let Some(device) = Device::make_with(&temp.path().join("device"), "^has_journal") else { return };
    let project = temp.path().join("project");
    let Some(mounted) = device.mount(&project) else { return };
    let dir = Dir::open(&project).unwrap();
    let paths = |who: &str| (0..20).map(|file| path_of(&format!("{who}{file}"))).collect::<Vec<_>>();
    let (one, other) = (paths("one"), paths("other"));
    let write = |path: &avalon_protocol::rel_path::RelPath| {
        io::Write::write_all(&mut fs::File::create(project.join(path.as_str())).unwrap(), &[7; 100_000])
            .unwrap()
    };
    one.iter().for_each(write);
    dir.sync_files(&one).unwrap();
    device.behind.fill(64);
    other.iter().for_each(write);
    // Another one hears first that the volume could not write.
    dir.sync_filesystem().unwrap_err();
    dir.sync_files(&other).unwrap_err();
    drop((dir, mounted, device));
}

#[test]
fn manifests_that_the_disk_could_not_keep_are_not_there_under_their_names() {
    let name = "dead_disk::manifests_that_the_disk_could_not_keep_are_not_there_under_their_names";
    if !may_mount(name) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let Some(device) = Device::make_with(&temp.path().join("device"), "^has_journal") else { return };
    let at = temp.path().join("manifests");
    let Some(mounted) = device.mount(&at) else { return };
    let files = ManifestFiles::new(Dir::open(&at).unwrap());
    let bytes: Vec<Vec<u8>> = (0..40_u8).map(|number| vec![number; 50_000]).collect();
    let all: Vec<(ManifestId, &[u8])> =
        bytes.iter().map(|bytes| (ManifestId::from_bytes(blake3::hash(bytes).into()), &bytes[..])).collect();
    device.behind.fill(64);
    files.put_all(&all).unwrap_err();
    assert_eq!(files.ids().unwrap().len(), 0, "what was read now would come from memory");
    // A name that is there is believed by whoever stores one of them.
    device.behind.empty();
    drop(files);
    mounted.release();
    device.repair();
    let Some(mounted) = device.mount(&at) else { return };
    let files = ManifestFiles::new(Dir::open(&at).unwrap());
    files.put_all(&all).unwrap();
    drop(files);
    mounted.release();
    let Some(mounted) = device.mount(&at) else { return };
    let files = ManifestFiles::new(Dir::open(&at).unwrap());
    for (id, bytes) in &all {
        assert_eq!(files.bytes(*id).unwrap().as_deref(), Some(*bytes));
    }
    drop((files, mounted, device));
}
