//! Feeds on disk, damaged in every way that a disk and a crash have.

use std::{fs, io, path::PathBuf};

use avalon_protocol::{feed::FeedHead, limits::MAX_GROUP_BYTES, record::Record};

use super::{segment::SegmentFile, *};
use crate::{
    fs::Dir,
    toy::{Toy, ToyTrust, feed, held},
};

const NODE: &str = "ws1@london";

struct World {
    temp: tempfile::TempDir,
    feeds: Dir,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let feeds = Dir::open(temp.path()).unwrap();
        Self { temp, feeds }
    }

    fn open(&self) -> Result<(FeedFile, Option<TornTail>), FeedFileError> {
        open(&self.feeds, &feed(NODE), &ToyTrust)
    }

    fn segment(&self, number: u32) -> PathBuf {
        self.temp.path().join(format!("lantern/{NODE}/{number:08}.alog"))
    }

    /// A feed of `groups` groups, the first with its key; returns the heads after each.
    fn with_groups(groups: u8, segment_bytes: u64) -> (Self, Vec<FeedHead>) {
        let world = Self::new();
        let mut file = create(&world.feeds, &feed(NODE)).unwrap();
        file.limit_segments(segment_bytes);
        let heads = (0..groups).map(|number| append_one(&mut file, number).unwrap()).collect();
        (world, heads)
    }
}

fn stage(file: &FeedFile, number: u8) -> Staged {
    let record = Record::Placed(held(1, number)).to_raw();
    let mut after = file.reader().clone();
    let group = after.seal(vec![record], 1000, &Toy::of(NODE), &ToyTrust);
    after.accept(&group, &ToyTrust).unwrap();
    Staged { group, after }
}

fn append_one(file: &mut FeedFile, number: u8) -> Result<FeedHead, AppendError> {
    let staged = stage(file, number);
    file.append(vec![staged])
}

fn overwrite(path: &PathBuf, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    let mut file = fs::File::create(path).unwrap();
    io::Write::write_all(&mut file, &bytes).unwrap();
}

#[test]
fn what_was_appended_is_there_after_opening_again() {
    let (world, heads) = World::with_groups(5, u64::MAX);
    let (file, torn) = world.open().unwrap();
    assert_eq!((file.head(), torn), (heads[4], None));
    assert_eq!(find(&world.feeds).unwrap(), [feed(NODE)]);
    let groups = file.index().read(0, usize::MAX).unwrap();
    assert_eq!(groups.iter().map(avalon_protocol::feed::SealedGroup::chain).collect::<Vec<_>>(), {
        heads.iter().map(|head| head.chain).collect::<Vec<_>>()
    });
}

