#![expect(clippy::disallowed_methods, reason = "files are made as anybody makes them")]

use std::{fs, path::Path, process::Command};

use avalon_protocol::{
    control::{FileItem, InfoReply, MissingInput, MissingReason, PlanState, Presence, PullReply},
    hash::ObjectHash,
    manifest::Completeness,
};
use serde_json::Value;

use crate::fake::{FakeDaemon, item};

/// A daemon that has `robot/modelDefault@v002`, with two files beneath `source`.
fn daemon(source: &Path, missing: Vec<MissingInput>) -> FakeDaemon {
    let files: [(&str, &[u8]); 2] = [("model.abc", b"a model"), ("tex/a b.exr", b"a texture")];
    for (path, content) in files {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let daemon = FakeDaemon::start();
    daemon.on(
        "POST /v1/pull",
        &PullReply { missing, ..crate::fake::pull_reply(&[item(PlanState::Here, None)]) },
    );
    daemon.on(
        "GET /v1/info",
        &InfoReply {
            schema: "avalonctl.info/1".into(),
            reference: "lantern:robot/modelDefault@v002".into(),
            manifest: "m2".into(),
            generation: 1,
            completeness: Completeness::Explicit,
            author: "anna".into(),
            node: "ws1@london".into(),
            comment: String::new(),
            published: "2026-11-22T10:00:00Z".into(),
            path: Some(source.to_str().unwrap().into()),
            dir: "assets/robot/publish/modelDefault/v002".into(),
            here: Presence::Complete,
            files_here: 1,
            some_here: Vec::new(),
            growing: Vec::new(),
            files: files
                .iter()
                .map(|(path, content)| FileItem {
                    path: (*path).into(),
                    bytes: content.len() as u64,
                    hash: ObjectHash::of(content).to_string(),
                    representation: "abc".into(),
                })
                .collect(),
            inputs: Vec::new(),
            metadata: Default::default(),
            problems: Vec::new(),
            retired: None,
        },
    );
    daemon
}

#[test]
fn a_package_has_its_files_in_the_projects_layout_and_plain_tools_accept_its_sums() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("client/package");
    fs::create_dir_all(&to).unwrap();
    let daemon = daemon(&dir.path().join("source"), Vec::new());
    let deliver = ["deliver", "robot/modelDefault", "--to", to.to_str().unwrap()];
    let dry = daemon.run(&[&deliver[..], &["-n"]].concat());
    assert_eq!((dry.exit, fs::read_dir(&to).unwrap().count()), (0, 0), "{dry:?}");
    let ran = daemon.run(&deliver);
    assert_eq!((ran.exit, ran.stdout), (0, format!("{}\n", to.display())), "{}", ran.stderr);
    let model = to.join("lantern/assets/robot/publish/modelDefault/v002/model.abc");
    assert_eq!(fs::read(&model).unwrap(), b"a model");
    let check = || {
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&to)
            .output()
            .unwrap()
    };
    let checked = check();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(String::from_utf8(checked.stdout).unwrap().lines().count(), 3);
    let line =
        format!("{}  lantern/assets/robot/publish/modelDefault/v002/model.abc", ObjectHash::of(b"a model"));
    assert!(fs::read_to_string(to.join("BLAKE3SUMS")).unwrap().lines().any(|l| l == line));
    let manifest: Value = serde_json::from_slice(&fs::read(to.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(
        (&manifest["schema"], &manifest["versions"][0]["files"][0]["bytes"]),
        (&"avalonctl.package/1".into(), &7.into())
    );
    fs::write(&model, b"a model?").unwrap();
    assert!(!check().status.success(), "the sums would be worth nothing");
    assert!(!dir.path().join("client/package.part").exists());
    let again = daemon.run(&deliver);
    assert!(again.exit == 2 && again.stderr.contains("not an empty directory"), "{again:?}");
}

#[test]
fn a_flat_package_has_one_directory_for_each_version() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("package");
    let daemon = daemon(&dir.path().join("source"), Vec::new());
    let ran =
        daemon.run(&["deliver", "robot/modelDefault", "--flat", "--to", to.to_str().unwrap(), "--json"]);
    assert_eq!((ran.exit, &ran.json()["files"]), (0, &2.into()), "{ran:?}");
    assert_eq!(fs::read(to.join("robot_modelDefault_v002/tex/a b.exr")).unwrap(), b"a texture");
}

