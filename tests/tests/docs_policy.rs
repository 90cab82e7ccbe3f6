//! The guide to the policy: every example is a policy that is taken, and comes to what its table says.

use std::{collections::BTreeMap, fs, path::Path};

use avalon_protocol::{
    id::{RepresentationName, SiloName, VersionId, VersionSlot},
    limit::Moment,
    policy::{
        MAX_DOCUMENT_BYTES, MAX_LIST, MAX_RULES, ManifestFacts, NotKnownYet, Now, Policy, Ruling, SCHEMA,
        VersionFacts,
    },
};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// A Monday at midnight, in the first days of 2026.
const MONDAY_MS: u64 = 20_458 * DAY_MS;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One example: a document, and the rows of the table behind it.
struct Example {
    document: String,
    rows: Vec<Vec<String>>,
}

/// The documents of a text, each with the rows up to the next one.
fn examples(text: &str) -> Vec<Example> {
    let blocks = text.split("```toml\n").skip(1);
    let parted = blocks.map(|block| block.split_once("\n```").unwrap_or_else(|| panic!("no end: {block}")));
    parted
        .map(|(document, rest)| {
            let table = rest.lines().skip_while(|line| !line.starts_with("| version | node |")).skip(2);
            let rows = table.take_while(|line| line.starts_with('|')).map(cells).collect();
            Example { document: format!("{document}\n"), rows }
        })
        .collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// What the first cell of a row says.
struct Said {
    version: VersionId,
    rank: u32,
    author: String,
    age_ms: u64,
    representations: Vec<RepresentationName>,
    silo: Option<SiloName>,
    metadata: BTreeMap<String, String>,
    manifest_is_here: bool,
    now: Now,
}

impl Said {
    /// Reads `sh010/beauty, silo film, family render, by anna, 2 newer, 3 days old, as exr, on mon at 12:00`.
    fn parse(cell: &str) -> Self {
        let mut phrases = cell.split(", ");
        let name = phrases.next().unwrap();
        let (project, name) = name.split_once(':').unwrap_or(("lantern", name));
        let (asset, subset) = name.split_once('/').unwrap_or_else(|| panic!("{cell}: not asset/subset"));
        let version = VersionId {
            project: project.parse().unwrap(),
            asset: asset.parse().unwrap(),
            subset: subset.parse().unwrap(),
            slot: VersionSlot::Number(12),
        };
        let mut said = Self {
            version,
            rank: 0,
            author: "carla".into(),
            age_ms: HOUR_MS,
            representations: Vec::new(),
            silo: None,
            metadata: BTreeMap::new(),
            manifest_is_here: true,
            now: now(0, 12 * 60),
        };
        phrases.for_each(|phrase| said.add(phrase));
        said
    }

    fn add(&mut self, phrase: &str) {
        let words: Vec<&str> = phrase.split(' ').collect();
        match words.as_slice() {
            ["newest"] => self.rank = 0,
            ["hero"] => self.version.slot = VersionSlot::Hero,
            ["no", "manifest"] => self.manifest_is_here = false,
            [count, "newer"] => self.rank = count.parse().unwrap(),
            [count, "hour" | "hours", "old"] => self.age_ms = count.parse::<u64>().unwrap() * HOUR_MS,
            [count, "day" | "days", "old"] => self.age_ms = count.parse::<u64>().unwrap() * DAY_MS,
            ["silo", silo] => self.silo = Some(silo.parse().unwrap()),
            ["by", author] => self.author = (*author).to_owned(),
            ["as", name] => self.representations.push(name.parse().unwrap()),
            [key @ ("family" | "task" | "status"), value] => {
                self.metadata.insert((*key).to_owned(), (*value).to_owned());
            }
            ["on", day, "at", time] => {
                let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
                let day = days.iter().position(|known| known == day).unwrap();
                let (hours, minutes) = time.split_once(':').unwrap();
                self.now = now(day, hours.parse::<u16>().unwrap() * 60 + minutes.parse::<u16>().unwrap());
            }
            _ => panic!("the test does not know what {phrase:?} means"),
        }
    }

    fn facts(&self) -> VersionFacts<'_> {
        let manifest = ManifestFacts { silo: self.silo.as_ref(), metadata: &self.metadata };
        VersionFacts {
            version: &self.version,
            rank: self.rank,
            representations: &self.representations,
            author: &self.author,
            published_at_ms: self.now.ms - self.age_ms,
            manifest: self.manifest_is_here.then_some(manifest),
        }
    }
}

