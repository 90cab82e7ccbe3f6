use std::{fs, io::Write as _, path::Path};

use avalon_protocol::mode::ProjectMode;
use avalon_store::fs::FileStat;

use super::*;
use crate::fixture::{Node, Studio, manifest, version};

const DIR: &str = "assets/robot/publish/modelDefault/v002";
/// Saved by Blender 5.0, compressed; see the tests of the scanner.
const BLEND: &[u8] = include_bytes!("../../../../protocol/testdata/inputs/layout.blend");

fn write(node: &Node, name: &str, content: &[u8]) {
    let path = node.dir.join(DIR).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap().write_all(content).unwrap();
}

fn named(node: &Node, name: &str) -> NamedFile {
    let path = Path::new(DIR).join(name);
    let content = fs::read(node.dir.join(&path)).unwrap();
    NamedFile {
        inside: name.parse().unwrap(),
        path: path.to_str().unwrap().parse().unwrap(),
        object: ObjectHash::of(&content),
        stat: FileStat::from(&fs::metadata(node.dir.join(&path)).unwrap()),
        is_fresh: true,
    }
}

async fn gathered(node: &Node, files: &[&str], given: &[&str], grown_from: Option<Manifest>) -> Gathered {
    let files: Vec<NamedFile> = files.iter().map(|name| named(node, name)).collect();
    let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
    let (version, dir) = (version(2), DIR.parse().unwrap());
    let grown_from = grown_from.map(Arc::new);
    let publishing = Publishing { version: &version, dir: &dir, files: &files, given: &given, grown_from };
    gather(&node.core, &node.project().dir().unwrap(), &publishing).await
}

fn scene(paths: &[&str]) -> Vec<u8> {
    let lines = paths.iter().map(|path| format!("file -r -typ \"mayaAscii\" \"{path}\";\n"));
    lines.collect::<String>().into_bytes()
}

#[tokio::test]
async fn what_was_said_comes_first_then_the_sidecar_then_what_the_files_refer_to_each_once() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let at_london = node.dir.join("assets/robot/publish/look/v003/look.ma");
    let paths =
        ["../../rig/v001/rig.ma", at_london.to_str().unwrap(), "../../tex/v001/a.1001.exr", "/mnt/wood.exr"];
    write(&node, "modelDefault.ma", &scene(&paths));
    write(&node, "modelDefault.abc", b"/mnt/nothing.ma");
    write(&node, SIDECAR, b"# exporter 1.2\nrobot/rig@v001\nlantern:sh010/cam/ma@2\n/mnt/plate.exr\n");
    let found =
        gathered(&node, &["modelDefault.abc", "modelDefault.ma"], &["robot/tex/exr@v001"], None).await;
    assert_eq!(
        found.inputs,
        [
            "robot/tex/exr@v001",
            "robot/rig@v001",
            "sh010/cam/ma@v002",
            "/mnt/plate.exr",
            "robot/rig/ma@v001",
            "/mnt/wood.exr",
            "robot/look/ma@v003",
        ]
    );
    assert_eq!(found.incomplete, None);
    assert_eq!(found.messages, [""; 0]);
}

#[tokio::test]
async fn a_compressed_scene_is_looked_into() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    write(&node, "modelDefault.blend", BLEND);
    let found = gathered(&node, &["modelDefault.blend"], &[], None).await;
    assert_eq!(found.incomplete, None);
    assert!(found.inputs.contains(&"/mnt/library/wood.exr".to_owned()), "{found:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_and_the_others_are_looked_into() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    write(&node, "a.usdc", b"no layer at all");
    write(&node, "b.blend", &BLEND[..BLEND.len() / 2]);
    write(&node, "c.ma", &scene(&["../../rig/v001/rig.ma"]));
    write(&node, SIDECAR, b"robot/look@v001\n\xff\n");
    let found = gathered(&node, &["a.usdc", "b.blend", "c.ma"], &[], None).await;
    assert_eq!(found.inputs, ["robot/look@v001", "robot/rig/ma@v001"]);
    let incomplete = found.incomplete.unwrap();
    for said in [".avalon-inputs: line 2", "a.usdc: ", "b.blend: "] {
        assert!(incomplete.contains(said), "{said} in {incomplete}");
    }
}

#[tokio::test]
async fn a_version_that_grew_keeps_its_inputs_and_only_new_files_are_looked_into() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    write(&node, "modelDefault.ma", &scene(&["../../rig/v001/rig.ma"]));
    write(&node, "later.ma", &scene(&["../../look/v001/look.ma"]));
    let mut draft = manifest(2, b"").draft().clone();
    draft.files[0].path = "modelDefault.ma".parse().unwrap();
    draft.files[0].hash = named(&node, "modelDefault.ma").object;
    draft.representations[0].entry = "modelDefault.ma".parse().unwrap();
    draft.inputs = vec!["said/before".into()];
    let before = draft.finish().unwrap();
    let found = gathered(&node, &["later.ma", "modelDefault.ma"], &[], Some(before)).await;
    assert_eq!(found.inputs, ["said/before", "robot/look/ma@v001"]);
}

#[test]
fn a_budget_of_bytes_and_of_time_ends_a_file_that_is_too_long() {
    use crate::clock::{Clock as _, ManualClock};
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.ma");
    fs::File::create(&path).unwrap().write_all(&vec![b'x'; 200 << 10]).unwrap();
    let clock = ManualClock::default();
    let read = |budget: &Budget<'_>| {
        let mut all = Vec::new();
        FileSource::new(fs::File::open(&path).unwrap(), budget).read_to_end(&mut all).map_err(|e| e.kind())
    };
    let until = clock.monotonic() + FILE_TIME;
    assert_eq!(read(&Budget::new(&clock, until, 1 << 20)), Ok(200 << 10));
    assert_eq!(read(&Budget::new(&clock, until, 100 << 10)), Err(std::io::ErrorKind::FileTooLarge));
    clock.advance(FILE_TIME * 2);
    assert_eq!(read(&Budget::new(&clock, until, 1 << 20)), Err(std::io::ErrorKind::TimedOut));
}

#[test]
fn a_file_is_read_and_sought_as_one_in_memory_is() {
    use std::io::{Cursor, Seek as _, SeekFrom};
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a");
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::File::create(&path).unwrap().write_all(&content).unwrap();
    let clock = crate::clock::ManualClock::default();
    let budget = Budget::new(&clock, Duration::from_secs(9), u64::MAX);
    let mut file = FileSource::new(fs::File::open(&path).unwrap(), &budget);
    let mut memory = Cursor::new(&content);
    for step in [SeekFrom::Current(4), SeekFrom::Current(40_000), SeekFrom::Start(12), SeekFrom::End(-10)] {
        let (mut one, mut other) = ([0; 6], [0; 6]);
        assert_eq!(file.seek(step).unwrap(), memory.seek(step).unwrap());
        file.read_exact(&mut one).unwrap();
        memory.read_exact(&mut other).unwrap();
        assert_eq!(one, other);
    }
    assert!(file.seek(SeekFrom::Current(-900_000)).is_err());
    assert!(file.seek(SeekFrom::Start(u64::MAX)).is_err());
}
