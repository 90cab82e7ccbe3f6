//! `why`: why a version is here, is not here, or is not here yet.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    access::Action,
    control::{
        ApiError, ErrorCode, JobState, JobStatus, PeerState, PeerStatus, WhyAnswer, WhyReply, WhyState,
    },
    id::{NodeId, ProjectName, VersionId},
    mode::ProjectMode,
    plan::Stance,
    policy::{Explanation, Keep, NotKnownYet, Ruling},
    version_fold::{Standing, VersionFold},
};
use jiff::{Timestamp, tz::TimeZone};

use super::{DaemonApi, catalog_failed, lifetime::retired_by};
use crate::{api::WhyQuery, core::blocking, policy::Ranks};

/// The longest answer: a glob can name a whole project.
const MOST_ANSWERS: usize = 1_000;

impl DaemonApi {
    pub(super) async fn why_reply(&self, query: WhyQuery) -> Result<WhyReply, ApiError> {
        let text = query.reference.clone().unwrap_or_default();
        let reference = self.parse(&text)?;
        let schema = "avalonctl.why/1".to_owned();
        let found = match self.find(&reference, query.project.as_deref()).await {
            Ok(found) => found,
            Err(error) if error.code == ErrorCode::NotFound => {
                let answers = self.not_published(reference.asset.as_str(), reference.subset.as_str());
                return if answers.is_empty() { Err(error) } else { Ok(WhyReply { schema, answers }) };
            }
            Err(error) => return Err(error),
        };
        let mut answers = Vec::new();
        for (version, fold) in found {
            let nodes = self.nodes_at(query.site.as_deref(), &version.project, &fold)?;
            for node in nodes {
                if answers.len() >= MOST_ANSWERS {
                    let message = format!("{text} names too many versions to explain each");
                    return Err(
                        ApiError::new(ErrorCode::BadRequest, message).with_hint("name fewer at a time")
                    );
                }
                answers.push(self.why(&version, &fold, &node).await?);
            }
        }
        Ok(WhyReply { schema, answers })
    }

    /// Returns the nodes that a question is about: this one, or those that are known of a site.
    fn nodes_at(
        &self,
        site: Option<&str>,
        project: &ProjectName,
        fold: &VersionFold,
    ) -> Result<Vec<NodeId>, ApiError> {
        let me = &self.core.me;
        let Some(site) = site.filter(|site| !site.is_empty()) else { return Ok(vec![me.clone()]) };
        if let Ok(node) = site.parse::<NodeId>() {
            return Ok(vec![node]);
        }
        let mut known = self.core.known_nodes(std::slice::from_ref(project), &self.greeted());
        known.extend(fold.nodes());
        let sites: BTreeSet<&str> = known.iter().map(|node| node.site.as_str()).collect();
        if !sites.contains(site) {
            let names: Vec<&str> = sites.into_iter().collect();
            let message = format!("no node of a site {site:?} is known here");
            return Err(ApiError::new(ErrorCode::NotFound, message)
                .with_hint(format!("known are {}", names.join(", "))));
        }
        Ok(known.into_iter().filter(|node| node.site.as_str() == site).collect())
    }

    async fn why(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        node: &NodeId,
    ) -> Result<WhyAnswer, ApiError> {
        let explanation = self.explanation(version, fold, node).await?;
        let job = self.replicator.board.of_version(version).filter(|_| *node == self.core.me);
        let mut answer = WhyAnswer {
            reference: version.to_string(),
            node: node.to_string(),
            state: WhyState::NotKnown,
            because: Vec::new(),
            hint: None,
            ruling: None,
            rule: None,
            tried: Vec::new(),
            position: job.as_ref().and_then(|job| self.replicator.board.position(job)),
            job: job.map(|job| job.status()),
        };
        let ruling = explanation.map(|Explanation { tried, ruling }| {
            answer.tried = tried;
            if let Ok(ruling) = &ruling {
                answer.ruling = Some(ruling.to_string());
                answer.rule = ruling.because.as_ref().map(ToString::to_string);
            }
            ruling
        });
        match fold.standing(version.slot) {
            Standing::Conflict(_) => {
                answer.state = WhyState::Conflict;
                answer.because.push(
                    "sites published different content under its number; nobody fetches it until a person decides".into(),
                );
                answer.hint = Some(format!(
                    "see who has what: avalonctl conflicts; decide: avalonctl resolve {version} --keep SITE"
                ));
            }
            Standing::Head(head) if fold.holds(node, &head) => {
                answer.state = WhyState::Here;
                let published_here =
                    fold.generation(&head).is_some_and(|generation| generation.node == *node);
                answer.because.push(match published_here {
                    true => "it was published there and is held since".to_owned(),
                    false => "it was fetched, verified and placed there".to_owned(),
                });
                answer.because.extend(policy_keeps(ruling.as_ref()));
                answer.because.extend(fold.retired().map(|retirement| retired_by(version, retirement)));
            }
            Standing::Head(_) if let Some(retirement) = fold.retired() => {
                answer.state = WhyState::Retired;
                answer.because.push(retired_by(version, retirement));
                answer.hint = Some(format!("avalonctl restore {version}"));
            }
            Standing::Head(_) if *node == self.core.me => {
                self.not_here(version, ruling.as_ref(), &mut answer)
            }
            Standing::Head(_) => self.not_there(version, node, ruling.as_ref(), &mut answer),
            Standing::Unknown => answer.because.push("no record says that it was published".into()),
        }
        Ok(answer)
    }

