//! `avalonctl status`: how the daemon is; what has to be looked at comes first.

use avalon_protocol::{
    control::{JobStatus, PeerStatus, ProjectState, ProjectStatus, StatusReply, route},
    exit_code::ExitCode,
};
use clap::Args;

use crate::{
    command::log::{job_state, peer_state, severity},
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{duration, percent, rate, size},
    output::{Output, Style},
    table::{Cell, aligned},
};

/// How many projects' unfinished version directories are shown each; `--json` has all.
const MAX_PENDING_SHOWN: usize = 5;

/// From which age on it is shown that this node did not hear of the studio's rights, in seconds.
const OLD_SECONDS: f64 = 120.0;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print nothing: exit with 0 when all is well, 1 when something has to be looked at, 5 without a daemon.
    #[arg(long)]
    check: bool,
}

/// Shows the daemon's state.
pub(crate) async fn run(context: &Context<'_>, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let status = context.client.get::<StatusReply>(route::STATUS, &[]).await;
    if args.check {
        return Ok(match status {
            Ok(status) if status.health.is_empty() => ExitCode::Ok,
            Ok(_) => ExitCode::Error,
            Err(error) => Failure::from(error).exit(),
        });
    }
    let status = status?;
    if context.output.is_json() {
        context.output.json(&status);
    } else {
        show(context.output, &status);
    }
    Ok(ExitCode::Ok)
}

fn show(output: &Output, status: &StatusReply) {
    show_health(output, status);
    let health = if status.health.is_empty() {
        output.emphasised(Style::Good, "healthy")
    } else {
        output.emphasised(Style::Warning, "see the health check above")
    };
    output.data(&format!(
        "avalond {}  up {}  node {}@{}  studio {}  {health}",
        escape(&status.version),
        duration(status.uptime_seconds),
        escape(&status.node),
        escape(&status.site),
        escape(&status.studio),
    ));
    output.data(&format!(
        "listens on {}  certificate ends {}  pid {}",
        escape(&status.listen),
        escape(&status.certificate_expires),
        status.pid
    ));
    // What is heard all the time is no news.
    if status.knowledge_age_seconds >= OLD_SECONDS {
        let age = duration(status.knowledge_age_seconds);
        output.data(&format!("knows the studio's rights as of {age} ago"));
    }
    section(output, &["PROJECT", "MODE", "STATE", "VERSIONS", "PATH"], status.projects.iter().map(project));
    for project in &status.projects {
        show_mount(output, project);
        show_space(output, project);
        show_pending(output, project);
    }
    section(output, &["NODE", "SITE", "STATE", "RTT", "ADDRESS", "NOTE"], status.peers.iter().map(peer));
    if status.peers.is_empty() {
        output.data("\nno peers");
    }
    section(
        output,
        &["JOB", "VERSION", "STATE", "DONE", "SIZE", "RATE", "ETA", "NOTE"],
        status.jobs.iter().map(job),
    );
}

fn show_health(output: &Output, status: &StatusReply) {
    if status.health.is_empty() {
        return;
    }
    output.data("# Health check:");
    for health in &status.health {
        let (code, message) = (escape(&health.code), escape(&health.message));
        output.data(&format!("#     - {} {code}: {message}", severity(health.severity)));
        for hint in health.hint.iter() {
            output.data(&format!("#         hint: {}", escape(hint)));
        }
    }
    output.data("");
}

/// Prints a table of its own after an empty line; aligned in a pipe too, because `--json` is what scripts read.
fn section(output: &Output, header: &[&str], rows: impl Iterator<Item = Vec<Cell>>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output.data("");
        aligned(header, &rows).iter().for_each(|line| output.data(line));
    }
}

fn project(project: &ProjectStatus) -> Vec<Cell> {
    let state = match project.state {
        ProjectState::Scanning => "scanning",
        ProjectState::Watching => "watching",
        ProjectState::Paused => "paused",
    };
    let state = match &project.detail {
        Some(detail) => format!("{state}: {detail}"),
        None => state.to_owned(),
    };
    vec![
        Cell::text(&project.name),
        Cell::text(project.mode.to_string()),
        Cell::text(state),
        Cell::number(project.versions, project.versions.to_string()),
        Cell::text(&project.path),
    ]
}

