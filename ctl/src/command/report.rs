//! `avalonctl report`: publishes and transfers of a time, by person, project, day or site.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use avalon_protocol::{
    control::{ErrorCode, ReportPublish, ReportReply, ReportTransfer, route},
    exit_code::ExitCode,
};
use clap::{Args, ValueEnum};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use crate::{
    args::time_span,
    context::{Context, said},
    failure::Failure,
    measure::{duration, size},
    table::{self, Cell},
};

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// What a row is about.
    #[arg(long, value_name = "WHAT", default_value = "day")]
    by: By,
    /// From when: a day such as 2026-11-01, or how long ago, such as 7d, 4w or 12h.
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: String,
    /// Up to when, this day not included; by default now.
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// As a table, as CSV for a spreadsheet, or as JSON.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum By {
    /// Who published.
    Person,
    /// The project.
    Project,
    /// The day, in your time zone.
    Day,
    /// Where it was published.
    Site,
}

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// For spreadsheets.
    Csv,
    /// For scripts.
    Json,
}

/// One row.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
struct Row {
    /// The person, project, day or site.
    name: String,
    /// Versions that were published or grew.
    versions: u64,
    files: u64,
    bytes: u64,
    /// Versions that came to the node that was asked.
    placed_versions: u64,
    placed_bytes: u64,
    received_bytes: u64,
    placed_seconds: f64,
    /// Of all versions of the report, how many the site has now; only by site.
    #[serde(skip_serializing_if = "Option::is_none")]
    has_versions: Option<u64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    by: By,
    since: String,
    until: Option<String>,
    time_zone: &'a str,
    transfers_known_since: Option<&'a str>,
    rows: &'a [Row],
}

/// Reports.
pub(crate) async fn run(context: &Context<'_>, args: &ReportArgs) -> Result<ExitCode, Failure> {
    let zone = TimeZone::system();
    #[expect(clippy::disallowed_methods, reason = "a report ends now")]
    let now = Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
    let since = moment(&args.since, now, &zone)?;
    let until = args.until.as_deref().map(|text| moment(text, now, &zone)).transpose()?;
    let text = |time: Timestamp| time.as_millisecond().max(0).to_string();
    let (since_ms, until_ms) = (text(since), until.map(text));
    let query = [
        ("since_ms", Some(since_ms.as_str())),
        ("until_ms", until_ms.as_deref()),
        ("project", context.project.as_deref()),
    ];
    let reply: ReportReply = context.client.get(route::REPORT, &query).await?;
    let rows = rows(&reply, args.by, &zone);
    let output = context.output;
    if output.is_json() || args.format == Format::Json {
        output.json(&Summary {
            schema: "avalonctl.report/1",
            by: args.by,
            since: since.to_string(),
            until: until.map(|until| until.to_string()),
            time_zone: zone.iana_name().unwrap_or("local"),
            transfers_known_since: reply.transfers_known_since.as_deref(),
            rows: &rows,
        });
        return Ok(ExitCode::Ok);
    }
    match args.format {
        Format::Csv => output.bytes(csv(&rows, args.by).as_bytes()),
        _ => show(context, &rows, args.by),
    }
    if let Some(known) = &reply.transfers_known_since {
        output.talk(&format!("transfers from before {known} are not known here any more"));
    }
    Ok(ExitCode::Ok)
}

/// Reads a day, or how long ago.
pub(crate) fn moment(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let wrong = || {
        said(
            ErrorCode::BadRequest,
            format!("{text:?} is no time"),
            "write a day such as 2026-11-01, or how long ago, such as 7d, 4w or 12h",
        )
    };
    if let Ok(day) = text.parse::<Date>() {
        return day.to_zoned(zone.clone()).map(|start| start.timestamp()).map_err(|_| wrong());
    }
    let days = |ending: char, days: u64| {
        let number: u64 = text.strip_suffix(ending)?.trim().parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(days * 24 * 60 * 60)?))
    };
    let ago = days('d', 1).or_else(|| days('w', 7)).or_else(|| time_span(text).ok()).ok_or_else(wrong)?;
    let ago = jiff::SignedDuration::try_from(ago).map_err(|_| wrong())?;
    now.checked_sub(ago).map_err(|_| wrong())
}

