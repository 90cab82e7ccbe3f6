//! The table and the line of JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{contender::Load, spread};

const MIB: f64 = 1_048_576.0;

/// What one contender reached in all rounds.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// The name.
    pub name: String,
    /// One for each round that went well.
    pub times: Vec<Duration>,
    /// What both ends put on the wire, where it is known.
    pub wire_bytes: Vec<u64>,
    /// The processor time of all its processes, where it is known.
    pub cpu: Vec<Duration>,
    /// The most memory that each of its servers had, in bytes.
    pub peak_bytes: Vec<u64>,
}

/// What the ratios are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Speed: more is better.
    Speed,
    /// Bytes on the wire: less is better.
    WireBytes,
}

impl Figures {
    /// Starts with nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Returns the median time in seconds; NaN when nothing went well.
    pub fn seconds(&self) -> f64 {
        spread(&self.times).0
    }

    fn wire(&self) -> Option<u64> {
        let mut bytes = self.wire_bytes.clone();
        bytes.sort_unstable();
        bytes.get(bytes.len() / 2).copied()
    }

    fn value(&self, load: Load) -> Value {
        let seconds = self.seconds();
        json!({
            "seconds": number(seconds),
            "mib_s": number(load.bytes() as f64 / MIB / seconds),
            "files_s": number(load.files as f64 / seconds),
            "wire_bytes": self.wire(),
            "cpu_seconds": number(spread(&self.cpu).0),
            "peak_rss_mib": self.peak_bytes.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>(),
        })
    }
}

/// JSON knows no NaN: what was not measured is null.
fn number(value: f64) -> Value {
    if value.is_finite() { json!((value * 1e4).round() / 1e4) } else { Value::Null }
}

/// Prints table and JSON; ours is first. `limit` is what the link carries, in bytes of content a second.
pub fn print(shape: &str, note: &str, load: Load, limit: Option<f64>, of: Of, all: &[Figures]) {
    println!("\n{shape}: {note}");
    println!(
        "{:<20} {:>10} {:>10} {:>10} {:>8} {:>14} {:>6}  {:>8}",
        "", "seconds", "MiB/s", "files/s", "cpu s", "wire bytes", "rounds", "ours / it"
    );
    let [ours, baselines @ ..] = all else { return };
    let ratio = |figures: &Figures| match of {
        Of::Speed => figures.seconds() / ours.seconds(),
        Of::WireBytes => match (ours.wire(), figures.wire()) {
            (Some(ours), Some(other)) => ours as f64 / other as f64,
            _ => f64::NAN,
        },
    };
    for figures in all {
        let seconds = figures.seconds();
        println!(
            "{:<20} {:>10.3} {:>10.1} {:>10.0} {:>8} {:>14} {:>6}  {:>8.3}",
            figures.name,
            seconds,
            load.bytes() as f64 / MIB / seconds,
            load.files as f64 / seconds,
            if figures.cpu.is_empty() { "-".into() } else { format!("{:.2}", spread(&figures.cpu).0) },
            figures.wire().map_or_else(|| "-".into(), |bytes| bytes.to_string()),
            figures.times.len(),
            ratio(figures),
        );
    }
    let mut ratios = Map::new();
    for figures in baselines {
        ratios.insert(figures.name.clone(), number(ratio(figures)));
    }
    if let Some(limit) = limit {
        let reached = load.bytes() as f64 / ours.seconds() / limit;
        println!("{:<20} {:>10} {:>10.1} {:>51.3}", "limit", "", limit / MIB, reached);
        ratios.insert("limit".into(), number(reached));
    }
    let others: Map<String, Value> =
        baselines.iter().map(|figures| (figures.name.clone(), figures.value(load))).collect();
    let line = json!({
        "schema": "avalon.bench/1",
        "shape": shape,
        "ours": ours.value(load),
        "baselines": others,
        "ratio": ratios,
    });
    println!("{line}");
}
