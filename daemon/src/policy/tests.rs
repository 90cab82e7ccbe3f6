//! Policies at nodes with real ledgers, whose records come without a network.

use avalon_protocol::{
    id::ProjectName,
    mode::ProjectMode,
    record::{Held, Record},
    studio::{AppliedPolicy, PolicyId},
};

use super::*;
use crate::fixture::{Node, Studio, manifest, project};

fn document(comment: &str) -> String {
    format!("# {comment}\nschema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n")
}

fn apply(node: &Node, comment: &str, replaces: Option<u64>) -> Result<PolicyId, ApplyError> {
    let (author, comment_) = ("anna".to_owned(), comment.to_owned());
    node.core.apply_policy(Apply { document: document(comment), author, comment: comment_, replaces })
}

/// Writes any policy into a node's own feed, as a newer or dishonest one could.
fn write(node: &Node, serial: u64, document: &str) {
    let policy = AppliedPolicy::new(serial, document.into(), "eve".into(), String::new(), 1).unwrap();
    let records = vec![Record::Policy(policy)];
    node.core.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), 0).unwrap();
}

fn hears(node: &Node, other: &Node) {
    node.hears_of(other, &ProjectName::studio());
    node.core.refresh_policy();
}

/// The comment of the policy that stands, and of the one in effect.
fn comments(node: &Node) -> [String; 2] {
    let fold = node.core.policy.view().fold;
    [fold.standing(), fold.in_effect()]
        .map(|stands| stands.map_or(String::new(), |s| s.entry.comment.clone()))
}

fn health(node: &Node, code: &str) -> Option<String> {
    node.core.health.items().into_iter().find(|item| item.code == code).map(|item| item.message)
}

fn told(node: &Node) -> Vec<u64> {
    let events = node.core.events.since(0).0;
    let serials = events.iter().filter_map(|event| match event.kind {
        EventKind::PolicyApplied { serial, .. } => Some(serial),
        _ => None,
    });
    serials.collect()
}

#[test]
fn what_is_applied_is_in_effect_told_once_and_outlives_the_catalog() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    assert!(london.core.policy.view().in_effect.is_none());
    let mut watch = london.core.policy.watch();
    let first = apply(&london, "first", None).unwrap();
    assert!(watch.has_changed().unwrap() && watch.borrow_and_update().in_effect.is_some());
    let second = apply(&london, "second", Some(1)).unwrap();
    assert_eq!((first.serial, second.serial), (1, 2));
    london.core.refresh_policy();
    assert_eq!((comments(&london), told(&london)), (["second".into(), "second".into()], vec![1, 2]));
    // Known before the catalog is, and no news.
    let (london, gate) = studio.without_catalog(london);
    assert!(!london.core.ledger.is_ready());
    london.core.refresh_policy();
    assert_eq!((comments(&london), told(&london)), (["second".into(), "second".into()], vec![]));
    let fold = london.core.policy.view().fold;
    let entry = &fold.history()[&first];
    assert_eq!(read_document(&london.core.ledger, &first, entry).unwrap(), Some(document("first")));
    gate.open();
}

