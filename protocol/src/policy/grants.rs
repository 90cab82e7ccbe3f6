//! Who may do what in which project: `[[grant]]`, and `[roles]` where the policy overrules the role of a certificate.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil, tz::TimeZone};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    glob::Glob,
    places::{Groups, Places, Studio},
    reader::{At, Reader},
};
use crate::{
    access::{Action, Rights, Role},
    id::{NodeId, ProjectName},
};

/// Most grants.
const MAX_GRANTS: usize = 256;

const GRANT_KEYS: [&str; 4] = ["to", "projects", "actions", "until"];
const ACTIONS: [(&str, Action); 5] = [
    ("see", Action::See),
    ("pull", Action::Pull),
    ("publish", Action::Publish),
    ("retire", Action::Retire),
    ("admin", Action::Admin),
];
/// What stands before a role in a list of places.
const ROLE: &str = "role:";

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The line on which it begins.
    pub line: u32,
    /// The roles that it is for.
    pub roles: Vec<Role>,
    /// The sites and nodes that it is for.
    pub places: Places,
    /// The projects that it is about.
    pub projects: Vec<Glob>,
    /// What it allows.
    pub rights: Rights,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

impl Grant {
    fn is_for(&self, node: &NodeId, role: Role) -> bool {
        self.roles.contains(&role) || self.places.contains(node)
    }

    fn is_about(&self, project: &ProjectName) -> bool {
        self.projects.iter().any(|glob| glob.matches(project.as_str()))
    }

    fn holds(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

/// What a policy says about who may do what. Without a single grant, what a role usually may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    grants: Vec<Grant>,
    roles: BTreeMap<Role, Places>,
}

impl Access {
    /// Returns what a node may do in a project. `role` is that of its certificate.
    pub fn rights(&self, node: &NodeId, role: Role, project: &ProjectName, now_ms: u64) -> Rights {
        self.add_up(node, role, now_ms, |grant| grant.is_about(project))
    }

    /// Returns what a node may do in every project there is or will be: who may see all of them gets what concerns the
    /// studio.
    pub fn rights_everywhere(&self, node: &NodeId, role: Role, now_ms: u64) -> Rights {
        self.add_up(node, role, now_ms, |grant| grant.projects.iter().any(|glob| glob.as_str() == "*"))
    }

    fn add_up(&self, node: &NodeId, role: Role, now_ms: u64, about: impl Fn(&Grant) -> bool) -> Rights {
        let role = self.role(node, role);
        if self.grants.is_empty() || role == Role::Admin {
            return Rights::of_role(role);
        }
        let holding = self
            .grants
            .iter()
            .filter(|grant| grant.holds(now_ms) && grant.is_for(node, role) && about(grant));
        holding.fold(Rights::NONE, |rights, grant| rights.or(grant.rights))
    }

    /// Returns the role of a node: what the policy says of it, otherwise that of its certificate. The role furthest from admin
    /// counts when the policy names several.
    pub fn role(&self, node: &NodeId, certified: Role) -> Role {
        let named = self.roles.iter().filter(|(_, places)| places.contains(node));
        named.map(|(role, _)| *role).max().unwrap_or(certified)
    }

    /// Says whether a grant or a role names a node itself, and not only with its site.
    pub fn names(&self, node: &NodeId) -> bool {
        let granted = self.grants.iter().map(|grant| &grant.places);
        granted.chain(self.roles.values()).any(|places| places.nodes.contains(node))
    }

    /// Returns patterns of the projects of which a node may know. `role` is that of its certificate.
    pub(super) fn seen(&self, node: &NodeId, role: Role, now_ms: u64) -> Vec<Glob> {
        if self.rights_everywhere(node, role, now_ms).allows(Action::See) {
            return Glob::of_name("*").into_iter().collect();
        }
        let role = self.role(node, role);
        let held = self.grants.iter().filter(|grant| grant.holds(now_ms) && grant.is_for(node, role));
        held.filter(|grant| grant.rights.allows(Action::See))
            .flat_map(|grant| grant.projects.clone())
            .collect()
    }

    /// Returns who has another role than its certificate says.
    pub(super) fn roles(&self) -> impl Iterator<Item = (Role, &Places)> {
        self.roles.iter().map(|(role, places)| (*role, places))
    }

    /// Returns the grants in their order.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Returns when the first grant ended that a node had in a project, after `since_ms` and by `now_ms`, in milliseconds since 1970.
    pub fn first_end_ms(
        &self,
        node: &NodeId,
        role: Role,
        project: &ProjectName,
        since_ms: u64,
        now_ms: u64,
    ) -> Option<u64> {
        let role = self.role(node, role);
        let about = self.grants.iter().filter(|grant| grant.is_for(node, role) && grant.is_about(project));
        about.filter_map(|grant| grant.until_ms).filter(|until| since_ms < *until && *until <= now_ms).min()
    }