/// Says of a project that other machines write to how soon that is noticed.
fn show_mount(output: &Output, project: &ProjectStatus) {
    let Some(mount) = &project.mount else { return };
    let name = escape(&project.name);
    let lies = match (&mount.kind, mount.certain) {
        (Some(kind), true) => format!("{name} lies on {}, where other machines write", escape(kind)),
        (Some(kind), false) => format!(
            "{name} lies on {}, which does not say whether other machines write there (project.network)",
            escape(kind)
        ),
        (None, _) => format!("other machines write to {name}, as its configuration says"),
    };
    let found = match mount.found_within_seconds {
        Some(seconds) => format!("what they publish is noticed within {}", duration(seconds)),
        None => "the first scan is not done".to_owned(),
    };
    output.data(&format!("{lies}: {found}"));
}

/// Says how full a project is, where that is limited.
fn show_space(output: &Output, project: &ProjectStatus) {
    let Some(space) = &project.space else { return };
    let mut parts = Vec::new();
    if let Some(quota) = space.quota_bytes {
        let used = space.used_bytes.map_or_else(|| "not counted yet".to_owned(), size);
        parts.push(format!("{used} of its quota of {}", size(quota)));
    }
    if let Some(keep_free) = space.keep_free_bytes {
        let free = space.free_bytes.map_or_else(|| "an unknown amount".to_owned(), size);
        parts.push(format!("{free} free on the volume, {} are to stay free", size(keep_free)));
    }
    output.data(&format!("room of {}: {}", escape(&project.name), parts.join("; ")));
}

fn show_pending(output: &Output, project: &ProjectStatus) {
    for pending in project.pending.iter().take(MAX_PENDING_SHOWN) {
        let (name, dir) = (escape(&project.name), escape(&pending.dir));
        output.data(&format!("not whole yet: {name}/{dir}: {}", escape(&pending.why.join("; "))));
    }
    let more = project.pending.len().saturating_sub(MAX_PENDING_SHOWN);
    if more > 0 {
        output.data(&format!("and {more} more in {}", escape(&project.name)));
    }
}

fn peer(peer: &PeerStatus) -> Vec<Cell> {
    let or_dash = |text: &str| Cell::text(if text.is_empty() { "-" } else { text });
    let rtt = peer.rtt_ms.map_or_else(|| "-".to_owned(), |rtt_ms| format!("{rtt_ms:.1} ms"));
    vec![
        or_dash(&peer.node),
        or_dash(&peer.site),
        Cell::text(peer_state(peer.state)),
        Cell::number(&rtt, &rtt),
        Cell::text(&peer.address),
        Cell::text(peer.detail.clone().unwrap_or_default()),
    ]
}

