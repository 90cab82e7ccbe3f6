//! What a series of samples comes to: slopes, the most there was, and what grew without an end.

use serde::Serialize;

use super::sample::{Messages, Sample};

/// How often one message may come in a minute: far more than versions do.
const MESSAGE_LIMIT: u64 = 600;
/// How many more descriptors or threads there may be in the calmest moment of the last quarter than in that of the first.
const GROWTH_LIMIT: u64 = 16;
/// Fewer samples say nothing about growth.
const SERIES: usize = 40;
const MIB: f64 = 1_048_576.0;

/// What one node took.
#[derive(Debug, Serialize)]
pub(super) struct NodeFigures {
    node: String,
    samples: usize,
    restarts: u32,
    rss_mib: Series,
    /// What belongs to no file: the heap, without the page cache of what is mapped.
    anonymous_mib: Series,
    /// That of the second half alone, when what is cached should have come.
    late_rss_mib_per_hour: Option<f64>,
    descriptors: Series,
    threads: Series,
    log_lines_per_minute: f64,
    log_bytes_per_hour: f64,
    /// The message that came most often in one minute, and how often.
    most_repeated: Option<(String, u64)>,
    state_mib: Series,
    feeds_mib: Series,
    catalog_mib: Series,
    /// The catalog's directory over what its rows take by themselves.
    catalog_over_rows: Series,
}

/// One thing over time.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    first: f64,
    last: f64,
    most: f64,
    /// By least squares over all processes of the node, each with a level of its own; none where there is too little.
    per_hour: Option<f64>,
}

/// Sums up what was seen of a node after the time in which caches fill, of each of its processes.
pub(super) fn of_node(
    name: &str,
    node: usize,
    samples: &[Sample],
    messages: &Messages,
    warm_up: f64,
) -> NodeFigures {
    let all: Vec<&Sample> = samples.iter().filter(|sample| sample.node == node).collect();
    let warm = warm(&all, warm_up);
    let half = warm.get(warm.len() / 2).map_or(f64::MAX, |sample| sample.at);
    let late: Vec<&Sample> = warm.iter().copied().filter(|sample| sample.at >= half).collect();
    let mib = |bytes: u64| bytes as f64 / MIB;
    let series = |of: &dyn Fn(&Sample) -> f64| series(&all, &warm, of);
    let hours = all.last().map_or(0.0, |sample| sample.at) / 3600.0;
    let (lines, bytes) = all.last().map_or((0, 0), |sample| (sample.log_lines, sample.log_bytes));
    let of_node = messages.iter().filter(|((of, _), _)| *of == node);
    let most = of_node.max_by_key(|(_, times)| **times);
    NodeFigures {
        node: name.to_owned(),
        samples: all.len(),
        restarts: all.last().map_or(0, |sample| sample.life),
        rss_mib: series(&|sample| mib(sample.rss_bytes)),
        anonymous_mib: series(&|sample| mib(sample.anonymous_bytes)),
        late_rss_mib_per_hour: slope(&late, &|sample| mib(sample.rss_bytes)),
        descriptors: series(&|sample| sample.descriptors as f64),
        threads: series(&|sample| sample.threads as f64),
        log_lines_per_minute: round(lines as f64 / hours / 60.0),
        log_bytes_per_hour: round(bytes as f64 / hours),
        most_repeated: most.map(|((_, message), times)| (message.clone(), *times)),
        state_mib: series(&|sample| mib(sample.state_bytes)),
        feeds_mib: series(&|sample| mib(sample.feed_bytes)),
        catalog_mib: series(&|sample| mib(sample.catalog_bytes)),
        catalog_over_rows: series(&|sample| match sample.live_bytes {
            0 => f64::NAN,
            live => sample.catalog_bytes as f64 / live as f64,
        }),
    }
}

/// Says what of a node grew without an end.
pub(super) fn faults(
    name: &str,
    node: usize,
    samples: &[Sample],
    messages: &Messages,
    warm_up: f64,
) -> Vec<String> {
    let all: Vec<&Sample> = samples.iter().filter(|sample| sample.node == node).collect();
    let warm = warm(&all, warm_up);
    let grows = |what: &str, of: &dyn Fn(&Sample) -> u64| {
        let least = steady_growth(&warm.iter().map(|sample| of(sample)).collect::<Vec<_>>())?;
        Some(format!("{name}: {what} grow: {least:?} at least in each quarter"))
    };
    let growing =
        [grows("descriptors", &|sample| sample.descriptors), grows("threads", &|sample| sample.threads)];
    let loud = messages.iter().filter(|((of, _), times)| *of == node && **times > MESSAGE_LIMIT);
    let loud = loud.map(|((_, message), times)| format!("{name} said {times} times in a minute: {message}"));
    growing.into_iter().flatten().chain(loud).collect()
}

