//! A scene with all that it was made from.

use std::path::PathBuf;

use avalon_protocol::exit_code::ExitCode;
use avalon_tests::daemons::{daemon::Daemon, tree};
use serde_json::{Value, json};

use crate::support::{BEAUTY_V1, HOME, LONDON, MONTREAL, model, publish_beauty, publish_model, studio};

const TEXTURES: &str = "assets/robot/publish/textureDefault/v001";
const LOOK: &str = "assets/robot/publish/lookDefault/v001";
const LAYOUT: &str = "film/sh010/publish/layoutMain/v001";
/// Where a texture lies that nobody publishes.
const WOOD: &str = "/mnt/library/wood.exr";

/// Publishes a version directory by command, with more arguments, and returns what was said.
fn publish(daemon: &Daemon, dir: &str, more: &[&str]) -> Value {
    let path: PathBuf = daemon.path(dir);
    let args = [&["publish", path.to_str().unwrap(), "--json"], more].concat();
    let published: Value = serde_json::from_str(&daemon.ctl(&args).stdout).unwrap();
    published["versions"][0].clone()
}

/// A layout (USD) of a look (Maya) of textures; with a model by its sidecar, a sequence by hand, and two inputs that
/// nobody can fetch.
fn publish_chain(london: &Daemon) -> Value {
    publish_beauty(london, "v001");
    publish_model(london, 1, &tree::noise(1, 50_000));
    for tile in [1001, 1002] {
        tree::write(
            &london.path(&format!("{TEXTURES}/robot_diffuse.{tile}.exr")),
            &tree::noise(tile, 30_000),
        );
    }
    publish(london, TEXTURES, &[]);
    let texture = format!("{}/robot_diffuse.<UDIM>.exr", london.path(TEXTURES).display());
    let look = format!("setAttr \".ftn\" -type \"string\" \"{texture}\";\n// End of lookDefault.ma\n");
    tree::write(&london.path(&format!("{LOOK}/lookDefault.ma")), look.as_bytes());
    publish(london, LOOK, &[]);
    let layer = format!(
        "#usda 1.0\n(subLayers = [@../../../../../{LOOK}/lookDefault.ma@])\ndef \"a\" {{ asset f = @{WOOD}@ }}\n"
    );
    tree::write(&london.path(&format!("{LAYOUT}/layoutMain.usda")), layer.as_bytes());
    tree::write(
        &london.path(&format!("{LAYOUT}/.avalon-inputs")),
        b"# by the exporter\nrobot/modelDefault\n",
    );
    publish(london, LAYOUT, &["--input", "sh010/beauty@v001", "--input", "robot/ghost@v003"])
}

fn refs(reply: &Value) -> Vec<&str> {
    reply["versions"].as_array().unwrap().iter().map(|version| version["ref"].as_str().unwrap()).collect()
}

#[test]
fn pull_with_inputs_brings_all_that_a_scene_was_made_from_and_tells_what_is_missing() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    let published = publish_chain(&london);
    let told = published["problems"].to_string();
    assert!(told.contains(WOOD) && told.contains("not published"), "{published}");
    montreal.until("montreal knows all", |api| (api.list().versions.len() == 5).then_some(()));
    montreal.until_connected(LONDON);
    let info = montreal.ctl(&["info", "sh010/layoutMain", "--json"]).good();
    let inputs =
        ["sh010/beauty@v001", "robot/ghost@v003", "robot/modelDefault", "robot/lookDefault/ma@v001", WOOD];
    assert_eq!(info["inputs"], json!(inputs));
    assert_eq!(info["files"].as_array().unwrap().len(), 1, "the sidecar is no file of the version: {info}");

    let layout = "lantern:sh010/layoutMain@v001";
    let plan = montreal.ctl(&["pull", "-n", "sh010/layoutMain", "--with-inputs", "--json"]).good();
    let (look, textures) = ("lantern:robot/lookDefault@v001", "lantern:robot/textureDefault@v001");
    assert_eq!(refs(&plan), [BEAUTY_V1, &model(1), textures, look, layout], "inputs come first");
    assert!(plan["disk_free_bytes"].as_u64().unwrap() > 0, "{plan}");
    assert!(!montreal.path("film").exists() && montreal.api().jobs().is_empty(), "nothing moved");

    let pulled =
        montreal.ctl(&["pull", "sh010/layoutMain", "--with-inputs", "--json"]).expect(ExitCode::Partial);
    let summary: Value = serde_json::from_str(pulled.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(refs(&summary), refs(&plan), "{pulled:#?}");
    let missing = json!([
        {"input": "robot/ghost@v003", "needed_by": layout, "why": "unknown"},
        {"input": WOOD, "needed_by": layout, "why": "not-published"},
    ]);
    assert_eq!(summary["missing"], missing);
    assert!(pulled.stderr.contains("AVL-0402"), "{pulled:#?}");
    for dir in [TEXTURES, LOOK, "assets/robot/publish/modelDefault/v001", "film/sh010/publish/beauty/v001"] {
        tree::assert_equal(&london.path(dir), &montreal.path(dir));
    }
    assert!(montreal.path(&format!("{LAYOUT}/layoutMain.usda")).exists());

    let all = montreal.ctl(&["inputs", "sh010/layoutMain", "--recursive", "--json"]).good();
    let sum =
        |name: &str| summary["versions"].as_array().unwrap().iter().map(|v| v[name].as_u64().unwrap()).sum();
    let (files, bytes): (u64, u64) = (sum("files"), sum("bytes"));
    assert_eq!(
        (&all["files"], &all["bytes"], &all["bytes_here"]),
        (&json!(files), &json!(bytes), &json!(bytes))
    );
    assert_eq!((files, all["versions"][2]["depth"].as_u64()), (29, Some(2)), "{all}");
    let direct = montreal.ctl(&["inputs", "sh010/layoutMain", "--json"]).good();
    assert_eq!(refs(&direct), [BEAUTY_V1, &model(1), look, layout], "one step");
}

#[test]
fn an_asset_is_pulled_with_the_latest_of_everything() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    publish_model(&london, 1, b"one");
    publish_model(&london, 2, b"two");
    tree::write(&london.path(&format!("{TEXTURES}/a.exr")), &tree::noise(3, 10_000));
    publish(&london, TEXTURES, &[]);
    publish_beauty(&london, "v001");
    home.until("home knows all", |api| (api.list().versions.len() == 4).then_some(()));
    home.until_connected(LONDON);
    let summary = home.ctl(&["pull", "robot/*", "--json"]).good();
    assert_eq!(refs(&summary), [model(2).as_str(), "lantern:robot/textureDefault@v001"]);
    assert!(!home.path("film").exists() && !home.path("assets/robot/publish/modelDefault/v001").exists());
    let refused = home.ctl(&["pull", "robot"]).expect(ExitCode::Usage);
    assert!(refused.stderr.contains("asset/*"), "{refused:#?}");
}
