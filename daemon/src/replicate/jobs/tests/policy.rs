//! Jobs under a policy.

use avalon_protocol::record::Record;

use super::*;
use crate::{fixture::published, policy::Apply};

impl Bench {
    /// Applies a policy of these rules; on demand is what holds otherwise.
    async fn apply(&self, rules: &str) {
        let document = format!(
            "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{rules}"
        );
        let apply = Apply { document, author: "anna".into(), comment: String::new(), replaces: None };
        self.montreal.core.apply_policy(apply).unwrap();
        self.done().await;
    }
}

fn rule(name: &str, matches: &str, says: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {matches} }}\nsites = [\"montreal\"]\n{says}\n")
}

#[tokio::test]
async fn a_policy_that_is_applied_brings_what_it_keeps_here_and_nothing_else() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    bench.apply(&rule("rigs", "subset = \"rig*\"", "keep = \"here\"")).await;
    bench.publish(1);
    bench.touched(&[1]).await;
    assert_eq!(bench.running(), names(&[]), "the defaults hold, not the mode of the node");
    bench.apply(&rule("all", "asset = \"*\"", "keep = \"here\"")).await;
    bench.work(1).await;
}

#[tokio::test]
async fn a_newer_version_takes_the_place_of_one_that_is_not_among_the_latest_any_more() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    bench.apply(&rule("newest", "asset = \"*\", latest = 1", "keep = \"here\"")).await;
    bench.publish(1);
    bench.touched(&[1]).await;
    let first = bench.work(1).await;
    bench.publish(2);
    bench.touched(&[2]).await;
    bench.work(2).await;
    bench.done().await;
    assert!(first.job.cancel.is_cancelled());
    let pulled = bench.pull(1).await;
    assert!(matches!(pulled.decision, Decision::Fetch(_)), "whoever asks gets it: {pulled:?}");
}

#[tokio::test]
async fn what_never_comes_is_refused_to_who_pulls_it_until_the_policy_changes() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    bench.apply(&rule("secret", "asset = \"*\"", "keep = \"never\"")).await;
    bench.publish(1);
    let pulled = bench.pull(1).await;
    let Decision::Forbidden(Some(rule)) = &pulled.decision else { panic!("{pulled:?}") };
    assert_eq!((&*rule.name, pulled.job.is_none()), ("secret", true));
    bench.apply("").await;
    bench.touched(&[1]).await;
    assert_eq!(bench.running(), names(&[]), "that somebody once asked is forgotten");
    assert!(bench.pull(1).await.job.is_some());
    bench.work(1).await;
}

#[tokio::test]
async fn a_job_that_the_policy_forbids_meanwhile_ends() {
    let (bench, work) = Bench::with_work().await;
    bench.apply(&rule("secret", "asset = \"*\"", "keep = \"never\"")).await;
    assert!(work.job.cancel.is_cancelled());
}

#[tokio::test]
async fn more_urgent_rules_go_first_among_what_comes_by_itself() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    for number in 1..=6 {
        bench.publish(number);
    }
    let newest = rule("newest", "asset = \"*\", latest = 1", "keep = \"here\"\npriority = \"high\"");
    bench.apply(&(newest + &rule("all", "asset = \"*\"", "keep = \"here\""))).await;
    // Four at once, of which the newest is the first.
    for number in [6, 1, 2, 3] {
        bench.work(number).await;
    }
}

#[tokio::test]
async fn time_alone_brings_what_it_makes_due() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    bench.apply(&rule("settled", "asset = \"*\", older_than = \"1h\"", "keep = \"here\"")).await;
    bench.publish(1);
    bench.touched(&[1]).await;
    assert_eq!(bench.running(), names(&[]));
    for _ in 0..61 {
        bench.advance(60 * SECOND).await;
    }
    bench.work(1).await;
}

#[tokio::test]
async fn what_only_the_manifest_says_is_judged_when_it_comes() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    bench.apply(&rule("assets", "silo = \"assets\"", "keep = \"here\"")).await;
    let manifest = manifest(1, b"one");
    bench.london.says(Record::Published(published(&manifest)));
    bench.montreal.hears(&bench.london);
    bench.touched(&[1]).await;
    assert_eq!(bench.running(), names(&[]), "in which silo it is stands in the manifest");
    bench.montreal.core.ledger.put_manifest(&manifest).unwrap();
    bench.touched(&[1]).await;
    bench.work(1).await;
}