fn job(job: &JobStatus) -> Vec<Cell> {
    let part = format!("{}%", percent(job.bytes_present, job.bytes_total));
    let eta = job.eta_seconds.map_or_else(|| "-".to_owned(), duration);
    vec![
        Cell::text(&job.id),
        Cell::text(&job.reference),
        Cell::text(job_state(job.state)),
        Cell::number(&part, &part),
        Cell::number(job.bytes_total, size(job.bytes_total)),
        Cell::number(job.bytes_per_second, rate(job.bytes_per_second)),
        Cell::number(&eta, &eta),
        Cell::text(job.reason.clone().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{
        control::{
            Health, JobState, MountStatus, PeerState, PendingVersion, PlanState, Severity, SpaceStatus,
        },
        mode::ProjectMode,
    };

    use super::*;
    use crate::fake::{FakeDaemon, item, job, run};

    fn status(health: Vec<Health>) -> StatusReply {
        let peer = |node: &str, state, rtt_ms, detail: Option<&str>| PeerStatus {
            node: node.into(),
            site: node.into(),
            state,
            address: "10.0.0.2:4700".into(),
            rtt_ms,
            detail: detail.map(str::to_owned),
        };
        StatusReply {
            schema: "avalonctl.status/1".into(),
            node: "ws1".into(),
            site: "london".into(),
            studio: "northlight".into(),
            version: "0.1.0".into(),
            pid: 4711,
            uptime_seconds: 273_700.0,
            listen: "0.0.0.0:4700".into(),
            certificate_expires: "2027-02-20T10:00:00Z".into(),
            knowledge_age_seconds: 10_800.0,
            peers: vec![
                peer("montreal", PeerState::Online, Some(79.96), None),
                peer("", PeerState::Offline, None, Some("timed out")),
            ],
            jobs: vec![job(&item(PlanState::Fetch, Some("7f3a")), JobState::Running)],
            health,
            projects: vec![ProjectStatus {
                name: "lantern".into(),
                path: "/srv/projects/lantern".into(),
                mode: ProjectMode::Mirror,
                state: ProjectState::Watching,
                detail: None,
                versions: 12,
                pending: vec![PendingVersion {
                    dir: "assets/a/publish/m/v001".into(),
                    why: vec!["m.abc is open".into()],
                }],
                space: Some(SpaceStatus {
                    used_bytes: Some(3 << 30),
                    quota_bytes: Some(4 << 30),
                    free_bytes: Some(5 << 30),
                    keep_free_bytes: None,
                }),
                mount: Some(MountStatus {
                    kind: Some("NFS".into()),
                    certain: true,
                    found_within_seconds: Some(61.0),
                }),
            }],
            scrub: None,
        }
    }

    fn sick() -> Vec<Health> {
        vec![Health {
            code: "root-missing".into(),
            severity: Severity::Error,
            message: "/srv/projects is not there".into(),
            hint: Some("mount it".into()),
        }]
    }

    fn daemon(health: Vec<Health>) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/status", &status(health));
        daemon
    }

    #[test]
    fn it_is_told_in_words_one_line_each() {
        let ran = daemon(vec![]).run(&["status"]);
        assert_eq!(
            ran.stdout,
            "avalond 0.1.0  up 3d 4h  node ws1@london  studio northlight  healthy\n\
             listens on 0.0.0.0:4700  certificate ends 2027-02-20T10:00:00Z  pid 4711\n\
             knows the studio's rights as of 3h 00m ago\n\
             \n\
             PROJECT  MODE    STATE     VERSIONS  PATH\n\
             lantern  mirror  watching        12  /srv/projects/lantern\n\
             lantern lies on NFS, where other machines write: what they publish is noticed within 1m 01s\n\
             room of lantern: 3.0 GiB of its quota of 4.0 GiB\n\
             not whole yet: lantern/assets/a/publish/m/v001: m.abc is open\n\
             \n\
             NODE      SITE      STATE    RTT      ADDRESS        NOTE\n\
             montreal  montreal  online   80.0 ms  10.0.0.2:4700\n\
             -         -         offline        -  10.0.0.2:4700  timed out\n\
             \n\
             JOB   VERSION                          STATE    DONE  SIZE     RATE         ETA  NOTE\n\
             7f3a  lantern:robot/modelDefault@v002  running   50%  2.0 GiB  100.0 MiB/s  10s\n"
        );
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    }

    #[test]
    fn what_has_to_be_looked_at_comes_first() {
        let ran = daemon(sick()).run(&["status"]);
        let expected = "# Health check:\n#     - error root-missing: /srv/projects is not there\n\
                        #         hint: mount it\n\navalond 0.1.0  ";
        assert!(ran.stdout.starts_with(expected), "{ran:?}");
        assert!(!ran.stdout.contains("healthy"));
    }

    #[test]
    fn check_is_silent_and_has_three_answers() {
        for (health, exit) in [(vec![], 0), (sick(), 1)] {
            let ran = daemon(health).run(&["status", "--check"]);
            assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (exit, "", ""));
        }
        let ran = run(&["status", "--check", "--socket", "/nowhere/api.sock"]);
        assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (5, "", ""));
    }

    #[test]
    fn json_is_the_daemons_answer() {
        let json = daemon(sick()).run(&["status", "--json"]).json();
        assert_eq!(serde_json::from_value::<StatusReply>(json).unwrap(), status(sick()));
    }
}