#[test]
fn who_is_late_is_refused_and_told_whose_policy_stands() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    apply(&london, "first", Some(0)).unwrap();
    let error = apply(&london, "late", Some(0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy 0 was to be replaced, and policy 1 stands, applied by anna at srv@london"
    );
    let error = apply(&london, "early", Some(4)).unwrap_err();
    assert!(matches!(error, ApplyError::NotKnown { replaces: 4, newest: 1 }), "{error}");
    assert_eq!(comments(&london)[0], "first");
    let (london, results) = (&london, std::sync::Barrier::new(4));
    let won = std::thread::scope(|scope| {
        let at_once = |number: u32| {
            let results = &results;
            scope.spawn(move || {
                results.wait();
                apply(london, &format!("by {number}"), Some(1)).is_ok()
            })
        };
        let all: Vec<_> = (0..4).map(at_once).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!((won, london.core.policy.view().fold.serial()), (1, 2));
}

#[test]
fn what_cannot_be_understood_or_recorded_is_refused() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    let refused = |document: &str, comment: &str| {
        let (document, comment) = (document.to_owned(), comment.to_owned());
        let apply = Apply { document, author: "anna".into(), comment, replaces: None };
        london.core.apply_policy(apply).unwrap_err()
    };
    assert!(matches!(refused("keep = [", ""), ApplyError::NotUnderstood { .. }));
    assert!(matches!(refused(&document("x"), &"x".repeat(5000)), ApplyError::TooLong { .. }));
    let long = format!("{}# {}\n", document("x"), "x".repeat(48 << 10));
    assert!(matches!(refused(&long, ""), ApplyError::NotUnderstood { .. } | ApplyError::TooLong { .. }));
    assert!(london.core.ledger.heads(&ProjectName::studio()).is_empty(), "nothing was written");
    write(&london, u64::MAX, &document("the last"));
    assert!(matches!(refused(&document("x"), ""), ApplyError::NoSerial));
}

#[test]
fn a_policy_of_a_newer_version_leaves_the_last_good_one_in_effect() {
    let studio = Studio::new();
    let [london, montreal] =
        ["srv@london", "srv@montreal"].map(|name| studio.node(name, ProjectMode::OnDemand));
    apply(&london, "good", None).unwrap();
    hears(&montreal, &london);
    let in_effect = montreal.core.policy.view().in_effect.unwrap();
    write(&london, 2, "schema = \"avalon.policy/9\"\n");
    hears(&montreal, &london);
    let view = montreal.core.policy.view();
    assert_eq!((view.fold.serial(), comments(&montreal)[1].as_str()), (2, "good"));
    assert!(Arc::ptr_eq(&view.in_effect.unwrap(), &in_effect), "not read anew");
    assert!(view.problem.unwrap().contains("avalon.policy/9"));
    let message = health(&montreal, "policy-not-understood").unwrap();
    assert!(
        message.contains("policy 1 stays in effect") && message.contains("eve at srv@london"),
        "{message}"
    );
    apply(&montreal, "better", Some(2)).unwrap();
    assert_eq!((health(&montreal, "policy-not-understood"), &*comments(&montreal)[1]), (None, "better"));
}

#[test]
fn of_two_that_were_applied_apart_all_take_one_and_say_so_until_the_next() {
    let studio = Studio::new();
    let [london, montreal, home] =
        ["srv@london", "srv@montreal", "ws1@home"].map(|name| studio.node(name, ProjectMode::OnDemand));
    apply(&london, "from london", None).unwrap();
    apply(&montreal, "from montreal", None).unwrap();
    for (node, others) in
        [(&london, [&montreal, &montreal]), (&montreal, [&london, &london]), (&home, [&montreal, &london])]
    {
        others.into_iter().for_each(|other| hears(node, other));
        assert_eq!(comments(node), comments(&london));
        let message = health(node, "policy-applied-twice").unwrap();
        assert!(message.contains("srv@london") && message.contains("srv@montreal"), "{message}");
    }
    assert_eq!(home.core.policy.view().fold.history().len(), 2, "both are in the history");
    apply(&home, "agreed", None).unwrap();
    hears(&london, &home);
    assert_eq!((comments(&london)[0].as_str(), health(&london, "policy-applied-twice")), ("agreed", None));
}

#[test]
fn a_version_in_the_studios_feed_is_told_and_a_policy_in_a_projects_has_no_effect() {
    let studio = Studio::new();
    let [london, montreal] =
        ["srv@london", "srv@montreal"].map(|name| studio.node(name, ProjectMode::OnDemand));
    let stray = manifest(1, b"x");
    let held = Record::Placed(Held { version: stray.version().clone(), manifest: stray.id() });
    london.core.ledger.commit_wait(&ProjectName::studio(), vec![held], Vec::new(), 0).unwrap();
    london.says(Record::Policy(AppliedPolicy::new(7, document("x"), "eve".into(), "".into(), 1).unwrap()));
    montreal.hears_of(&london, &project());
    hears(&montreal, &london);
    assert_eq!(montreal.core.policy.view().fold.serial(), 0);
    let message = health(&montreal, "studio-records-ignored").unwrap();
    assert!(message.starts_with("1 records of srv@london"), "{message}");
}
