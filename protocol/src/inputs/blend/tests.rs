use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::inputs::Find;

/// Saved by Blender 5.0, with one linked library, three images of which one is packed, and compressed with zstd.
const FILE: &[u8] = include_bytes!("../../../testdata/inputs/layout.blend");

fn scan(bytes: &[u8]) -> (Vec<String>, Result<(), ScanError>) {
    let mut finds = Finds::default();
    let scanned = Blend.scan(&mut Cursor::new(bytes), &mut finds);
    let paths = finds.into_found().into_iter();
    let paths = paths.map(|find| if let Find::Path(path) = find { path } else { panic!("{find:?}") });
    (paths.collect(), scanned)
}

#[test]
fn libraries_and_images_are_found_and_what_is_packed_is_not() {
    let file = zstd::decode_all(FILE).unwrap();
    let (found, scanned) = scan(&file);
    scanned.unwrap();
    assert_eq!(
        found,
        [
            "./../../../../assets/robot/publish/modelDefault/v002/modelDefault.blend",
            "./../../../../assets/robot/publish/textureDefault/v003/robot_diffuse.<UDIM>.exr",
            "/mnt/library/wood.exr",
        ]
    );
}

/// A file as Blender wrote it before 5.0: one library of which `name` is what the user wrote.
fn old(pointer: char, order: char) -> Vec<u8> {
    let pointer_bytes: usize = if pointer == '_' { 4 } else { 8 };
    let mut library = vec![0; pointer_bytes];
    for path in ["//../lib.blend", "/made/of/it.blend"] {
        let mut text = path.as_bytes().to_vec();
        text.resize(24, 0);
        library.extend(text);
    }
    let mut dna = b"SDNANAME\x03\0\0\0*data\0name[24]\0filepath[4][6]\0".to_vec();
    dna.resize(dna.len().next_multiple_of(4), 0);
    dna.extend(b"TYPE\x02\0\0\0void\0char\0");
    dna.resize(dna.len().next_multiple_of(4), 0);
    dna.extend(b"TLEN\0\0\x01\0STRC\x01\0\0\0\0\0\x03\0\0\0\0\0\x01\0\x01\0\x01\0\x02\0");
    let mut file = format!("BLENDER{pointer}{order}279").into_bytes();
    for (code, content) in [(b"REND", b"".as_slice()), (b"LI\0\0", &library), (b"DNA1", &dna), (b"ENDB", b"")]
    {
        file.extend(code);
        file.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        file.extend(vec![7; pointer_bytes]);
        file.extend([0; 4]);
        file.extend([1, 0, 0, 0]);
        file.extend(content);
    }
    file
}

#[test]
fn older_files_of_both_sizes_of_pointers_are_read_and_big_endian_ones_refused() {
    for pointer in ['_', '-'] {
        let (found, scanned) = scan(&old(pointer, 'v'));
        scanned.unwrap();
        assert_eq!(found, ["./../lib.blend"]);
        assert!(matches!(scan(&old(pointer, 'V')).1, Err(ScanError::Unsupported { .. })));
    }
    assert!(matches!(scan(b"BLENDER19-02v0600").1, Err(ScanError::Unsupported { .. })));
    assert!(matches!(scan(FILE).1, Err(ScanError::Malformed { .. })), "compressed");
}

#[test]
fn a_file_that_is_cut_says_so() {
    let whole = old('-', 'v');
    for length in [8, 20, 60, whole.len() - 60] {
        assert!(scan(&whole[..length]).1.is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_scanned_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = old('-', 'v');
        for (at, value) in flips {
            let at = at.index(file.len());
            file[at] = value;
        }
        scan(&file).1.ok();
    }
}
