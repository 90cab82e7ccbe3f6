//! What crosses the wire of content that was there in a like form, or that compresses.

use avalon_tests::daemons::{daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{HOME, LONDON, MODEL, model, publish_model, studio};

/// Three blocks and a bit, so that deltas span blocks and end in a short one.
const BYTES: usize = 3_500_000;

fn text() -> Vec<u8> {
    (0..BYTES / 20).flat_map(|line| format!("v {line:09} 0.250 1\n").into_bytes()).collect()
}

/// What an artist's next save does: some bytes changed, some inserted.
fn changed(content: &[u8]) -> Vec<u8> {
    let mut changed = content.to_vec();
    changed[1000] ^= 1;
    changed.splice(1_200_000..1_200_000, *b"a few bytes more");
    changed
}

fn pull(node: &Daemon, version: u32) -> Value {
    let said = node.ctl(&["pull", &model(version), "--json"]).good();
    said["versions"][0].clone()
}

fn count(pulled: &Value, name: &str) -> u64 {
    pulled[name].as_u64().unwrap_or_else(|| panic!("{pulled} has no {name}"))
}

fn until_known(node: &Daemon, version: u32) {
    let reference = model(version);
    node.until("the version is known", |api| {
        api.list().versions.iter().any(|known| known.reference == reference).then_some(())
    });
}

/// London and somebody else who holds version 1, whose content is given; London has published version 2 since.
fn with_two_versions(
    content: &[u8],
    next: &[u8],
    other: &str,
) -> (avalon_tests::daemons::Studio, Daemon, Daemon) {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let other = studio.on_demand(other, &[&london]);
    publish_model(&london, 1, content);
    until_known(&other, 1);
    pull(&other, 1);
    publish_model(&london, 2, next);
    until_known(&other, 2);
    (studio, london, other)
}

fn assert_arrived(london: &Daemon, other: &Daemon) {
    let dir = format!("{MODEL}/v002");
    tree::assert_equal(&london.path(&dir), &other.path(&dir));
}

#[test]
fn a_re_publish_travels_as_a_delta() {
    let content = tree::noise(1, BYTES);
    let (_studio, london, home) = with_two_versions(&content, &changed(&content), HOME);
    let pulled = pull(&home, 2);
    assert_eq!(count(&pulled, "bytes_delta"), BYTES as u64 + 16, "{pulled}");
    assert_eq!(count(&pulled, "bytes_raw") + count(&pulled, "bytes_compressed"), 0, "{pulled}");
    assert!(count(&pulled, "bytes_received") < 2000, "{pulled}");
    assert_arrived(&london, &home);
}

#[test]
fn a_base_that_does_not_help_costs_nothing_but_the_try() {
    let (_studio, london, home) = with_two_versions(&tree::noise(1, BYTES), &tree::noise(2, BYTES), HOME);
    let pulled = pull(&home, 2);
    assert_eq!(count(&pulled, "bytes_raw"), BYTES as u64, "{pulled}");
    assert_arrived(&london, &home);
}

#[test]
fn a_base_that_somebody_damaged_at_either_end_falls_back_to_a_plain_fetch() {
    let content = tree::noise(1, BYTES);
    for damaged_at_home in [false, true] {
        let (_studio, london, home) = with_two_versions(&content, &changed(&content), HOME);
        let node = if damaged_at_home { &home } else { &london };
        let base = node.path(&format!("{MODEL}/v001/modelDefault.usdc"));
        let mut bytes = content.clone();
        bytes[BYTES / 2] ^= 0xff;
        tree::write(&base, &bytes);
        let pulled = pull(&home, 2);
        assert_eq!(count(&pulled, "bytes_raw"), BYTES as u64 + 16, "at home {damaged_at_home}: {pulled}");
        assert_arrived(&london, &home);
        assert!(!home.api().has_health("bad-content"), "nobody is blamed for a damaged base");
    }
}

#[test]
fn text_is_compressed_between_sites_and_noise_is_not() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    publish_model(&london, 1, &text());
    publish_model(&london, 2, &tree::noise(2, BYTES));
    until_known(&home, 2);
    let (first, second) = (pull(&home, 1), pull(&home, 2));
    assert_eq!(count(&first, "bytes_compressed"), count(&first, "bytes"), "{first}");
    assert!(count(&first, "bytes_received") < count(&first, "bytes") / 3, "{first}");
    assert_eq!(count(&second, "bytes_raw"), BYTES as u64, "{second}");
    assert_arrived(&london, &home);
}

#[test]
fn within_a_site_content_goes_as_it_is_but_for_deltas() {
    let (_studio, london, other) = with_two_versions(&text(), &changed(&text()), "ws2@london");
    let first = other.api().job_of(&model(1));
    assert_eq!((first.bytes_compressed, first.bytes_raw), (0, first.bytes_total), "{first:?}");
    let pulled = pull(&other, 2);
    assert_eq!(count(&pulled, "bytes_delta"), count(&pulled, "bytes"), "{pulled}");
    assert_arrived(&london, &other);
}

#[test]
fn many_files_that_each_have_a_base_do_not_wait_for_one_another_for_ever() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    for version in 1..=2 {
        let dir = london.path(&format!("{MODEL}/v{version:03}"));
        for file in 0..16 {
            let content = tree::noise(file, 1_300_000);
            let content = if version == 1 { content } else { changed(&content) };
            tree::write(&dir.join(format!("modelDefault.part{file:02}")), &content);
        }
        assert_eq!(london.api().publish(&dir).error, None);
        until_known(&home, version);
        let pulled = pull(&home, version);
        let way = if version == 1 { "bytes_raw" } else { "bytes_delta" };
        assert_eq!(count(&pulled, way), count(&pulled, "bytes"), "{pulled}");
    }
    assert_arrived(&london, &home);
}