fn rows(reply: &ReportReply, by: By, zone: &TimeZone) -> Vec<Row> {
    let day = |time: &str| {
        let time: Option<Timestamp> = time.parse().ok();
        time.map(|time| time.to_zoned(zone.clone()).date().to_string()).unwrap_or_default()
    };
    let of_publish = |publish: &ReportPublish| match by {
        By::Person => publish.author.clone(),
        By::Project => publish.project.clone(),
        By::Day => day(&publish.published),
        By::Site => publish.site.clone(),
    };
    let of_transfer = |transfer: &ReportTransfer| match by {
        // Nobody in particular: a mirror fetches by itself.
        By::Person => None,
        By::Project => Some(transfer.project.clone()),
        By::Day => Some(day(&transfer.placed)),
        By::Site => Some(reply.site.clone()),
    };
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut seen: BTreeSet<(String, &str)> = BTreeSet::new();
    for publish in &reply.publishes {
        let name = of_publish(publish);
        let row = rows.entry(name.clone()).or_default();
        // A version that grew is one version.
        row.versions += u64::from(seen.insert((name, &publish.reference)));
        row.files += publish.files;
        row.bytes += publish.bytes;
    }
    for transfer in &reply.transfers {
        let Some(name) = of_transfer(transfer) else { continue };
        let row = rows.entry(name).or_default();
        row.placed_versions += 1;
        row.placed_bytes += transfer.bytes;
        row.received_bytes += transfer.bytes_received;
        row.placed_seconds += transfer.seconds;
    }
    if by == By::Site {
        let mut held: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for publish in &reply.publishes {
            for site in &publish.held_at {
                held.entry(site).or_default().insert(&publish.reference);
            }
        }
        for (site, versions) in held {
            rows.entry(site.to_owned()).or_default().has_versions = Some(versions.len() as u64);
        }
        for row in rows.values_mut() {
            row.has_versions = row.has_versions.or(Some(0));
        }
    }
    rows.into_iter().map(|(name, row)| Row { name, ..row }).collect()
}

fn show(context: &Context<'_>, rows: &[Row], by: By) {
    let mut header = vec![title(by), "VERSIONS", "FILES", "SIZE", "CAME HERE", "SIZE", "RECEIVED", "TIME"];
    header.extend((by == By::Site).then_some("HAS"));
    let cells = rows.iter().map(|row| {
        let number = |number: u64| Cell::number(number, number.to_string());
        let mut cells = vec![
            Cell::text(&row.name),
            number(row.versions),
            number(row.files),
            Cell::number(row.bytes, size(row.bytes)),
            number(row.placed_versions),
            Cell::number(row.placed_bytes, size(row.placed_bytes)),
            Cell::number(row.received_bytes, size(row.received_bytes)),
            Cell::number(format!("{:.1}", row.placed_seconds), duration(row.placed_seconds)),
        ];
        cells.extend(row.has_versions.map(number));
        cells
    });
    table::print(context.output, &header, cells.collect());
    if rows.is_empty() {
        context.output.talk("nothing was published, and nothing came here, in this time");
    }
}

fn title(by: By) -> &'static str {
    match by {
        By::Person => "PERSON",
        By::Project => "PROJECT",
        By::Day => "DAY",
        By::Site => "SITE",
    }
}

/// Writes rows as RFC 4180 says, with a header.
fn csv(rows: &[Row], by: By) -> String {
    let mut header = vec![
        title(by).to_lowercase(),
        "versions".into(),
        "files".into(),
        "bytes".into(),
        "placed_versions".into(),
        "placed_bytes".into(),
        "received_bytes".into(),
        "placed_seconds".into(),
    ];
    header.extend((by == By::Site).then(|| "has_versions".to_owned()));
    let lines = rows.iter().map(|row| {
        let mut fields = vec![
            field(&row.name),
            row.versions.to_string(),
            row.files.to_string(),
            row.bytes.to_string(),
            row.placed_versions.to_string(),
            row.placed_bytes.to_string(),
            row.received_bytes.to_string(),
            format!("{:.1}", row.placed_seconds),
        ];
        fields.extend(row.has_versions.map(|number| number.to_string()));
        fields.join(",")
    });
    std::iter::once(header.join(",")).chain(lines).map(|line| format!("{line}\r\n")).collect()
}