/// Returns the least of each quarter when it rises from each to the next, and by more than may be.
fn steady_growth(values: &[u64]) -> Option<Vec<u64>> {
    if values.len() < SERIES {
        return None;
    }
    let quarters = values.chunks(values.len().div_ceil(4));
    let least: Vec<u64> = quarters.filter_map(|quarter| quarter.iter().min().copied()).collect();
    let rises = least.windows(2).all(|two| two[0] < two[1]);
    (rises && least.last()? - least.first()? > GROWTH_LIMIT).then_some(least)
}

/// Leaves out the first moments of each process.
fn warm<'a>(all: &[&'a Sample], warm_up: f64) -> Vec<&'a Sample> {
    let since = |sample: &Sample| {
        let first = all.iter().find(|other| other.life == sample.life);
        sample.at - first.map_or(sample.at, |first| first.at)
    };
    all.iter().copied().filter(|sample| since(sample) >= warm_up).collect()
}

fn series(all: &[&Sample], warm: &[&Sample], of: &dyn Fn(&Sample) -> f64) -> Series {
    let values = || all.iter().map(|sample| of(sample)).filter(|value| value.is_finite());
    Series {
        first: round(values().next().unwrap_or_default()),
        last: round(values().last().unwrap_or_default()),
        most: round(values().fold(0.0, f64::max)),
        per_hour: slope(warm, of),
    }
}

/// Returns the slope of the lines of least squares through the samples of each process, which have one slope and levels of
/// their own.
fn slope(samples: &[&Sample], of: &dyn Fn(&Sample) -> f64) -> Option<f64> {
    let (mut above, mut below, mut count) = (0.0, 0.0, 0);
    for life in samples.chunk_by(|one, next| one.life == next.life) {
        let points = life.iter().map(|sample| (sample.at / 3600.0, of(sample)));
        let points: Vec<(f64, f64)> = points.filter(|(_, value)| value.is_finite()).collect();
        let number = points.len() as f64;
        let middle = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        for (at, value) in &points {
            let at = at - middle.0 / number;
            above += at * (value - middle.1 / number);
            below += at * at;
            count += 1;
        }
    }
    (count >= 3 && below > 0.0).then(|| round(above / below))
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(life: u32, at: f64, rss_mib: f64) -> Sample {
        Sample { life, at, rss_bytes: (rss_mib * MIB) as u64, ..Sample::default() }
    }

    #[test]
    fn a_slope_is_that_within_each_process_and_not_from_one_to_the_next() {
        // Two processes that grow by 60 MiB in an hour; the second begins far lower.
        let grown = (0..30u32).map(|tick| sample(0, f64::from(tick) * 60.0, 100.0 + f64::from(tick)));
        let again = (30..60u32).map(|tick| sample(1, f64::from(tick) * 60.0, f64::from(tick) - 20.0));
        let all: Vec<Sample> = grown.chain(again).collect();
        let all: Vec<&Sample> = all.iter().collect();
        let of = |sample: &Sample| sample.rss_bytes as f64 / MIB;
        assert_eq!(slope(&all, &of), Some(60.0));
        assert_eq!(warm(&all, 600.0).len(), 40, "ten minutes of each process are left out");
        assert_eq!(slope(&all[..2], &of), None);
    }

    #[test]
    fn what_grows_in_each_quarter_grows_without_an_end_and_what_comes_and_goes_does_not() {
        let leak: Vec<u64> = (0..100).map(|tick| 40 + tick / 2 + tick % 7).collect();
        assert!(steady_growth(&leak).is_some());
        let waves: Vec<u64> = (0..100).map(|tick| 40 + tick % 50).collect();
        assert_eq!(steady_growth(&waves), None);
        let slow: Vec<u64> = (0..100).map(|tick| 40 + tick / 25).collect();
        assert_eq!(steady_growth(&slow), None, "some more are no leak");
    }

    #[test]
    fn a_message_is_what_does_not_change_from_line_to_line() {
        let line =
            "2026-11-23T19:00:00.123456Z  INFO avalond::publish: version published version=a/b@v001 files=3";
        assert_eq!(super::super::sample::message(line), "INFO avalond::publish: version published");
    }
}
