#![expect(clippy::disallowed_methods, reason = "files are made as anybody makes them")]

use std::{fs, path::Path};

use avalon_protocol::control::{DestinationReply, PublishItem, PublishReply, PublishState};
use serde_json::Value;

use crate::fake::{FakeDaemon, Ran};

const SHA_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

struct Studio {
    dir: tempfile::TempDir,
    daemon: FakeDaemon,
}

impl Studio {
    /// A daemon that says where the version goes.
    fn new(entry: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = FakeDaemon::start();
        daemon.on(
            "GET /v1/destination",
            &DestinationReply {
                schema: "avalonctl.destination/1".into(),
                reference: "lantern:sh010/plate@v003".into(),
                path: dir.path().join("film/sh010/publish/plate/v003").to_str().unwrap().into(),
                entry: entry.map(str::to_owned),
            },
        );
        let item = PublishItem {
            reference: "lantern:sh010/plate@v003".into(),
            state: PublishState::Published,
            messages: Vec::new(),
            error: None,
            generation: 1,
            manifest: "m3".into(),
            files: 1,
            bytes: 3,
            problems: Vec::new(),
        };
        daemon.on(
            "POST /v1/publish",
            &PublishReply { schema: "avalonctl.publish/1".into(), versions: vec![item] },
        );
        Self { dir, daemon }
    }

    fn material(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join("from").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn ingest(&self, args: &[&str]) -> Ran {
        let from = self.dir.path().join("from");
        self.daemon.run(&[&["ingest", from.to_str().unwrap(), "--as", "sh010/plate"], args].concat())
    }

    fn version(&self) -> std::path::PathBuf {
        self.dir.path().join("film/sh010/publish/plate/v003")
    }

    fn names_beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.version().parent().unwrap());
        entries.map_or(Vec::new(), |all| all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
    }
}

#[test]
fn material_is_verified_by_its_checksums_put_in_place_and_published() {
    let studio = Studio::new(Some("plate.exr"));
    studio.material("plate.1001.exr", "abc");
    studio.material("more/notes.txt", "notes");
    studio.material(".DS_Store", "litter");
    studio.material("SHA256SUMS", &format!("{SHA_OF_ABC} *plate.1001.exr\n"));
    let ran = studio.ingest(&["--representation", "exr", "-m", "from the client", "--meta", "family=plate"]);
    assert_eq!(
        (ran.exit, ran.stdout.as_str()),
        (0, "lantern:sh010/plate@v003\tpublished\t1\tm3\n"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("1 of 2 files are what SHA256SUMS says"), "{}", ran.stderr);
    assert_eq!(fs::read(studio.version().join("plate.exr/plate.1001.exr")).unwrap(), b"abc");
    assert_eq!(fs::read(studio.version().join("plate.exr/more/notes.txt")).unwrap(), b"notes");
    assert_eq!(fs::read_dir(studio.version().join("plate.exr")).unwrap().count(), 2, "and nothing else");
    assert_eq!(studio.names_beside(), ["v003"]);
    let requests = studio.daemon.requests();
    assert!(
        requests[0].starts_with("GET /v1/destination?ref=sh010%2Fplate&representation=exr"),
        "{requests:?}"
    );
    let body: Value = serde_json::from_str(requests[1].strip_prefix("POST /v1/publish ").unwrap()).unwrap();
    assert_eq!(body["comment"], "from the client");
    assert_eq!(body["metadata"]["ingested_from"], studio.dir.path().join("from").to_str().unwrap());
    assert_eq!(body["metadata"]["ingested_verified"], "1 by SHA256SUMS");
}

#[test]
fn a_single_file_gets_the_name_that_the_template_gives() {
    let studio = Studio::new(Some("plate.mov"));
    let path = studio.material("Client Edit FINAL.MOV", "abc");
    let ran = studio.daemon.run(&["ingest", &path, "--as", "sh010/plate", "--json"]);
    let json = ran.json();
    assert_eq!(
        (ran.exit, &json["verified"], &json["published"]["versions"][0]["state"]),
        (0, &0.into(), &"published".into())
    );
    assert_eq!(fs::read(studio.version().join("plate.mov")).unwrap(), b"abc");
    assert!(studio.daemon.requests()[0].contains("representation=mov"));
}

/// Expects a refusal that leaves nothing behind.
#[track_caller]
fn refused(studio: &Studio, exit: u8, why: &str) {
    let ran = studio.ingest(&[]);
    assert!(ran.exit == exit && ran.stderr.contains(why), "{ran:?}");
    assert_eq!(studio.names_beside(), [""; 0], "nothing is left");
}

#[test]
fn what_is_damaged_missing_or_cannot_be_published_is_refused_and_leaves_nothing() {
    let studio = Studio::new(None);
    studio.material("plate.1001.exr", "abd");
    studio.material("plates.sha256", &format!("{SHA_OF_ABC}  ./plate.1001.exr\n"));
    refused(&studio, 8, "plate.1001.exr is not what plates.sha256 says");
    studio.material("plates.sha256", &format!("{SHA_OF_ABC}  plate.1002.exr\n"));
    refused(&studio, 2, "plate.1002.exr has a checksum and is not in");
    studio.material("plates.sha256", "nonsense\n");
    refused(&studio, 2, "plates.sha256: line 1 has no checksum");
    fs::remove_file(studio.dir.path().join("from/plates.sha256")).unwrap();
    studio.material("plate.1002.exr.part", "a");
    refused(&studio, 2, "somebody is still at work");
    fs::remove_file(studio.dir.path().join("from/plate.1002.exr.part")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", studio.dir.path().join("from/link.exr")).unwrap();
    refused(&studio, 2, "link.exr is a link");
}

#[test]
fn nothing_is_replaced_and_a_dry_run_makes_nothing() {
    let studio = Studio::new(None);
    studio.material("a.exr", "abc");
    let dry = studio.ingest(&["-n"]);
    assert!(dry.exit == 0 && dry.stdout.starts_with("lantern:sh010/plate@v003\t/"), "{dry:?}");
    assert_eq!(studio.names_beside(), [""; 0]);
    fs::create_dir_all(studio.version()).unwrap();
    fs::write(Path::new(&studio.version()).join("theirs.exr"), b"theirs").unwrap();
    let ran = studio.ingest(&[]);
    assert!(ran.exit != 0 && ran.stderr.contains("put the version in its place"), "{ran:?}");
    assert_eq!(studio.names_beside(), ["v003"]);
    assert!(!studio.daemon.requests().iter().any(|request| request.starts_with("POST")));
}

#[test]
fn names_that_are_one_on_other_systems_are_refused_before_they_take_a_number() {
    let studio = Studio::new(None);
    studio.material("Plate.exr", "abc");
    studio.material("plate.exr", "abd");
    refused(&studio, 2, "are one name where case or Unicode composition is ignored");
    assert!(!studio.daemon.requests().iter().any(|request| request.starts_with("POST")));
}

#[test]
fn what_an_ingest_left_that_was_killed_is_named() {
    let studio = Studio::new(None);
    studio.material("a.exr", "abc");
    let left = studio.version().with_file_name(".avalon-ingest-Xy12ab");
    fs::create_dir_all(&left).unwrap();
    let ran = studio.ingest(&[]);
    let said = format!("{} is of an ingest that runs, or was killed", left.display());
    assert!(ran.exit == 0 && ran.stderr.contains(&said), "{ran:?}");
    assert!(left.is_dir(), "another one may work on it");
}