/// Writes a text as a field. What a spreadsheet would take for a formula gets an apostrophe in front: people choose their names.
pub(crate) fn field(text: &str) -> String {
    let guarded =
        match text.trim_start().starts_with(['=', '+', '-', '@']) || text.starts_with(['\t', '\r', '\n']) {
            true => format!("'{text}"),
            false => text.to_owned(),
        };
    match guarded.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", guarded.replace('"', "\"\"")),
        false => guarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDaemon;

    fn publish(reference: &str, author: &str, published: &str, generation: u32) -> ReportPublish {
        ReportPublish {
            reference: reference.into(),
            project: "lantern".into(),
            author: author.into(),
            node: "srv@london".into(),
            site: "london".into(),
            published: published.into(),
            generation,
            files: 2,
            bytes: 1024,
            held_at: vec!["london".into(), "montreal".into()],
        }
    }

    fn reply() -> ReportReply {
        ReportReply {
            schema: "avalonctl.report-facts/1".into(),
            site: "montreal".into(),
            publishes: vec![
                publish("lantern:sh010/beauty@v001", "anna", "2026-11-21T23:30:00Z", 1),
                publish("lantern:sh010/beauty@v001", "anna", "2026-11-22T10:00:00Z", 2),
                publish("lantern:sh010/comp@v001", "=cmd(\"x\")", "2026-11-22T11:00:00Z", 1),
            ],
            transfers: vec![ReportTransfer {
                reference: "lantern:sh010/beauty@v001".into(),
                project: "lantern".into(),
                placed: "2026-11-22T10:05:00Z".into(),
                files: 4,
                bytes: 2048,
                bytes_received: 100,
                seconds: 1.25,
                sources: vec!["srv@london".into()],
            }],
            transfers_known_since: None,
        }
    }

    fn by(by: By, zone: &str) -> Vec<(String, u64, u64, u64)> {
        let rows = rows(&reply(), by, &TimeZone::get(zone).unwrap());
        rows.into_iter().map(|row| (row.name, row.versions, row.files, row.placed_versions)).collect()
    }

    #[test]
    fn facts_are_added_up_by_what_is_asked_for_and_growth_is_one_version() {
        let row = |name: &str, versions, files, placed| (name.to_owned(), versions, files, placed);
        assert_eq!(by(By::Person, "UTC"), [row("=cmd(\"x\")", 1, 2, 0), row("anna", 1, 4, 0)]);
        assert_eq!(by(By::Project, "UTC"), [row("lantern", 2, 6, 1)]);
        assert_eq!(by(By::Site, "UTC"), [row("london", 2, 6, 0), row("montreal", 0, 0, 1)]);
        assert_eq!(by(By::Day, "UTC"), [row("2026-11-21", 1, 2, 0), row("2026-11-22", 2, 4, 1)]);
        // Half past eleven in the evening is the next day elsewhere.
        assert_eq!(by(By::Day, "Europe/Berlin"), [row("2026-11-22", 2, 6, 1)]);
    }

    #[test]
    fn csv_is_what_a_spreadsheet_reads_and_no_name_is_a_formula() {
        let rows = rows(&reply(), By::Person, &TimeZone::UTC);
        assert_eq!(
            csv(&rows, By::Person),
            "person,versions,files,bytes,placed_versions,placed_bytes,received_bytes,placed_seconds\r\n\
             \"'=cmd(\"\"x\"\")\",1,2,1024,0,0,0,0.0\r\nanna,1,4,2048,0,0,0,0.0\r\n"
        );
        for (text, expected) in
            [("+1", "'+1"), (" -1", "' -1"), ("@x", "'@x"), ("\tx", "'\tx"), ("a,b", "\"a,b\"")]
        {
            assert_eq!(field(text), expected);
        }
    }

    #[test]
    fn times_are_days_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        for (text, expected) in [
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("7d", "2026-11-15T12:00:00Z"),
            ("2w", "2026-11-08T12:00:00Z"),
            ("90m", "2026-11-22T10:30:00Z"),
        ] {
            assert_eq!(moment(text, now, &berlin).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "soon", "7", "99999999999999999999d", "-3d"] {
            assert!(moment(text, now, &berlin).is_err(), "{text}");
        }
    }

    #[test]
    fn the_daemon_is_asked_for_the_time_and_rows_are_printed_as_asked_for() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/report", &reply());
        let args = [
            "report",
            "--by",
            "project",
            "--since",
            "2026-11-01",
            "--until",
            "2026-12-01",
            "--project",
            "lantern",
        ];
        let ran = daemon.run(&args);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "lantern\t2\t6\t3072\t1\t2048\t100\t1.2\n"));
        let asked = daemon.requests().pop().unwrap();
        assert!(asked.starts_with("GET /v1/report?since_ms=17") && asked.contains("&until_ms=17"), "{asked}");
        let csv = daemon.run(&[&args[..], &["--format", "csv"]].concat());
        assert!(csv.stdout.ends_with("\r\nlantern,2,6,3072,1,2048,100,1.2\r\n"), "{csv:?}");
        let json = daemon.run(&[&args[..], &["--json"]].concat()).json();
        assert_eq!((&json["by"], &json["rows"][0]["placed_seconds"]), (&"project".into(), &1.25.into()));
        assert_eq!(daemon.run(&["report", "--since", "soon"]).exit, 2);
    }
}
