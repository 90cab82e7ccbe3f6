//! What every test begins with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use avalon_certs::Identity;
use avalon_store::{
    ledger::{CatalogCare, Ledger, LedgerConfig},
    state_dir::StateDir,
};
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

/// Opens the ledger of a daemon that is stopped.
pub(crate) fn open_ledger(daemon: &Daemon) -> (StateDir, Ledger) {
    let state = StateDir::open(&daemon.config.state_dir).unwrap();
    let identity = Identity::load(&state.root.path().join("identity"), avalon_tests::daemons::now()).unwrap();
    let config = LedgerConfig {
        me: identity.node().clone(),
        signer: identity.signer(),
        trust: Arc::new(identity.trust()),
        projects: vec![(daemon.config.project.parse().unwrap(), None)],
        on_change: Arc::new(drop),
        now: Arc::new(Duration::default),
        extract: None,
        max_feed_bytes: u64::MAX,
        care: CatalogCare::default(),
    };
    let (ledger, _) = Ledger::open(&state, config).unwrap();
    (state, ledger)
}