    /// Returns when the next grant ends, in milliseconds since 1970.
    pub fn next_end_ms(&self, now_ms: u64) -> Option<u64> {
        self.grants.iter().filter_map(|grant| grant.until_ms).filter(|until| *until > now_ms).min()
    }
}

/// Reads `[roles]` and every `[[grant]]`; reports what is unknown or wrong.
pub(super) fn read(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    groups: &Groups,
    studio: Option<&Studio>,
) -> Access {
    let mut access = Access::default();
    if let Some(value) = document.get("roles")
        && let Some(table) = reader.table(value, "roles")
    {
        access.roles = read_roles(reader, table, groups, studio);
    }
    if let Some(value) = document.get("grant")
        && let Some(tables) = reader.array(value, "grant")
    {
        access.grants = read_grants(reader, tables, value.span().start, groups, studio);
    }
    access
}

fn read_roles(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    groups: &Groups,
    studio: Option<&Studio>,
) -> BTreeMap<Role, Places> {
    let mut roles = BTreeMap::new();
    for (key, value) in table {
        let entries = reader.strings(value, key.get_ref());
        let Some(role) = read_role(reader, key.get_ref(), key.span().start) else { continue };
        let places = groups.places(reader, &entries, &format!("role {role}"), studio);
        if places.everywhere {
            let advice = "name the nodes or sites; what a role may do is said by [[grant]]";
            reader.say(value.span().start, format!("role {role} would be everybody's"), advice);
        }
        roles.insert(role, places);
    }
    roles
}

fn read_role(reader: &mut Reader<'_>, word: &str, at: usize) -> Option<Role> {
    let role = word.parse();
    if role.is_err() {
        let known: Vec<&str> = Role::ALL.into_iter().map(Role::as_str).collect();
        reader.unknown_word(at, &format!("{word:?} is no role"), word, &known);
    }
    role.ok()
}

fn read_grants(
    reader: &mut Reader<'_>,
    tables: &DeArray<'_>,
    at: usize,
    groups: &Groups,
    studio: Option<&Studio>,
) -> Vec<Grant> {
    if tables.len() > MAX_GRANTS {
        let reason = format!("{} grants; at most {MAX_GRANTS} are accepted", tables.len());
        reader.say(at, reason, "name several places and projects in one grant");
        return Vec::new();
    }
    let read = tables.iter().filter_map(|value| {
        let at = value.span().start;
        let table = reader.table(value, "grant")?;
        read_grant(reader, table, at, groups, studio)
    });
    read.collect()
}

fn read_grant(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    at: usize,
    groups: &Groups,
    studio: Option<&Studio>,
) -> Option<Grant> {
    let problems = reader.problems();
    let mut grant = Grant {
        line: reader.line(at),
        roles: Vec::new(),
        places: Places::default(),
        projects: Vec::new(),
        rights: Rights::NONE,
        until_ms: None,
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "to" => {
                let entries = reader.strings(value, "to");
                let (roles, places): (Vec<At<&str>>, Vec<At<&str>>) =
                    entries.into_iter().partition(|entry| entry.value.starts_with(ROLE));
                let words = roles.iter().map(|entry| (entry.value.trim_start_matches(ROLE), entry.at));
                grant.roles = words.filter_map(|(word, at)| read_role(reader, word, at)).collect();
                grant.places = groups.places(reader, &places, "the grant", studio);
            }
            "projects" => grant.projects = read_projects(reader, value),
            "actions" => grant.rights = read_actions(reader, value),
            "until" => grant.until_ms = read_until(reader, value),
            _ => reader.unknown_key(key, "[[grant]]", &GRANT_KEYS),
        }
    }
    for (key, advice) in [
        ("to", "write to = [\"role:vendor\", \"london\", \"ws1@home\"], or some of them"),
        ("projects", "write projects = [\"lantern\"], or [\"*\"] for all"),
        ("actions", "write actions = [\"see\", \"pull\"], or some of see, pull, publish, retire and admin"),
    ] {
        if !table.contains_key(key) {
            reader.missing(at, key, "[[grant]]", advice);
        }
    }
    (reader.problems() == problems).then_some(grant)
}

