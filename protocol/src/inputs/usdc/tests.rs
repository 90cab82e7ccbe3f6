use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::inputs::{Find, scanner_of};

/// What the layers in `testdata`, written by OpenUSD, refer to.
pub(in crate::inputs) const LAYOUT: [&str; 13] = [
    "$AVALON_PROJECTS/lantern/film/sh010/publish/light/v001/light.usdc",
    "../../../camera/publish/cameraMain/v002/cameraMain.usda",
    "../../../tree/publish/modelDefault/v001/modelDefault.usda",
    "../../../tree/publish/proxy/v009/proxy.usda",
    "../../../tree/publish/rigDefault/v001/rigDefault.usda",
    "../../animCrowd/v004/animCrowd.usdc",
    "./tex/a.png",
    "/mnt/library/wood.exr",
    "/srv/projects/lantern/assets/robot/publish/modelDefault/v002/modelDefault.usdc",
    "/srv/projects/lantern/assets/robot/publish/textureDefault/v003/robot_diffuse.<UDIM>.exr",
    "/srv/projects/lantern/film/sh010/publish/plate/v001/plate.1001.exr",
    "/srv/projects/lantern/film/sh010/publish/plate/v001/plate.1002.exr",
    "P:\\projects\\lantern\\film\\sh010\\publish\\animRobot\\v003\\animRobot.usdc",
];

const FILE: &[u8] = include_bytes!("../../../testdata/inputs/layout.usdc");

fn scan_bytes(bytes: &[u8]) -> (Vec<String>, Result<(), ScanError>) {
    let mut finds = Finds::default();
    let scanned = scanner_of("layout.usdc").unwrap().scan(&mut Cursor::new(bytes), &mut finds);
    let paths = finds.into_found().into_iter();
    let paths = paths.map(|find| if let Find::Path(path) = find { path } else { panic!("{find:?}") });
    (paths.collect(), scanned)
}

#[test]
fn a_crate_file_that_usd_wrote_gives_the_same_paths_as_the_text_of_it() {
    let (found, scanned) = scan_bytes(FILE);
    scanned.unwrap();
    assert_eq!(found, LAYOUT);
}

#[test]
fn a_version_that_is_not_known_is_refused_and_said() {
    for version in [[0, 3, 0], [1, 0, 0]] {
        let mut bytes = FILE.to_vec();
        bytes[8..11].copy_from_slice(&version);
        assert!(matches!(scan_bytes(&bytes).1, Err(ScanError::Unsupported { .. })), "{version:?}");
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_scanned_or_refused_and_takes_no_more_memory_than_the_limits(
        flips in prop::collection::vec((0..FILE.len(), any::<u8>()), 1..8), cut in 0..FILE.len() * 2,
    ) {
        let mut bytes = FILE.to_vec();
        for (at, value) in flips {
            bytes[at] = value;
        }
        bytes.truncate(cut.max(16));
        scan_bytes(&bytes).1.ok();
    }
}
