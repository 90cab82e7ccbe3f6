//! Records over the control stream.

use super::studio::{Studio, feed, node_id};
use crate::net::{NetEvent, tests::toy::ToyCatalog};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_flow_both_ways_and_are_relayed_to_a_third_node() {
    let studio = Studio::new();
    let hub = studio.node("srv@montreal").start();
    let one = studio.node("ws1@london").dialling(&[&hub]).start();
    let two = studio.node("ws2@london").dialling(&[&hub]).start();
    let (of_one, of_two) = (feed("lantern", "ws1@london"), feed("lantern", "ws2@london"));
    for text in ["a", "b", "c", "d", "e"] {
        one.catalog().append(&of_one, text);
    }
    two.catalog().append(&of_two, "x");
    two.catalog().until(&of_one, 5).await;
    one.catalog().until(&of_two, 1).await;
    assert_eq!(two.catalog().texts(&of_one), ["a", "b", "c", "d", "e"]);
    assert_eq!(hub.catalog().texts(&of_two), ["x"]);
    assert!(one.net.link(&node_id("ws2@london")).is_none(), "they are not connected");

    one.catalog().append(&of_one, "f");
    two.catalog().until(&of_one, 6).await;
    for node in [one, two, hub] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_project_that_only_one_side_serves_is_sent() {
    let studio = Studio::new();
    let hub = studio.node("srv@montreal").start();
    let mut setup = studio.node("ws1@london").dialling(&[&hub]);
    setup.hello.projects = super::studio::hello("ws1@london", 1, &["lantern", "secret"]).projects;
    setup.catalog.append(&feed("secret", "ws1@london"), "for nobody");
    let one = setup.start();
    one.catalog().append(&feed("secret", "ws1@london"), "nor this");
    one.catalog().append(&feed("lantern", "ws1@london"), "for all");
    hub.catalog().until(&feed("lantern", "ws1@london"), 1).await;
    assert!(hub.catalog().texts(&feed("secret", "ws1@london")).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_missed_notices_reads_all_heads_again() {
    let studio = Studio::new();
    let mut setup = studio.node("srv@montreal");
    setup.catalog = ToyCatalog::new(1);
    let mut hub = setup.start();
    let one = studio.node("ws1@london").dialling(&[&hub]).start();
    hub.peer_up("ws1@london").await;
    let feeds: Vec<_> = (0..50).map(|i| feed("lantern", &format!("n{i}@london"))).collect();
    for feed in &feeds {
        hub.catalog().append(feed, "relayed");
    }
    for feed in &feeds {
        one.catalog().until(feed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_histories_of_one_feed_are_told_and_stop_that_feed_alone() {
    let studio = Studio::new();
    let mut hub = studio.node("srv@montreal").start();
    let setup = studio.node("ws1@london").dialling(&[&hub]);
    let forked = feed("lantern", "ws9@london");
    hub.catalog().append(&forked, "one history");
    setup.catalog.append(&forked, "another history");
    let one = setup.start();
    let told = hub.event("the fork", |event| match event {
        NetEvent::Fork { feed, peer } => Some((feed, peer)),
        _ => None,
    });
    assert_eq!(told.await, (forked.clone(), node_id("ws1@london")));
    let good = feed("lantern", "ws1@london");
    one.catalog().append(&good, "still flows");
    hub.catalog().until(&good, 1).await;
    assert_eq!(hub.catalog().texts(&forked), ["one history"]);
}