fn read_projects(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Vec<Glob> {
    let mut globs = Vec::new();
    for entry in reader.strings(value, "projects") {
        match Glob::of_name(entry.value) {
            Ok(glob) => globs.push(glob),
            Err(rule) => reader.say(entry.at, format!("{:?} matches no project", entry.value), rule),
        }
    }
    globs
}

fn read_actions(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Rights {
    let mut actions = Vec::new();
    for entry in reader.strings(value, "actions") {
        match ACTIONS.iter().find(|(word, _)| *word == entry.value) {
            Some((_, action)) => actions.push(*action),
            None => {
                let known: Vec<&str> = ACTIONS.iter().map(|(word, _)| *word).collect();
                reader.unknown_word(
                    entry.at,
                    &format!("{:?} is no action", entry.value),
                    entry.value,
                    &known,
                );
            }
        }
    }
    Rights::of(actions)
}

/// Reads the end of a grant: a date, to the end of that day in UTC, or a time with its offset.
fn read_until(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<u64> {
    let text = match value.get_ref() {
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::String(text) => text.to_string(),
        _ => String::new(),
    };
    let end = text.parse::<civil::Date>().ok().filter(|_| !text.contains([':', 'T', ' ']));
    let end = end
        .and_then(|date| date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()));
    let end = end.or_else(|| text.parse::<Timestamp>().ok());
    let end_ms = end.and_then(|end| u64::try_from(end.as_millisecond()).ok());
    if end_ms.is_none() {
        let advice = "write a date, until = 2027-01-31, which is included (UTC), or a time with its offset";
        reader.say(value.span().start, "`until` is no date", advice);
    }
    end_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const ROLES: &str = "[roles]\nvendor = [\"ws1@van\"]\n";

    fn read(text: &str) -> Result<Access, String> {
        let text = format!(
            "schema = \"avalon.policy/1\"\n{text}\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n[groups]\noffices = [\"london\"]\n"
        );
        Policy::parse(&text).map(|policy| policy.access().clone()).map_err(|refused| refused.to_string())
    }

    fn may(access: &Access, node: &str, role: Role, project: &str, now_ms: u64) -> String {
        access.rights(&node.parse().unwrap(), role, &project.parse().unwrap(), now_ms).to_string()
    }

    #[test]
    fn without_a_grant_everybody_may_what_their_role_usually_may() {
        let access = read("").unwrap();
        assert_eq!(may(&access, "ws1@london", Role::Workstation, "lantern", 0), "see, pull, publish, retire");
        assert_eq!(may(&access, "ws1@van", Role::Vendor, "lantern", 0), "nothing");
        let overruled = read(ROLES).unwrap();
        assert_eq!(may(&overruled, "ws1@van", Role::Site, "lantern", 0), "nothing");
    }

    #[test]
    fn with_one_nobody_but_admins_may_more_than_the_grants_say() {
        let access = read(
            "[[grant]]\nto = [\"role:workstation\", \"@offices\"]\nprojects = [\"lantern\"]\nactions = [\"publish\", \"pull\"]\n\
             [[grant]]\nto = [\"ws1@van\"]\nprojects = [\"com*\"]\nactions = [\"see\"]\nuntil = 1970-01-02\n",
        )
        .unwrap();
        assert_eq!(may(&access, "ws1@home", Role::Workstation, "lantern", 0), "see, pull, publish");
        assert_eq!(may(&access, "nas@london", Role::Farm, "lantern", 0), "see, pull, publish");
        assert_eq!(may(&access, "nas@london", Role::Farm, "comet", 0), "nothing");
        assert_eq!(may(&access, "nas@paris", Role::Site, "lantern", 0), "nothing");
        assert_eq!(may(&access, "ws9@paris", Role::Admin, "comet", 0), "see, pull, publish, retire, admin");
        let end = 2 * 24 * 3600 * 1000;
        assert_eq!(may(&access, "ws1@van", Role::Vendor, "comet", end - 1), "see");
        assert_eq!(may(&access, "ws1@van", Role::Vendor, "comet", end), "nothing");
        assert_eq!((access.next_end_ms(0), access.next_end_ms(end)), (Some(end), None));
    }

    #[test]
    fn what_holds_everywhere_is_granted_for_all_projects_by_name() {
        let access = read(
            "[[grant]]\nto = \"london\"\nprojects = \"*\"\nactions = \"see\"\n[[grant]]\nto = \"*\"\nprojects = \"l*\"\nactions = \"admin\"\n",
        )
        .unwrap();
        let everywhere =
            |node: &str| access.rights_everywhere(&node.parse().unwrap(), Role::Site, 0).to_string();
        assert_eq!((everywhere("srv@london").as_str(), everywhere("srv@paris").as_str()), ("see", "nothing"));
        assert_eq!(may(&access, "srv@paris", Role::Site, "lantern", 0), Rights::ALL.to_string());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_write() {
        let grant =
            |more: &str| format!("[[grant]]\nto = \"london\"\nprojects = \"*\"\nactions = \"see\"\n{more}");
        for (text, says) in [
            (grant("until = 3"), "`until` is no date"),
            (grant("until = 2027-01-31T10:00:00"), "`until` is no date"),
            (grant("untill = 2027-01-31"), "did you mean `until`?"),
            (grant("").replace("\"see\"", "\"sea\""), "did you mean \"see\"?"),
            (grant("").replace("\"london\"", "\"role:vender\""), "did you mean \"vendor\"?"),
            (grant("").replace("\"london\"", "\"@nobody\""), "there is no group `nobody`"),
            (grant("").replace("\"*\"", "\"a b\""), "matches no project"),
            ("[[grant]]\nto = \"london\"\nactions = \"see\"".into(), "[[grant]] has no `projects`"),
            ("[roles]\nvendor = [\"*\"]".into(), "role vendor would be everybody's"),
            ("[roles]\nboss = [\"london\"]".into(), "is no role"),
        ] {
            let problem = read(&text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
        assert!(read(&grant("until = 2027-01-31T10:00:00Z")).is_ok());
        assert!(read(&grant("until = \"2027-01-31\"")).is_ok());
    }
}
