//! Sizes, rates and times as people read them. JSON has plain numbers instead.

use std::time::Duration;

use bytesize::ByteSize;

/// Shows a size, as `1.8 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// Shows a rate, as `112.0 MiB/s`.
pub(crate) fn rate(bytes_per_second: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest u64; a negative rate is 0"
    )]
    let whole = bytes_per_second as u64;
    format!("{}/s", size(whole))
}

/// Shows how long something took or will take, as `0.4s`, `13s`, `4m 05s`, `3h 04m` or `3d 4h`.
pub(crate) fn duration(seconds: f64) -> String {
    // Beyond ten seconds nobody wants tenths; below, they are the point.
    if seconds < 9.95 {
        return format!("{:.1}s", seconds.max(0.0));
    }
    let whole = Duration::try_from_secs_f64(seconds.round()).unwrap_or(Duration::MAX).as_secs();
    let (minutes, hours, days) = (whole / 60, whole / 3600, whole / 86_400);
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{minutes}m {:02}s", whole % 60),
        3600..86_400 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Shows a count with its noun, as `1 file` and `2 files`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// Returns how many of a hundred parts are there, rounded down so that 100 means all.
pub(crate) fn percent(present: u64, total: u64) -> u64 {
    if total == 0 {
        return 100;
    }
    u64::try_from(u128::from(present.min(total)) * 100 / u128::from(total)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lose_precision_as_they_grow() {
        for (seconds, shown) in [
            (0.04, "0.0s"),
            (1.26, "1.3s"),
            (9.96, "10s"),
            (59.6, "1m 00s"),
            (245.0, "4m 05s"),
            (11_045.0, "3h 04m"),
            (273_700.0, "3d 4h"),
            (-1.0, "0.0s"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
        assert!(duration(f64::INFINITY).ends_with('h'));
    }

    #[test]
    fn sizes_rates_and_parts_have_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_975_684_956), "1.8 GiB");
        assert_eq!(rate(117_440_512.0), "112.0 MiB/s");
        assert_eq!((percent(999, 1000), percent(7, 7), percent(0, 0), percent(9, 5)), (99, 100, 100, 100));
        assert_eq!((count(1, "file"), count(0, "file")), ("1 file".into(), "0 files".into()));
    }
}