fn now(day: usize, minute: u16) -> Now {
    let ms = MONDAY_MS + day as u64 * DAY_MS + u64::from(minute) * MINUTE_MS;
    Now { ms, moment: Moment { day: u8::try_from(day).unwrap(), minute } }
}

/// Returns what the cells of a ruling and its rule say.
fn shown(ruling: &Result<Ruling, NotKnownYet>) -> (String, String) {
    match ruling {
        Ok(ruling) => {
            let rule = ruling.because.as_ref().map_or("defaults", |rule| &*rule.name);
            (ruling.to_string(), rule.to_owned())
        }
        Err(unknown) => (format!("not known yet: {}", unknown.fact), unknown.rule.name.to_string()),
    }
}

#[test]
fn every_example_comes_to_what_its_table_says() {
    let examples = examples(&read("docs/policy.md"));
    assert!(examples.len() >= 7, "only {} examples were found", examples.len());
    for Example { document, rows } in examples {
        let policy = Policy::parse(&document).unwrap_or_else(|refused| panic!("{refused}\n{document}"));
        assert!(rows.len() >= 2, "an example without a table:\n{document}");
        for row in rows {
            let [version, node, ruling, rule] = &row[..] else { panic!("{row:?} has not four cells") };
            let said = Said::parse(version);
            let found = policy.decide(&node.parse().unwrap(), &said.facts(), said.now);
            // Whether it may be removed stands where it is the point.
            let (ruling, may_go) = match ruling.rsplit_once(", ") {
                Some((ruling, "stays")) => (ruling, Some(false)),
                Some((ruling, "may go")) => (ruling, Some(true)),
                _ => (ruling.as_str(), None),
            };
            assert_eq!(shown(&found), (ruling.to_owned(), rule.clone()), "{row:?}\n{document}");
            if let Some(may_go) = may_go {
                assert_eq!(found.unwrap().may_be_removed(&said.facts()), may_go, "{row:?}");
            }
        }
    }
}

#[test]
fn every_rule_of_an_example_wins_in_its_table() {
    for Example { document, rows } in examples(&read("docs/policy.md")) {
        for rule in Policy::parse(&document).unwrap().rules() {
            assert!(rows.iter().any(|row| row[3] == *rule.name), "no row shows the rule {:?}", rule.name);
        }
    }
}

/// The text beneath a heading, up to the next heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    rest.split("\n#").next().unwrap()
}

/// The keys of a table's first column.
fn documented(text: &str) -> Vec<String> {
    let keys = text.lines().filter(|line| line.starts_with("| `"));
    let keys = keys.flat_map(|line| {
        let cell = line.split('|').nth(1).unwrap();
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    });
    keys.collect()
}

/// The words of a list of constants in a source file.
fn declared(source: &str, name: &str) -> Vec<String> {
    let text = read(source);
    let (_, list) = text.split_once(&format!("const {name}: ")).unwrap_or_else(|| panic!("no {name}"));
    let (_, list) = list.split_once('=').unwrap();
    list.split(';').next().unwrap().split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn keys_and_bounds_are_those_of_the_code() {
    let guide = read("docs/policy.md");
    let rules: Vec<String> =
        documented(section(&guide, "### Rules").split("What `keep` means").next().unwrap());
    let mut coded = declared("protocol/src/policy/rule.rs", "RULE_KEYS");
    assert!(coded.len() > 5, "{coded:?}");
    coded.sort();
    let sorted = |mut words: Vec<String>| {
        words.sort();
        words
    };
    assert_eq!(sorted(rules), coded);
    let matches = documented(section(&guide, "### Match"));
    assert_eq!(sorted(matches), sorted(declared("protocol/src/policy/read_match.rs", "KEYS")));
    let bounds =
        format!("At most {MAX_DOCUMENT_BYTES} bytes, {MAX_RULES} rules, {MAX_LIST} entries in a list.");
    assert!(guide.contains(&bounds), "{bounds}");
    assert!(guide.contains(&format!("schema = {SCHEMA:?}` comes first")));
}