#[test]
fn reads_start_at_any_group_across_segments_and_stop_at_the_byte_limit() {
    let (world, heads) = World::with_groups(20, 1000);
    assert!(world.segment(2).exists(), "it has several segments");
    let (file, _) = world.open().unwrap();
    let index = file.index();
    let starts: Vec<u64> = std::iter::once(0).chain(heads.iter().map(|head| head.next_seq)).collect();
    for (group, start) in starts.iter().enumerate() {
        assert_eq!(index.read(*start, usize::MAX).unwrap().len(), 20 - group, "from {start}");
        assert_eq!(index.read(*start, 1).unwrap().len(), usize::from(group < 20), "one at least");
    }
    assert!(index.read(1000, 1).unwrap().is_empty(), "beyond the head is nothing");
    let inside = index.read(1, 1).unwrap_err();
    assert!(matches!(inside, FeedFileError::NotABoundary { seq: 1, .. }), "{inside:?}");
    let two = index.read(0, index.read(0, 1).unwrap()[0].body.len() * 2).unwrap();
    assert!((1..20).contains(&two.len()));
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_the_feed_goes_on() {
    let (world, heads) = World::with_groups(3, u64::MAX);
    let whole = fs::read(world.segment(0)).unwrap();
    let (file, _) = world.open().unwrap();
    let last = file.index().read(heads[1].next_seq, 1).unwrap();
    let start = whole.len() - (last[0].body.len() + 64 + 12);
    for end in start..whole.len() {
        for zeros in [0, 1, 5000] {
            overwrite(&world.segment(0), |bytes| {
                *bytes = whole[..end].to_vec();
                bytes.resize(end + zeros, 0);
            });
            let (mut file, torn) = world.open().unwrap();
            assert_eq!(file.head(), heads[1], "cut at {end}");
            let bytes = (end + zeros - start) as u64;
            let expected = TornTail { feed: feed(NODE), segment: 0, offset: start as u64, bytes };
            assert_eq!(torn, (bytes > 0).then_some(expected));
            assert_eq!(fs::metadata(world.segment(0)).unwrap().len(), start as u64);
            assert_eq!(append_one(&mut file, 2).unwrap(), heads[2], "the same again");
            assert_eq!(world.open().unwrap().1, None);
        }
    }
}

#[test]
fn zeros_after_whole_frames_are_a_torn_tail() {
    let (world, heads) = World::with_groups(2, u64::MAX);
    overwrite(&world.segment(0), |bytes| bytes.extend_from_slice(&[0; 4096]));
    let (file, torn) = world.open().unwrap();
    assert_eq!((file.head(), torn.unwrap().bytes), (heads[1], 4096));
}

#[test]
fn a_flip_before_good_frames_is_damage_and_changes_nothing() {
    let (world, _) = World::with_groups(4, u64::MAX);
    let whole = fs::read(world.segment(0)).unwrap();
    let (file, _) = world.open().unwrap();
    let last = file.index().read(4, 1).unwrap();
    let before_last = whole.len() - (last[0].body.len() + 64 + 12);
    for at in (0..before_last).step_by(3) {
        overwrite(&world.segment(0), |bytes| {
            *bytes = whole.clone();
            bytes[at] ^= 0x40;
        });
        let error = world.open().unwrap_err();
        assert!(error.is_damage(), "flip at {at}: {error:?}");
        assert_eq!(fs::metadata(world.segment(0)).unwrap().len(), whole.len() as u64);
    }
}

#[test]
fn damage_in_any_segment_but_the_last_is_never_cut_off() {
    let (world, _) = World::with_groups(20, 1000);
    let length = fs::metadata(world.segment(1)).unwrap().len();
    fs::OpenOptions::new().write(true).open(world.segment(1)).unwrap().set_len(length - 1).unwrap();
    let error = world.open().unwrap_err();
    assert!(matches!(error, FeedFileError::Damaged { segment: 1, .. }), "{error:?}");
    fs::remove_file(world.segment(1)).unwrap();
    let error = world.open().unwrap_err();
    assert!(matches!(error, FeedFileError::Damaged { segment: 1, offset: 0, .. }), "{error:?}");
}

#[test]
fn a_last_segment_without_a_whole_header_goes_away() {
    let (world, heads) = World::with_groups(4, 1000);
    let next = (0..).find(|number| !world.segment(*number).exists()).unwrap();
    for left in [vec![], b"AVLF\x01\0".to_vec(), vec![0; 16], vec![0; 4000]] {
        fs::File::create(world.segment(next)).and_then(|mut f| io::Write::write_all(&mut f, &left)).unwrap();
        let (file, torn) = world.open().unwrap();
        assert_eq!((file.head(), torn.unwrap().segment), (heads[3], next));
        assert!(!world.segment(next).exists());
    }
}

#[test]
fn a_group_with_a_good_checksum_and_a_forged_signature_is_refused() {
    let (world, _) = World::with_groups(2, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    let mut forged = stage(&file, 9);
    forged.group.signature[0] ^= 1;
    file.append(vec![forged]).unwrap();
    let error = world.open().unwrap_err();
    assert!(matches!(&error, FeedFileError::Refused { .. }) && error.is_damage(), "{error:?}");
}

#[test]
fn a_newer_segment_format_is_not_damage() {
    let (world, _) = World::with_groups(2, u64::MAX);
    overwrite(&world.segment(0), |bytes| bytes[4] = 2);
    let error = world.open().unwrap_err();
    assert!(matches!(error, FeedFileError::NewerFormat { format: 2, .. }) && !error.is_damage());
}

#[test]
fn quarantine_keeps_every_damaged_feed_under_a_name_of_its_own() {
    let world = World::new();
    for number in 1..=2 {
        drop(create(&world.feeds, &feed(NODE)).unwrap());
        let path = quarantine(&world.feeds, &feed(NODE)).unwrap();
        assert!(path.ends_with(format!("lantern/bad-{NODE}.{number}")) && path.is_dir());
        assert_eq!(find(&world.feeds).unwrap(), []);
    }
}

/// A file whose next write or fsync fails.
#[derive(Debug)]
struct Failing {
    file: fs::File,
    write: Option<io::Error>,
    cut: Option<io::Error>,
    sync: Option<io::Error>,
}

impl SegmentFile for Failing {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.write.take() {
            Some(error) => {
                self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
                Err(error)
            }
            None => self.file.write_at(bytes, offset),
        }
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.cut.take().map_or_else(|| self.file.cut(length), Err)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync.take().map_or_else(|| self.file.sync(), Err)
    }
}

fn failing(world: &World) -> Failing {
    let file = fs::OpenOptions::new().read(true).write(true).open(world.segment(0)).unwrap();
    Failing { file, write: None, cut: None, sync: None }
}

fn full() -> Option<io::Error> {
    Some(io::Error::from_raw_os_error(28))
}

#[test]
fn a_full_disk_is_typed_loses_nothing_and_passes() {
    let (world, heads) = World::with_groups(2, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    file.replace_file(Box::new(Failing { write: full(), ..failing(&world) }));
    let error = append_one(&mut file, 2).unwrap_err();
    assert!(matches!(&error, AppendError::Io { source, .. } if source.is_no_space()), "{error:?}");
    assert_eq!(file.head(), heads[1]);
    let head = append_one(&mut file, 3).unwrap();
    assert_eq!(world.open().unwrap().0.head(), head);
}

#[test]
fn a_failed_fdatasync_closes_the_feed_for_good() {
    let (world, heads) = World::with_groups(2, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    file.replace_file(Box::new(Failing { sync: full(), ..failing(&world) }));
    for _ in 0..2 {
        let error = append_one(&mut file, 2).unwrap_err();
        assert!(matches!(error, AppendError::Poisoned { .. }), "{error:?}");
        assert_eq!((file.head(), file.index().head()), (heads[1], heads[1]));
    }
}

#[test]
fn what_an_fdatasync_did_not_make_durable_is_not_read_at_the_next_start() {
    let (world, heads) = World::with_groups(2, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    file.replace_file(Box::new(Failing { sync: full(), ..failing(&world) }));
    append_one(&mut file, 2).unwrap_err();
    drop(file);
    let (again, torn) = world.open().unwrap();
    assert_eq!((again.head(), torn), (heads[1], None));
}

#[test]
fn a_start_makes_durable_what_it_reads_or_does_not_open_the_feed() {
    let (world, heads) = World::with_groups(2, u64::MAX);
    let synced = std::cell::Cell::new(0);
    let feed = feed(NODE);
    let sync = |file: &fs::File| {
        synced.set(file.metadata()?.len());
        Ok(())
    };
    let (file, _) = repair::open_syncing(&world.feeds, &feed, &ToyTrust, sync).unwrap();
    assert_eq!(file.head(), heads[1]);
    assert_eq!(synced.get(), fs::metadata(world.segment(0)).unwrap().len());
    let refused = repair::open_syncing(&world.feeds, &feed, &ToyTrust, |_| Err(full().unwrap()));
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(&error, FeedFileError::Io { source, .. } if source.is_no_space()), "{error:?}");
    assert_eq!(world.open().unwrap().0.head(), heads[1], "nothing was changed");
}

#[test]
fn an_append_that_cannot_be_undone_closes_the_feed() {
    let (world, _) = World::with_groups(2, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    file.replace_file(Box::new(Failing { write: full(), cut: full(), ..failing(&world) }));
    assert!(matches!(append_one(&mut file, 2), Err(AppendError::Io { .. })));
    assert!(matches!(append_one(&mut file, 3), Err(AppendError::Poisoned { .. })));
    assert_eq!(world.open().unwrap().1.map(|torn| torn.segment), Some(0), "the next start cuts it off");
}

#[test]
fn many_groups_in_one_append_roll_segments_and_all_count() {
    let world = World::new();
    let mut file = create(&world.feeds, &feed(NODE)).unwrap();
    file.limit_segments(1000);
    let mut reader = file.reader().clone();
    let staged: Vec<Staged> = (0..30)
        .map(|number| {
            let record = Record::Placed(held(1, number)).to_raw();
            let group = reader.seal(vec![record], 1000, &Toy::of(NODE), &ToyTrust);
            reader.accept(&group, &ToyTrust).unwrap();
            Staged { group, after: reader.clone() }
        })
        .collect();
    assert_eq!(file.append(staged).unwrap(), reader.head());
    let (again, torn) = world.open().unwrap();
    assert_eq!((again.head(), torn), (reader.head(), None));
    assert_eq!(file.index().read(0, usize::MAX).unwrap().len(), 30);
}

#[test]
fn the_largest_group_fits_and_a_larger_one_closes_the_feed_unwritten() {
    let (world, _) = World::with_groups(1, u64::MAX);
    let (mut file, _) = world.open().unwrap();
    let mut large = stage(&file, 1);
    large.group.body = vec![0; MAX_GROUP_BYTES + 1];
    assert!(matches!(file.append(vec![large]), Err(AppendError::Poisoned { .. })));
    assert_eq!(world.open().unwrap().1, None);
}
