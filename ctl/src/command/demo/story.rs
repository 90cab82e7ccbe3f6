//! What the demo shows, in order.

use std::time::Duration;

use avalon_protocol::{
    control::{JobStatus, ListReply, PeerState, Presence, StatusReply, route},
    exit_code::ExitCode,
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    DemoError,
    compare::{Comparison, Task},
    node::Node,
    show::{self, Show, ShowVersion},
    studio::Studio,
    teller::Teller,
    visibility::Visibility,
};
use crate::{
    command::pull::{self, PullArgs},
    context::Context,
    measure::{count, size},
    output::Output,
};

/// How often the daemons are asked while something is waited for; short, so that montreal is killed in mid-transfer.
const ASK_AGAIN: Duration = Duration::from_millis(15);

/// How long a daemon may take to say what it waits for, when the time is over.
const DETAIL_LIMIT: Duration = Duration::from_secs(2);

/// What the demo found.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// How many versions the show has.
    pub(super) versions: u64,
    /// How many files it has.
    pub(super) files: u64,
    /// Their size.
    pub(super) bytes: u64,
    /// Files whose content differs somewhere.
    pub(super) differ: u64,
    /// Files that are not where they should be.
    pub(super) missing: u64,
    /// Files that should not be there.
    pub(super) extra: u64,
    /// How often a version was seen before all of it was there.
    pub(super) half_visible: u64,
    /// What montreal had when it was killed.
    pub(super) killed_at: Option<String>,
}

impl Outcome {
    /// Returns the outcome of a demo that did not come to its end.
    pub(super) fn of_failure(show: &Show) -> Self {
        let versions = show.versions.len() as u64;
        Self { versions, files: show.files(), bytes: show.bytes(), ..Self::default() }
    }

    /// Says whether all is as promised.
    pub(super) fn is_right(&self) -> bool {
        self.differ + self.missing + self.extra + self.half_visible == 0
    }

    /// Returns what is wrong, if something is.
    pub(super) fn wrong(&self) -> Option<DemoError> {
        let Self { differ, missing, extra, half_visible, .. } = *self;
        (!self.is_right()).then_some(DemoError::Wrong { differ, missing, extra, half_visible })
    }
}

/// The running demo.
pub(super) struct Story<'a> {
    context: &'a Context<'a>,
    studio: &'a mut Studio,
    teller: &'a Teller<'a>,
}

impl<'a> Story<'a> {
    pub(super) fn new(context: &'a Context<'a>, studio: &'a mut Studio, teller: &'a Teller<'a>) -> Self {
        Self { context, studio, teller }
    }

    /// Plays it all.
    pub(super) async fn play(&mut self) -> Result<Outcome, DemoError> {
        let visibility = Visibility::default();
        for version in &self.studio.show().versions {
            visibility.expect(&self.studio.montreal, version);
        }
        let fingerprint = self.studio.issue()?;
        let short: String = fingerprint.chars().take(11).collect();
        self.teller.step(&format!(
            "in {}: studio demo with its own CA ({short}…) and identities for three nodes",
            self.studio.dir().display()
        ));
        let london = self.start().await?;
        let killed_at = visibility.during(self.fill_montreal(&london)).await?;
        let pulled = self.largest();
        visibility.expect(&self.studio.home, pulled);
        visibility.during(self.pull_at_home()).await?;
        let comparison = self.compare().await?;
        Ok(self.outcome(killed_at, &comparison, visibility.half_seen().len() as u64))
    }

    /// Returns what the daemons say that they wait for.
    pub(super) async fn detail(&self) -> String {
        let status = timeout(DETAIL_LIMIT, self.studio.london.status()).await;
        let Ok(Ok(status)) = status else { return "; london does not answer".to_owned() };
        let pending = status.projects.iter().flat_map(|project| &project.pending);
        let pending: Vec<String> =
            pending.take(3).map(|pending| format!("; {}: {}", pending.dir, pending.why.join(", "))).collect();
        pending.concat()
    }