#[test]
fn a_file_that_is_not_what_was_published_is_not_delivered_and_the_package_goes_on_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (source, to) = (dir.path().join("source"), dir.path().join("package"));
    let daemon = daemon(&source, Vec::new());
    fs::write(source.join("tex/a b.exr"), b"b texture").unwrap();
    let deliver = ["deliver", "robot/modelDefault", "--to", to.to_str().unwrap(), "--json"];
    let ran = daemon.run(&deliver);
    assert_eq!(ran.exit, 8, "{ran:?}");
    assert!(!to.exists() && ran.error().message.contains("is not what was published"), "{ran:?}");
    fs::write(source.join("tex/a b.exr"), b"a texture").unwrap();
    let refused = daemon.run(&deliver);
    assert!(refused.exit == 2 && refused.error().hint.unwrap().contains("--resume"));
    let resumed = daemon.run(&[&deliver[..], &["--resume"]].concat());
    assert_eq!((resumed.exit, &resumed.json()["kept"]), (0, &1.into()), "{resumed:?}");
}

#[test]
fn what_is_not_here_is_said_and_what_is_missing_of_the_inputs_makes_it_partial() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("package");
    let away = FakeDaemon::start();
    away.on("POST /v1/pull", &crate::fake::pull_reply(&[item(PlanState::Fetch, None)]));
    let ran = away.run(&["deliver", "robot/modelDefault", "--to", to.to_str().unwrap()]);
    assert!(
        ran.exit == 4
            && ran.stderr.contains("1 version is not here, 1.5 GiB to fetch")
            && ran.stderr.contains("--pull"),
        "{ran:?}"
    );
    let missing = MissingInput {
        input: "/mnt/wood.exr".into(),
        needed_by: "lantern:robot/modelDefault@v002".into(),
        why: MissingReason::NotPublished,
    };
    let daemon = daemon(&dir.path().join("source"), vec![missing]);
    let ran = daemon.run(&[
        "deliver",
        "robot/modelDefault",
        "--with-inputs",
        "--to",
        to.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!((ran.exit, &ran.json()["missing"][0]["input"]), (3, &"/mnt/wood.exr".into()), "{ran:?}");
    assert!(fs::read_to_string(to.join("manifest.json")).unwrap().contains("/mnt/wood.exr"));
}

#[test]
fn what_another_package_left_when_it_was_cut_off_does_not_come_into_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("package");
    let daemon = daemon(&dir.path().join("source"), Vec::new());
    let part = dir.path().join("package.part/lantern/assets/robot/publish");
    let other = part.join("rigDefault/v001/rig.ma");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, b"half a ri").unwrap();
    let resume = ["deliver", "robot/modelDefault", "--resume", "--to", to.to_str().unwrap(), "--json"];
    let ran = daemon.run(&resume);
    assert!(ran.exit == 2 && ran.error().message.contains("rig.ma is not of this package"), "{ran:?}");
    assert!(other.is_file() && !to.exists());
    fs::remove_dir_all(part.join("rigDefault")).unwrap();
    // Nor does a link, whatever it leads to.
    let model = part.join("modelDefault/v002/model.abc");
    fs::create_dir_all(model.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(dir.path().join("source/model.abc"), &model).unwrap();
    assert_eq!(daemon.run(&resume).exit, 2);
    fs::remove_file(&model).unwrap();
    assert_eq!(daemon.run(&resume).exit, 0);
}
