//! Random policies: documents as somebody could write them, checked against the studio.

use std::{fmt::Write as _, sync::Arc};

use avalon_protocol::policy::{Policy, Studio};
use rand::{Rng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use super::book::Book;

/// How often a document is drawn until one passes the checks; after that, one that always does.
const TRIES: usize = 20;

const MATCHES: [&str; 9] = [
    "project = \"*\"",
    "asset = \"robot*\"",
    "subset = \"model*\"",
    "family = \"rig\"",
    "family = [\"model\", \"render\"]",
    "author = \"anna\"",
    "latest = 2",
    "older_than = \"30d\"",
    "younger_than = \"60d\"",
];

/// Draws the policies of the year; some are those from before.
pub fn draw(dice: &mut ChaCha8Rng, book: &mut Book) {
    let studio = Studio::of_nodes(book.nodes.iter().map(|node| node.id.clone()));
    for number in 0..dice.random_range(3..=8) {
        let policy = if number > 1 && dice.random_bool(0.2) {
            let before = dice.random_range(0..number);
            book.policies.get(before).cloned()
        } else {
            (0..TRIES).find_map(|_| {
                let text = document(dice, book);
                let policy = Policy::check(&text, Some(&studio)).ok()?;
                Some((text, Arc::new(policy)))
            })
        };
        let policy = policy.unwrap_or_else(|| {
            let text =
                "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 2\n".to_owned();
            let policy = Policy::check(&text, Some(&studio)).expect("nothing is wrong with it");
            (text, Arc::new(policy))
        });
        book.policies.push(policy);
    }
}

fn keep(dice: &mut ChaCha8Rng) -> &'static str {
    ["here", "here", "on-demand", "on-demand", "on-demand", "never"].choose(dice).expect("there are some")
}

fn document(dice: &mut ChaCha8Rng, book: &Book) -> String {
    let mut text = String::from("schema = \"avalon.policy/1\"\n[defaults]\n");
    let default = if dice.random_bool(0.8) { "on-demand" } else { keep(dice) };
    writeln!(text, "keep = \"{default}\"\nmin_copies = {}", dice.random_range(1..=2)).expect("a string");
    for rule in 0..dice.random_range(1..=4) {
        rule_text(dice, book, rule, &mut text);
    }
    text
}

fn rule_text(dice: &mut ChaCha8Rng, book: &Book, number: usize, text: &mut String) {
    let matches = MATCHES[dice.random_range(0..MATCHES.len())];
    let mut places: Vec<String> = Vec::new();
    for node in &book.nodes {
        if dice.random_bool(0.1) {
            places.push(format!("{:?}", node.id.to_string()));
        } else if dice.random_bool(0.4) {
            places.push(format!("{:?}", node.id.site.as_str()));
        }
    }
    places.sort();
    places.dedup();
    if places.is_empty() {
        places.push("\"*\"".to_owned());
    }
    let keep = keep(dice);
    let places = places.join(", ");
    write!(
        text,
        "[[rule]]\nname = \"rule {number}\"\nmatch = {{ {matches} }}\nsites = [{places}]\nkeep = \"{keep}\"\n"
    )
    .expect("a string");
    if dice.random_bool(0.5) {
        writeln!(text, "min_copies = {}", dice.random_range(1..=3)).expect("a string");
    }
    if dice.random_bool(0.3) {
        writeln!(text, "keep_last = {}", dice.random_range(1..=3)).expect("a string");
    }
    if keep == "here" && dice.random_bool(0.1) {
        text.push_str("when = [\"19:00-07:00\"]\n");
    }
}