    /// Starts the daemons and returns london's address, when all know each other.
    async fn start(&mut self) -> Result<String, DemoError> {
        self.studio.start_london()?;
        let status = self.until("for london to start", |studio| &studio.london, |_| true).await?;
        self.studio.start_others(&status.listen)?;
        for node in [(|studio| &studio.montreal) as fn(&Studio) -> &Node, |studio| &studio.home] {
            let what = format!("for {} to reach london", node(self.studio).name);
            self.until(&what, node, knows_london).await?;
        }
        self.teller.step(&format!(
            "three avalond run: london; montreal, which mirrors {0}; home, which pulls from {0} on demand",
            self.studio.show().project
        ));
        Ok(status.listen)
    }

    /// Publishes the show in london, kills montreal while it comes over, and waits until montreal has all of it.
    async fn fill_montreal(&mut self, london: &str) -> Result<String, DemoError> {
        self.publish()?;
        let total = self.studio.show().versions.len();
        let killed_at = self.kill_montreal_in_mid_transfer().await?;
        self.teller.step(&format!("montreal killed with kill -9 when it had {killed_at}"));
        self.until_list("for london to notice", |studio| &studio.london, |list| list.versions.len(), total)
            .await?;
        self.teller
            .step(&format!("london noticed {} by itself and knows that each is whole", self.show_size()));
        self.studio.start_montreal(london)?;
        self.until_list("for montreal to fill itself", |studio| &studio.montreal, here, total).await?;
        let received = self.received_since_the_kill().await?;
        self.teller.step(&format!("montreal is back and has {}{received}", self.show_size()));
        Ok(killed_at)
    }

    fn publish(&mut self) -> Result<(), DemoError> {
        let (show, london) = (self.studio.show(), &self.studio.london);
        for version in &show.versions {
            self.teller.wait(&format!("for {} to be published in london", version.id));
            show::publish(show, version, &london.stage_dir(), &london.project_dir())?;
        }
        self.teller.step(&format!("published in london: {}", self.show_size()));
        Ok(())
    }

    /// Kills montreal while it has a part of the largest version, or some versions and not all.
    ///
    /// A machine that is faster than these questions gets the kill when all is there; the demo then says so.
    async fn kill_montreal_in_mid_transfer(&mut self) -> Result<String, DemoError> {
        let largest = self.largest().id.to_string();
        let total = self.studio.show().versions.len();
        let mut ticks = interval(ASK_AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.studio.check_alive()?;
            let status = self.studio.montreal.status().await?;
            let job = status.jobs.iter().find(|job| job.reference == largest && job.bytes_present > 0);
            if let Some(job) = job.filter(|job| job.bytes_present < job.bytes_total) {
                self.studio.montreal.kill().await;
                return Ok(format!("{} of {} of {largest}", size(job.bytes_present), size(job.bytes_total)));
            }
            let list = self.studio.montreal.versions().await?;
            let has_largest =
                list.versions.iter().any(|item| item.reference == largest && item.here == Presence::Complete);
            let versions = here(&list);
            self.teller.wait(&format!("for montreal to fetch ({versions} of {total} versions so far)"));
            if has_largest && (versions < total || total == 1) || versions == total {
                self.studio.montreal.kill().await;
                return Ok(format!(
                    "{versions} of {} (too fast for a cut in mid-file)",
                    count(total as u64, "version")
                ));
            }
        }
    }

    /// Says how much of the largest version came over the network after the restart, where the daemon still knows.
    async fn received_since_the_kill(&self) -> Result<String, DemoError> {
        let largest = self.largest();
        let reference = largest.id.to_string();
        let jobs: Vec<JobStatus> = self.studio.montreal.get(route::JOBS, &[]).await?;
        let job = jobs.iter().find(|job| job.reference == reference);
        Ok(job.map_or_else(String::new, |job| {
            let (received, total) = (size(job.bytes_received), size(largest.bytes()));
            format!("; {received} of the {total} of {reference} came after the restart")
        }))
    }

