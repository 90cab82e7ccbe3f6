//! The commands, with files in temporary directories.

use avalon_certs::Identity;

use std::os::unix::fs::PermissionsExt as _;

use avalon_certs::{IssuingAuthority, NodeKey};

use super::*;
use crate::fake::run;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "what a test writes needs no durability")]
fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::write(path, content).unwrap();
}

fn phrase_file(dir: &Path, name: &str, phrase: &str) -> String {
    let path = dir.join(name);
    write(&path, format!("{phrase}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    text(&path).to_owned()
}

#[test]
fn a_studio_is_made_shown_and_issues_an_identity_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("state/identity"));
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
    let ran = run(&["ca", "init", "--studio", "northlight", "--dir", ca]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("studio       northlight\nfingerprint  "), "{ran:?}");

    let shown = run(&["ca", "show", "--dir", ca, "--json"]).json();
    assert_eq!((&shown["schema"], &shown["studio"]), (&"avalonctl.ca/1".into(), &"northlight".into()));
    assert!(ran.stdout.contains(shown["fingerprint"].as_str().unwrap()));

    let issue = ["ca", "issue", "--dir", ca, "--node", "ws12", "--site", "london", "--out", out];
    let issued = run(&[&issue[..], &["--days", "30", "--json"]].concat()).json();
    assert_eq!((&issued["node"], &issued["site"]), (&"ws12".into(), &"london".into()));
    let identity = Identity::load(out.as_ref(), now()).unwrap();
    assert_eq!(identity.node().to_string(), "ws12@london");
    assert_eq!(issued["expires"], utc(identity.expires_at()));
    let ran = run(&issue);
    assert!(ran.stdout.starts_with("ws12@london  workstation  valid until 20"), "{ran:?}");
}

#[test]
fn what_must_not_be_overwritten_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().to_str().unwrap();
    assert_eq!(run(&["ca", "init", "--studio", "a", "--dir", ca]).exit, 0);
    let ran = run(&["ca", "init", "--studio", "b", "--dir", ca, "--json"]);
    assert_eq!((ran.exit, ran.error().code), (2, ErrorCode::BadRequest));
    assert!(ran.error().message.contains("exists already"), "{ran:?}");
    assert_eq!(run(&["ca", "init", "--studio", "Not A Label", "--dir", ca]).exit, 2);
    let ran = run(&["ca", "show", "--dir", "/nowhere"]);
    assert_eq!(ran.exit, 9);
    assert!(ran.stderr.contains("avalonctl ca init"), "{ran:?}");
}

#[test]
fn a_role_is_given_by_name_and_no_other_word_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("identity"));
    assert_eq!(run(&["ca", "init", "--studio", "a", "--dir", text(&ca)]).exit, 0);
    let issue = [
        "ca",
        "issue",
        "--dir",
        text(&ca),
        "--node",
        "srv",
        "--site",
        "london",
        "--out",
        text(&out),
        "--json",
    ];
    assert_eq!(run(&issue).json()["role"], "workstation");
    assert_eq!(run(&[&issue[..], &["--role", "admin"]].concat()).json()["role"], "admin");
    assert_eq!(Identity::load(&out, now()).unwrap().role(), Role::Admin);
    let ran = run(&[&issue[..], &["--role", "boss"]].concat());
    assert_eq!(ran.exit, 2);
    assert!(ran.stderr.contains("the roles are admin, site, workstation, farm and vendor"), "{ran:?}");
}

