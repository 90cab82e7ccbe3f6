//! Every refusal with its exact text, line and column.

use crate::policy::{MAX_DOCUMENT_BYTES, MAX_RULES, Policy, Studio};

/// The lines before those of a case: the case begins on line 5.
const HEAD: &str = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";
/// A rule that is fine, for cases in which something else is wrong; it begins where it stands and takes five lines.
const RULE: &str =
    "[[rule]]\nname = \"all\"\nmatch = { project = \"*\" }\nsites = [\"*\"]\nkeep = \"here\"\n";

fn problems(text: &str, studio: Option<&Studio>) -> Vec<String> {
    match Policy::check(text, studio) {
        Ok(_) => Vec::new(),
        Err(refused) => refused.problems.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    assert_eq!(problems(text, None), expected, "{text}");
}

/// Refuses the head and a rule about everything whose last line is the case's, line 10.
#[track_caller]
fn line_refused(line: &str, expected: &str) {
    refused(&format!("{HEAD}{RULE}{line}"), &[&format!("10:{expected}")]);
}

/// Refuses a `match`, which is on line 7.
#[track_caller]
fn match_refused(inner: &str, expected: &[&str]) {
    let rule = format!("[[rule]]\nname = \"r\"\nmatch = {{ {inner} }}\nsites = [\"*\"]\nkeep = \"here\"\n");
    let expected: Vec<String> = expected.iter().map(|problem| format!("7:{problem}")).collect();
    assert_eq!(problems(&format!("{HEAD}{rule}"), None), expected, "{inner}");
}

#[test]
fn a_document_without_faults_is_taken() {
    refused(HEAD, &[]);
    refused(&format!("{HEAD}{RULE}"), &[]);
}

#[test]
fn what_is_no_document_is_refused() {
    refused(
        "schema = \"avalon.policy/1\"\n[defaults\n",
        &["2:10: this is not TOML: unclosed table, expected `]`; see https://toml.io/en/v1.0.0"],
    );
    refused(
        "",
        &[
            "1:1: the document has no `defaults`; write [defaults] with `keep` and `min_copies`: what holds where no rule \
             does",
            "1:1: the document has no `schema`; write schema = \"avalon.policy/1\" first",
        ],
    );
    refused(
        "schema = \"avalon.policy/2\"\nnew = 1\n",
        &[
            "1:10: `schema` is \"avalon.policy/2\"; this version of Avalon sync knows \"avalon.policy/1\": upgrade it",
        ],
    );
    let mistyped = HEAD.replace("avalon.policy/1", "policy");
    refused(&mistyped, &["1:10: `schema` is \"policy\"; write schema = \"avalon.policy/1\" first"]);
    let long = format!("{HEAD}# {}", "x".repeat(MAX_DOCUMENT_BYTES));
    refused(
        &long,
        &[&format!(
            "1:1: the document has {} bytes; at most 49152 are accepted; use wildcards and groups, and remove old rules",
            long.len()
        )],
    );
}

#[test]
fn unknown_keys_are_refused_everywhere_with_what_was_meant() {
    refused(
        &HEAD.replace("[defaults]", "colour = 1\n[defaults]\nprio = \"low\""),
        &[
            "2:1: unknown key `colour` in the document; known here: schema, groups, defaults, rule, checks, check, numbers, roles, grant",
            "4:1: unknown key `prio` in [defaults]; did you mean `priority`?",
        ],
    );
    line_refused("min_copy = 2", "1: unknown key `min_copy` in rule \"all\"; did you mean `min_copies`?");
    match_refused(
        "familiy = \"rig\"",
        &["11: unknown key `familiy` in `match` of rule \"r\"; did you mean `family`?"],
    );
}

#[test]
fn what_has_to_be_said_is_asked_for() {
    refused(
        "schema = \"avalon.policy/1\"\n[defaults]\n[[rule]]\n",
        &[
            "2:1: [defaults] has no `keep`; write keep = \"here\", \"on-demand\" or \"never\"",
            "2:1: [defaults] has no `min_copies`; write min_copies = 1, or more",
            "3:1: the rule has no `keep`; write keep = \"here\", \"on-demand\" or \"never\"",
            "3:1: the rule has no `match`; to match every version write match = { project = \"*\" }",
            "3:1: the rule has no `name`; give it a name that `avalonctl why` can show",
            "3:1: the rule has no `sites`; write sites = [\"london\", \"@group\"], or [\"*\"] for all",
        ],
    );
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    line_refused("when = 5", "8: `when` is a number; write a text or a list of texts");
    line_refused("read_only = \"yes\"", "13: `read_only` is a text; write true or false");
    line_refused("min_copies = \"2\"", "14: `min_copies` is a text; write a whole number");
    line_refused("priority = \"urgent\"", "12: `priority` is \"urgent\"; write low, normal or high");
    line_refused("priority = \"hihg\"", "12: `priority` is \"hihg\"; did you mean \"high\"?");
    match_refused("metadata = \"anim\"", &["22: `metadata` is a text; write a table"]);
    match_refused("hero = 1", &["18: `hero` is a number; write true or false"]);
    match_refused("asset = [\"a\", 3]", &["25: `asset` is a number; write a text in quotes"]);
    refused(&format!("rule = 3\n{HEAD}"), &["1:8: `rule` is a number; write a list"]);
    refused(&format!("{HEAD}[groups]\na = 3\n"), &["6:5: `a` is a number; write a text or a list of texts"]);
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    line_refused(
        "min_copies = 0",
        "14: `min_copies` is 0: a version always needs one copy; write 1 or more, or remove `min_copies`",
    );
    line_refused("min_copies = -1", "14: `min_copies` is -1; write a number from 1 to 1000");
    line_refused(
        "keep_last = 0",
        "13: `keep_last` is 0: it protects nothing; write 1 or more, or remove `keep_last`",
    );
    match_refused(
        "latest = 0",
        &["20: `latest` is 0: no version matches; write 1 or more, or remove `latest`"],
    );
    match_refused("latest = 1000001", &["20: `latest` is 1000001; write a number from 1 to 1000000"]);
}

#[test]
fn a_match_that_nothing_can_match_is_refused() {
    match_refused(
        "",
        &[
            "9: rule \"r\": `match` asks for nothing; to match every version write match = { project = \"*\" }",
        ],
    );
    match_refused(
        "family = []",
        &["20: the list `family` is empty, so that nothing fits it; name something, or remove the key"],
    );
    match_refused(
        "metadata = {}",
        &["22: `metadata` asks for nothing; write metadata = { task = \"anim\" }, or remove it"],
    );
    match_refused(
        "asset = \"robot[12]\"",
        &[
            "19: \"robot[12]\" is no pattern for asset; write 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', with * for any \
           text and ? for one character",
        ],
    );
    match_refused(
        "author = \"\"",
        &[
            "20: \"\" is no pattern for author; write 1 to 128 bytes without control characters, with * for any text and ? \
           for one character",
        ],
    );
    let many = vec!["\"a\""; 257].join(",");
    match_refused(
        &format!("asset = [{many}]"),
        &["19: the list `asset` has 257 entries; at most 256 are accepted; use wildcards, or several rules"],
    );
}

#[test]
fn times_that_cannot_be_are_refused() {
    match_refused(
        "older_than = \"30\"",
        &["24: `older_than` is \"30\"; write a whole number with m, h, d or w: 90m, 12h, 30d, 8w"],
    );
    match_refused(
        "younger_than = \"0d\"",
        &["26: `younger_than` is \"0d\"; every version is older; write at least 1m, or remove the key"],
    );
    match_refused(
        "older_than = \"4000d\"",
        &["24: `older_than` is \"4000d\"; write at most 3650d: ten years are longer than any production"],
    );
    match_refused(
        "older_than = \"30d\", younger_than = \"4w\"",
        &[
            "24: no version is 30d old or more and younger than 4w; `older_than` must be less than `younger_than`",
        ],
    );
    line_refused(
        "when = [\"mon-fri 19:00-07:00\", \"nights\"]",
        "32: \"nights\" is not a time of the week; write it like \"mon-fri 09:00-19:00\", \"sat,sun\", \"22:00-06:00\" or \
         \"always\"",
    );
    line_refused(
        "when = []",
        "8: the list `when` is empty, so that nothing fits it; name something, or remove the key",
    );
    line_refused(
        &format!("when = [{}]", vec!["\"mon\""; 17].join(",")),
        "8: `when` has 17 times; at most 16 are accepted; join days: \"mon-fri 19:00-07:00\"",
    );
}

#[test]
fn what_contradicts_itself_is_refused() {
    match_refused(
        "hero = true, latest = 2",
        &[
            "33: `latest` counts numbers, and `hero = true` matches none; remove one of them, or make two rules",
        ],
    );
    let never = RULE.replace("here", "never");
    refused(
        &format!("{HEAD}{never}when = \"sat\"\nkeep_last = 2\n"),
        &[
            "10:8: rule \"all\": `when` means nothing here: nothing is kept where `keep` is \"never\"; remove `when`, or \
             change `keep`",
            "11:13: rule \"all\": `keep_last` means nothing here: nothing is kept where `keep` is \"never\"; remove \
             `keep_last`, or change `keep`",
        ],
    );
    let on_demand = RULE.replace("here", "on-demand");
    refused(
        &format!("{HEAD}{on_demand}when = \"sat\"\n"),
        &[
            "10:8: rule \"all\": `when` means nothing here: nothing comes by itself where `keep` is \"on-demand\"; remove \
           `when`, or change `keep`",
        ],
    );
    let latest = RULE.replace("project = \"*\"", "latest = 2");
    refused(
        &format!("{HEAD}{latest}keep_last = 8\n"),
        &[
            "10:13: rule \"all\": `keep_last` is 8, and the rule matches only the latest 2; write 2 or less, or raise \
           `latest`",
        ],
    );
}

#[test]
fn groups_that_are_unknown_or_contain_each_other_are_refused() {
    let groups =
        "[groups]\noffices = [\"london\", \"@farms\"]\nfarms = [\"farm\", \"@offices\"]\nme = \"@me\"\n";
    refused(
        &format!("{HEAD}{groups}"),
        &[
            "7:1: groups contain each other: @farms -> @offices -> @farms; remove one of them from the other",
            "8:1: groups contain each other: @me -> @me; remove one of them from the other",
        ],
    );
    let sites = RULE.replace("[\"*\"]", "[\"@ofices\", \"offices\", \"Paris\", \"@x\"]");
    refused(
        &format!("{HEAD}[groups]\noffices = [\"london\"]\n{sites}"),
        &[
            "10:10: rule \"all\": there is no group `ofices`; did you mean \"@offices\"?",
            "10:21: rule \"all\": `offices` is a group; write \"@offices\"",
            "10:32: rule \"all\": \"Paris\" names no place; write a site, node@site, @group, or \"*\" for all",
            "10:41: rule \"all\": there is no group `x`; define it in [groups]",
        ],
    );
    refused(
        &format!("{HEAD}[groups]\nOffice = \"london\"\nempty = []\n"),
        &[
            "6:1: \"Office\" is no name for a group; write 1 to 63 of a-z, 0-9 and '-', not at either end",
            "7:9: the list `empty` is empty, so that nothing fits it; name something, or remove the key",
        ],
    );
}

#[test]
fn names_that_the_studio_does_not_have_are_refused_where_it_is_known() {
    let studio = Studio::of_nodes(["srv@london", "srv@montreal"].map(|node| node.parse().unwrap()));
    let sites = RULE.replace("[\"*\"]", "[\"@far\", \"londn\", \"sv@london\", \"ws1@oslo\"]");
    let text = format!("{HEAD}[groups]\nfar = [\"tokyo\", \"montreal\"]\n{sites}");
    assert_eq!(problems(&text, None), [""; 0]);
    assert_eq!(
        problems(&text, Some(&studio)),
        [
            "6:8: group `far`: the studio has no site `tokyo`; known sites: london, montreal",
            "10:18: rule \"all\": the studio has no site `londn`; did you mean \"london\"?",
            "10:27: rule \"all\": the studio has no node `sv@london`; did you mean \"srv@london\"?",
            "10:40: rule \"all\": the studio has no site `oslo`; known sites: london, montreal",
        ]
    );
    let sites_only = Studio::of_sites(["london", "montreal"].map(|site| site.parse().unwrap()));
    assert_eq!(problems(&text, Some(&sites_only)).len(), 3, "of nodes it knows nothing");
}

#[test]
fn rules_have_names_of_their_own_and_are_not_too_many() {
    let other = RULE.replace("\"*\" }", "\"b\" }");
    refused(
        &format!("{HEAD}{other}{RULE}"),
        &[
            "11:8: there is a rule \"all\" already, on line 5; give each rule a name of its own: `avalonctl why` shows it",
        ],
    );
    refused(
        &format!("{HEAD}{}", RULE.replace("\"all\"", "\"\"")),
        &["6:8: the `name` is empty, too long or has control characters; write 1 to 200 bytes in one line"],
    );
    let rules: String = (0..=MAX_RULES)
        .map(|number| {
            RULE.replace("all", &format!("r{number}"))
                .replace("project = \"*\"", &format!("asset = \"a{number}\""))
        })
        .collect();
    refused(
        &format!("{HEAD}{rules}"),
        &[
            "1285:1: the document has 257 rules; at most 256 are accepted; join rules with lists and wildcards",
        ],
    );
}

#[test]
fn a_rule_that_never_applies_is_refused_and_one_that_may_is_not() {
    let rule = |name: &str, inner: &str, sites: &str| {
        format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {inner} }}\nsites = {sites}\nkeep = \"here\"\n")
    };
    let first = rule("first", "asset = [\"rob*\", \"sh*\"], latest = 4", "[\"london\", \"oslo\"]");
    let second = rule("second", "project = \"*\", latest = 9", "[\"farm\"]");
    let late = rule("late", "asset = \"robot?\", latest = 2", "[\"ws1@london\", \"farm\"]");
    refused(
        &format!("{HEAD}{first}{second}{late}"),
        &[
            "15:1: rule \"late\" can never apply: \"first\" (line 5) and \"second\" (line 10) match first; move it up, narrow \
           what stands before it, or remove it",
        ],
    );
    for (late, why) in [
        (late.replace("farm", "paris"), "it names another site"),
        (late.replace("robot?", "r*"), "it matches more"),
        (late.replace("latest = 2", "latest = 5"), "it matches older ones"),
        (format!("{late}min_copies = 1\n"), "its minimum holds at all sites"),
    ] {
        assert_eq!(problems(&format!("{HEAD}{first}{second}{late}"), None), [""; 0], "{why}");
    }
}

