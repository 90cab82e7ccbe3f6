//! What every test begins with.

use std::path::{Path, PathBuf};

use avalon_tests::daemons::{Programs, Studio, daemon::Daemon, tree};

pub(crate) const LONDON: &str = "srv@london";
pub(crate) const MONTREAL: &str = "srv@montreal";
pub(crate) const HOME: &str = "ws1@home";

/// 24 frames of a rendered sequence, and the second version of it.
pub(crate) const BEAUTY: &str = "film/sh010/publish/beauty";
pub(crate) const BEAUTY_V1: &str = "lantern:sh010/beauty@v001";
pub(crate) const BEAUTY_V2: &str = "lantern:sh010/beauty@v002";

/// Where versions of a model lie that tests make.
pub(crate) const MODEL: &str = "assets/robot/publish/modelDefault";

pub(crate) fn programs() -> Programs {
    Programs {
        avalond: PathBuf::from(env!("CARGO_BIN_EXE_e2e-avalond")),
        avalonctl: PathBuf::from(env!("CARGO_BIN_EXE_e2e-avalonctl")),
    }
}

pub(crate) fn studio() -> Studio {
    Studio::new(programs())
}

/// A small piece of a real show.
pub(crate) fn show() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/lantern")
}

/// Publishes a version of the show by copying it into a node's project, and waits until it is recorded.
pub(crate) fn publish_beauty(daemon: &Daemon, version: &str) {
    let inside = format!("{BEAUTY}/{version}");
    let mut events = daemon.events();
    tree::copy(&show().join(&inside), &daemon.path(&inside));
    events.published(&format!("lantern:sh010/beauty@{version}"));
}

/// Publishes a model of one file by an explicit call, and returns the version's directory.
pub(crate) fn publish_model(daemon: &Daemon, version: u32, content: &[u8]) -> PathBuf {
    let dir = daemon.path(&format!("{MODEL}/v{version:03}"));
    tree::write(&dir.join("modelDefault.usdc"), content);
    let item = daemon.api().publish(&dir);
    assert_eq!(item.error, None, "{item:?}");
    dir
}

pub(crate) fn model(version: u32) -> String {
    format!("lantern:robot/modelDefault@v{version:03}")
}