    async fn explanation(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        node: &NodeId,
    ) -> Result<Option<Explanation>, ApiError> {
        let Some(policy) = self.core.policy.in_effect() else { return Ok(None) };
        let (core, version, fold, node) =
            (Arc::clone(&self.core), version.clone(), fold.clone(), node.clone());
        let asked = blocking(move || {
            core.with_facts(&version, &fold, &mut Ranks::default(), |facts, now| {
                let explanation = policy.explain(&node, facts, now);
                let lacks = explanation.ruling.is_err() && facts.manifest.is_none();
                (explanation, lacks)
            })
        });
        asked.await.map_err(|error| catalog_failed(&self.core.ledger, &error))
    }

    /// Says why a version is not at this node.
    fn not_here(
        &self,
        version: &VersionId,
        ruling: Option<&Result<Ruling, NotKnownYet>>,
        answer: &mut WhyAnswer,
    ) {
        let Some(project) = self.core.project(&version.project) else { return };
        if project.dir().is_none() {
            let path = project.path().display();
            answer.because.push(format!("the project is paused: {path} is missing"));
            answer.hint = Some(format!("mount or create {path}; it goes on by itself"));
        }
        if let Some(job) = &answer.job {
            answer.state = WhyState::Coming;
            answer.because.push(how_it_comes(job, answer.position));
            if job.state == JobState::Paused {
                answer.hint = Some(match self.core.orders.book().paused {
                    Some(_) => "let all go on: avalonctl resume".to_owned(),
                    None => format!("let it go on: avalonctl resume {version}"),
                });
            }
            answer.because.extend(policy_keeps(ruling));
            return;
        }
        if let Err(refused) = self.core.check_may(&version.project, Action::Pull) {
            answer.state = WhyState::Forbidden;
            answer.because.push(refused.to_string());
            answer.hint = Some(refused.hint());
            return;
        }
        match Stance::of(project.mode(), ruling) {
            Stance::Never(rule) => {
                answer.state = WhyState::Forbidden;
                answer.because.push(self.core.forbids(version, rule.as_ref()));
                answer.hint = Some("read the rule: avalonctl policy show".into());
            }
            Stance::Keep => {
                answer.state = WhyState::Missing;
                answer
                    .because
                    .push("it belongs here, and no job brings it; the last one may have failed".into());
                answer.hint =
                    Some(format!("avalonctl status says what is wrong; try it: avalonctl pull {version}"));
            }
            Stance::Later => {
                answer.state = WhyState::Missing;
                let when =
                    ruling.and_then(|ruling| ruling.as_ref().ok()).and_then(|ruling| ruling.next_change_ms);
                answer.because.push(match when {
                    Some(ms) => format!("it belongs here, and comes by itself from {} on", wall_time(ms)),
                    None => "it belongs here, and comes by itself at another time of the week".into(),
                });
                answer.hint = Some(format!("do not wait: avalonctl pull {version}"));
            }
            Stance::OnDemand => {
                answer.state = WhyState::OnDemand;
                answer.because.push(on_demand(project.mode(), ruling));
                answer.hint = Some(format!("avalonctl pull {version}"));
            }
            Stance::NotKnown => {
                answer
                    .because
                    .extend(ruling.and_then(|ruling| ruling.as_ref().err()).map(ToString::to_string));
                answer.hint =
                    Some("it is fetched as soon as a node that has it is connected: avalonctl status".into());
            }
        }
    }