    async fn pull_at_home(&mut self) -> Result<(), DemoError> {
        let version = self.largest();
        let reference = version.id.to_string();
        self.teller.wait(&format!("for home to pull {reference}"));
        self.teller.end();
        let silent = Output::nowhere();
        let output = if self.context.output.is_json() { &silent } else { self.context.output };
        let context =
            Context { client: self.studio.home.client.clone(), output, project: None, ..*self.context };
        let args = PullArgs::of(vec![reference.clone()]);
        let why = match pull::run(&context, &args).await {
            Ok(ExitCode::Ok) => None,
            Ok(exit) => Some(format!("exit code {}", exit.code())),
            Err(failure) => Some(failure.report().message),
        };
        if let Some(why) = why {
            return Err(DemoError::Pull { reference, why });
        }
        let others = self.studio.show().versions.len() - 1;
        self.teller
            .step(&format!("home pulled {reference}, and knows {} more", count(others as u64, "version")));
        Ok(())
    }

    async fn compare(&mut self) -> Result<Comparison, DemoError> {
        self.teller.wait("for every file to be compared");
        let (show, studio) = (self.studio.show(), &self.studio);
        let versions = show.versions.iter();
        let mut tasks: Vec<Task> =
            versions.map(|version| Task::new(version, &show.dir, &studio.montreal.project_dir())).collect();
        tasks.push(Task::new(self.largest(), &show.dir, &studio.home.project_dir()));
        let compare = move || tasks.iter().map(Task::compare).fold(Comparison::default(), Comparison::and);
        let comparison = spawn_blocking(compare).await.map_err(DemoError::Worker)?;
        let files = count(comparison.compared, "file");
        let wrong = comparison.differ.len() + comparison.missing.len() + comparison.extra.len();
        let all = comparison.differ.iter().chain(&comparison.missing).chain(&comparison.extra);
        all.for_each(|path| self.teller.note(&format!("wrong: {}", path.display())));
        self.teller
            .step(&format!("{files} at montreal and home compared with london's by BLAKE3: {wrong} differ"));
        Ok(comparison)
    }

    fn outcome(&self, killed_at: String, comparison: &Comparison, half_visible: u64) -> Outcome {
        Outcome {
            differ: comparison.differ.len() as u64,
            missing: comparison.missing.len() as u64,
            extra: comparison.extra.len() as u64,
            half_visible,
            killed_at: Some(killed_at),
            ..Outcome::of_failure(self.studio.show())
        }
    }

    fn largest(&self) -> &ShowVersion {
        #[expect(clippy::expect_used, reason = "Show::read refuses a show without versions")]
        self.studio.show().versions.first().expect("a show has at least one version")
    }

    fn show_size(&self) -> String {
        let show = self.studio.show();
        let versions = count(show.versions.len() as u64, "version");
        format!("{versions}, {}, {}", count(show.files(), "file"), size(show.bytes()))
    }

    /// Asks a node how it is until the answer will do. A daemon that does not answer yet is asked again.
    async fn until(
        &mut self,
        what: &str,
        node: fn(&Studio) -> &Node,
        will_do: fn(&StatusReply) -> bool,
    ) -> Result<StatusReply, DemoError> {
        let mut ticks = interval(ASK_AGAIN);
        loop {
            ticks.tick().await;
            self.teller.wait(what);
            self.studio.check_alive()?;
            match node(self.studio).status().await {
                Ok(status) if will_do(&status) => return Ok(status),
                Err(DemoError::Api { source, node }) if !source.is_unreachable() => {
                    return Err(DemoError::Api { source, node });
                }
                _ => {}
            }
        }
    }

    /// Asks a node for its versions until so many count.
    async fn until_list(
        &mut self,
        what: &str,
        node: fn(&Studio) -> &Node,
        counted: fn(&ListReply) -> usize,
        total: usize,
    ) -> Result<(), DemoError> {
        let mut ticks = interval(ASK_AGAIN);
        loop {
            ticks.tick().await;
            self.studio.check_alive()?;
            match node(self.studio).versions().await {
                Ok(list) if counted(&list) >= total => return Ok(()),
                Ok(list) => self.teller.wait(&format!("{what} ({} of {total} versions)", counted(&list))),
                Err(DemoError::Api { source, .. }) if source.is_unreachable() => self.teller.wait(what),
                Err(error) => return Err(error),
            }
        }
    }
}

fn here(list: &ListReply) -> usize {
    list.versions.iter().filter(|version| version.here == Presence::Complete).count()
}

fn knows_london(status: &StatusReply) -> bool {
    status.peers.iter().any(|peer| peer.node == "london" && peer.state == PeerState::Online)
}