#[test]
fn a_minimum_that_the_policy_cannot_reach_is_refused() {
    let archive = RULE.replace("\"*\"]", "\"archive\"]");
    let text = format!("{HEAD}{archive}min_copies = 2\n");
    let advice = "lower it, or add a rule with keep = \"here\" for more sites";
    refused(
        &text,
        &[&format!(
            "10:14: rule \"all\": `min_copies` is 2, and the policy keeps what it is about \"here\" at 1 site: archive; {advice}"
        )],
    );
    let everywhere = RULE.replace("\"all\"", "\"rest\"");
    refused(&format!("{text}{everywhere}"), &[]);
    let studio = |sites: &[&str]| Studio::of_sites(sites.iter().map(|site| site.parse().unwrap()));
    assert_eq!(problems(&format!("{text}{everywhere}"), Some(&studio(&["archive", "london"]))), [""; 0]);
    let text = format!("{HEAD}{RULE}min_copies = 3\n");
    assert_eq!(
        problems(&text, Some(&studio(&["archive", "london"]))),
        [format!(
            "10:14: rule \"all\": `min_copies` is 3, and the policy keeps what it is about \"here\" at 2 sites: archive, \
             london; {advice}"
        )]
    );
    refused(
        &HEAD.replace("min_copies = 1", "min_copies = 2"),
        &[&format!(
            "4:14: [defaults]: `min_copies` is 2, and the policy keeps what it is about \"here\" at no site; {advice}"
        )],
    );
    // An earlier rule for the same versions takes the site away; one for others does not.
    let never = |inner: &str| {
        format!("[[rule]]\nname = \"no\"\nmatch = {{ {inner} }}\nsites = [\"london\"]\nkeep = \"never\"\n")
    };
    let two =
        RULE.replace("\"*\"]", "\"archive\", \"london\"]").replace("project = \"*\"", "silo = \"film\"");
    let two = format!("{two}min_copies = 2\n");
    assert_eq!(problems(&format!("{HEAD}{}{two}", never("silo = \"f*\"")), None).len(), 1);
    assert_eq!(problems(&format!("{HEAD}{}{two}", never("silo = \"art\"")), None).len(), 0);
}