    /// Says why a version is not at another node, as far as this one knows.
    fn not_there(
        &self,
        version: &VersionId,
        node: &NodeId,
        ruling: Option<&Result<Ruling, NotKnownYet>>,
        answer: &mut WhyAnswer,
    ) {
        // Whether a node mirrors stands in its own configuration, which others do not see.
        match Stance::of(ProjectMode::Mirror, ruling) {
            Stance::Never(rule) => {
                answer.state = WhyState::Forbidden;
                answer.because.push(match rule {
                    Some(rule) => format!("the studio's policy keeps it away from {node}: rule {rule}"),
                    None => format!("the studio's policy keeps it away from {node} by its defaults"),
                });
                return;
            }
            Stance::Keep if ruling.is_some() => {
                answer.state = WhyState::Missing;
                answer.because.extend(policy_keeps(ruling));
                answer.because.push(format!(
                    "{node} has not said that it holds it; it brings it if it mirrors the project"
                ));
            }
            Stance::Keep => {
                answer.state = WhyState::OnDemand;
                answer.because.push(format!("there is no policy; {node} decides by the mode of its own configuration, and has not said that it holds it"));
            }
            Stance::Later => {
                answer.state = WhyState::Missing;
                answer
                    .because
                    .push(format!("it belongs to {node} and comes there at another time of the week"));
            }
            Stance::OnDemand => {
                answer.state = WhyState::OnDemand;
                answer.because.push(on_demand(ProjectMode::Mirror, ruling));
            }
            Stance::NotKnown => {
                answer
                    .because
                    .extend(ruling.and_then(|ruling| ruling.as_ref().err()).map(ToString::to_string));
            }
        }
        let is_it = |peer: &PeerStatus| peer.node == node.node.as_str() && peer.site == node.site.as_str();
        // An address that was dialled in vain may be one of a node that came by another.
        let peers: Vec<PeerStatus> = self.net.peers().into_iter().filter(is_it).collect();
        let peer = peers.into_iter().max_by_key(|peer| peer.state == PeerState::Online);
        answer.because.push(match peer {
            Some(peer) if peer.state == PeerState::Online => format!("{node} is connected"),
            Some(peer) => {
                let detail = peer.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                format!("{node} is not connected{detail}")
            }
            None => {
                format!("{node} is not connected to this node; what it did lately may not be known here yet")
            }
        });
        answer.hint = Some(format!("ask there: avalonctl why {version}"));
    }

    /// Answers for versions that are on disk here and not published.
    fn not_published(&self, asset: &str, subset: &str) -> Vec<WhyAnswer> {
        let pending = self.core.projects.values().flat_map(|project| project.pending());
        let meant = pending.filter(|pending| {
            let has = |part: &str| pending.dir.split('/').any(|component| component == part);
            has(asset) && has(subset)
        });
        let answers = meant.map(|pending| WhyAnswer {
            reference: pending.dir.clone(),
            node: self.core.me.to_string(),
            state: WhyState::NotPublished,
            because: pending.why,
            hint: Some("publish it as it is: avalonctl publish DIR".into()),
            ruling: None,
            rule: None,
            tried: Vec::new(),
            job: None,
            position: None,
        });
        answers.collect()
    }
}

/// Says what the policy has to do with a version that is there or comes.
fn policy_keeps(ruling: Option<&Result<Ruling, NotKnownYet>>) -> Option<String> {
    let ruling = ruling?.as_ref().ok()?;
    Some(match &ruling.because {
        Some(rule) => format!("the policy says: {ruling}, by rule {rule}"),
        None => format!("the policy says: {ruling}, by its defaults"),
    })
}

fn on_demand(mode: ProjectMode, ruling: Option<&Result<Ruling, NotKnownYet>>) -> String {
    match policy_keeps(ruling) {
        Some(says) if matches!(ruling, Some(Ok(Ruling { keep: Keep::Here, .. }))) => {
            format!("{says}; that is for nodes that mirror the project, and this one is {mode}")
        }
        Some(says) => says,
        None => "there is no policy, and this node fetches on demand".into(),
    }
}

fn how_it_comes(job: &JobStatus, position: Option<u64>) -> String {
    match (job.state, &job.reason, position) {
        (JobState::Queued, _, Some(position)) => {
            format!("it waits for its turn: number {position} in the queue")
        }
        (JobState::Waiting, Some(reason), _) => format!("it waits: {reason}"),
        (JobState::Paused, Some(reason), _) => format!("it is {reason}"),
        (JobState::Placing, ..) => "all of it is here and verified; it is being placed".into(),
        _ => {
            let percent =
                job.bytes_present.saturating_mul(100).checked_div(job.bytes_total).unwrap_or_default();
            let from = if job.sources.is_empty() {
                String::new()
            } else {
                format!(" from {}", job.sources.join(", "))
            };
            format!("it is coming{from}: {percent} % is here")
        }
    }
}

/// Formats a time for people at this machine.
fn wall_time(ms: u64) -> String {
    let time = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or_default();
    time.to_zoned(TimeZone::system()).strftime("%a %Y-%m-%d %H:%M").to_string()
}