#[test]
fn a_key_under_a_passphrase_is_used_with_it_alone_and_shown_without() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("identity"));
    let first = phrase_file(dir.path(), "first", "correct horse battery");
    let second = phrase_file(dir.path(), "second", "staple of the drawer");
    let short = phrase_file(dir.path(), "short", "seven77");
    let init = ["ca", "init", "--studio", "a", "--dir", text(&ca), "--passphrase-file"];
    assert_eq!(run(&[&init[..], &[&short]].concat()).exit, 2);
    assert!(!ca.exists());
    assert_eq!(run(&[&init[..], &[&first]].concat()).exit, 0);
    assert_eq!(run(&["ca", "show", "--dir", text(&ca)]).exit, 0);

    let issue = ["ca", "issue", "--dir", text(&ca), "--node", "srv", "--site", "london", "--out", text(&out)];
    let with = |file: &str| run(&[&issue[..], &["--passphrase-file", file]].concat());
    let ran = run(&issue);
    assert_eq!(ran.exit, 9);
    assert!(ran.stderr.contains("needs its passphrase"), "{ran:?}");
    let ran = with(&second);
    assert_eq!(ran.exit, 9);
    assert!(ran.stderr.contains("the passphrase does not open the key of the studio CA"), "{ran:?}");
    assert_eq!(with(&first).exit, 0);

    let change = ["ca", "passphrase", "--dir", text(&ca), "--passphrase-file", &first];
    let ran = run(&[&change[..], &["--new-passphrase-file", &second, "--json"]].concat()).json();
    assert_eq!(ran["encrypted"], true);
    assert_eq!((with(&first).exit, with(&second).exit), (9, 0));
    let remove = ["ca", "passphrase", "--dir", text(&ca), "--passphrase-file", &second, "--remove"];
    assert_eq!(run(&remove).exit, 0);
    assert_eq!(run(&issue).exit, 0);

    std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(&["ca", "passphrase", "--dir", text(&ca), "--new-passphrase-file", &first]);
    assert_eq!(ran.exit, 9);
    assert!(ran.stderr.contains("can be read by other users"), "{ran:?}");
}

#[test]
fn a_node_is_let_issue() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, out) = (dir.path().join("ca"), dir.path().join("identity"));
    assert_eq!(run(&["ca", "init", "--studio", "a", "--dir", text(&ca)]).exit, 0);
    let delegate = ["ca", "delegate", "--dir", text(&ca), "--node", "srv@london", "--out", text(&out)];
    let answer = run(&[&delegate[..], &["--days", "7", "--json"]].concat()).json();
    assert_eq!(answer["node"], "srv@london");
    let issuing = IssuingAuthority::open(&out).unwrap().unwrap();
    assert_eq!(answer["expires"], utc(issuing.expires_at()));
    assert_eq!(run(&["ca", "delegate", "--dir", text(&ca), "--node", "srv", "--out", text(&out)]).exit, 2);
}

#[test]
fn a_request_is_signed_as_who_signs_says() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, csr) = (dir.path().join("ca"), dir.path().join("ws1.csr"));
    assert_eq!(run(&["ca", "init", "--studio", "a", "--dir", text(&ca)]).exit, 0);
    let key = NodeKey::generate().unwrap();
    let request = key.request(&"boss@london".parse().unwrap()).unwrap();
    write(&csr, request.pem().unwrap());
    let sign = ["ca", "sign", "--dir", text(&ca), "--request", text(&csr), "--role", "farm"];
    let ran = run(&sign);
    assert_eq!(ran.exit, 2);
    assert!(ran.stderr.contains("the request asks to be boss@london"), "{ran:?}");
    assert!(ran.stderr.contains("--node boss --site london"), "{ran:?}");
    let answer = run(&[&sign[..], &["--node", "ws1", "--site", "home", "--json"]].concat()).json();
    assert_eq!((&answer["node"], &answer["role"]), (&"ws1@home".into(), &"farm".into()));
    let bundle = dir.path().join("ws1.pem");
    assert_eq!(answer["certificate"], text(&bundle));
    let (chain, root) = avalon_certs::Chain::read_bundle(&bundle).unwrap();
    let out = dir.path().join("identity");
    avalon_certs::install(&out, &key, &chain, root, now()).unwrap();
    assert_eq!(Identity::load(&out, now()).unwrap().node().to_string(), "ws1@home");

    write(&csr, "no request");
    let ran = run(&[&sign[..], &["--node", "ws1", "--site", "home"]].concat());
    assert_eq!(ran.exit, 2);
    assert!(ran.stderr.contains("not a request that can be signed"), "{ran:?}");
}