#[test]
fn all_problems_are_found_at_once_in_the_order_of_the_lines() {
    let text = format!("{HEAD}{}when = \"noon\"\nkeep_last = 0\n", RULE.replace("here", "hear"));
    let found = problems(&text, None);
    let lines: Vec<&str> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["9", "10", "11"], "{found:?}");
    let refused = Policy::parse(&text).unwrap_err().to_string();
    assert!(refused.starts_with(
        "the policy is refused, line 9:8: `keep` is \"hear\"; did you mean \"here\"?, line 10:8"
    ));
}

#[test]
fn what_is_wrong_about_checks_is_refused() {
    refused(
        &format!("{HEAD}[checks]\noff = [\"missing-frame\", \"zebra\"]\non = 1\n"),
        &[
            "6:8: there is no check \"missing-frame\"; did you mean \"missing-frames\"?",
            "6:25: there is no check \"zebra\"; write empty-file, truncated-file, missing-frames, frames-differ, odd-size, \
             missing-input, name-case, frame-padding, future-time, long-path, name-characters or name-off-template",
            "7:1: unknown key `on` in [checks]; known here: off",
        ],
    );
    refused(
        &format!("{HEAD}[[check]]\noff = []\n[[check]]\nmatch = {{ assset = \"a\" }}\n"),
        &[
            "5:1: [[check]] has no `match`; say which versions; for all of them write [checks]",
            "6:7: the list `off` is empty, so that nothing fits it; name something, or remove the key",
            "7:1: [[check]] has no `off`; write off = [\"missing-frames\"], or [\"*\"] for every check",
            "8:11: unknown key `assset` in `match` of [[check]]; did you mean `asset`?",
        ],
    );
}

#[test]
fn an_undo_window_is_an_age_and_stands_in_the_defaults_only() {
    refused(&format!("{HEAD}retire_after = \"8w\"\n"), &[]);
    let days = Policy::parse(&format!("{HEAD}retire_after = \"2d\"\n")).unwrap();
    assert_eq!(days.undo_ms(), 2 * 24 * 3_600_000);
    assert_eq!(Policy::parse(HEAD).unwrap().undo_ms(), 30 * 24 * 3_600_000, "without a word it is 30 days");
    for wrong in ["0d", "soon", "9999w"] {
        refused(
            &format!("{HEAD}retire_after = {wrong:?}\n"),
            &[&format!(
                "5:16: `retire_after` is {wrong:?}; write a whole number with m, h, d or w, such as 30d; at most 3650d"
            )],
        );
    }
}
