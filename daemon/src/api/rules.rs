//! Which request needs which role, and how it is called in the audit: one table for all of them.
//!
//! A request that has no row needs the role admin; a test says which those are.

use avalon_protocol::{audit::AuditAction, control::route};
use axum::http::Method;

use super::{
    roles::ApiRole::{self, Admin, Operate, Read},
    routes::{INVITE, JOB, LIMIT, VERIFYING},
};

/// What holds for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// Who may ask it.
    pub(super) role: ApiRole,
    /// Who may ask for a dry run of it.
    pub(super) dry_run: ApiRole,
    /// What it is called in the audit; none when only a refusal is written.
    pub(super) action: Option<AuditAction>,
    /// Whether the body is JSON of bounded length, of which the audit has a part.
    pub(super) has_json: bool,
}

type Row = (Method, &'static str, ApiRole, Option<AuditAction>);

/// All requests. What only looks is read, except what is as much as all of the catalog; an artist's and a pipeline's work is
/// operate; what holds for the whole studio, replaces the daemon's own state or tells what people did is admin.
pub(super) const ROWS: [Row; 49] = {
    use AuditAction as A;
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const DELETE: Method = Method::DELETE;
    [
        (GET, route::STATUS, Read, None),
        (GET, route::VERSIONS, Read, None),
        (GET, route::WHERE, Read, None),
        (GET, route::INFO, Read, None),
        (GET, route::WHY, Read, None),
        (GET, route::INPUTS, Read, None),
        (GET, route::PROBLEMS, Read, None),
        (GET, route::DESTINATION, Read, None),
        (GET, route::REPORT, Read, None),
        (GET, route::CONFLICTS, Read, None),
        (GET, route::PINS, Read, None),
        (GET, route::JOBS, Read, None),
        (GET, JOB, Read, None),
        (GET, route::QUEUE, Read, None),
        (GET, route::LIMITS, Read, None),
        (GET, route::POLICY, Read, None),
        (GET, route::POLICY_HISTORY, Read, None),
        (GET, route::FEEDS, Read, None),
        (GET, route::EVENTS, Read, None),
        (GET, route::CATALOG_STATS, Read, None),
        (GET, route::OPENAPI, Read, None),
        (POST, route::PUBLISH, Operate, Some(A::Publish)),
        (POST, route::PULL, Operate, Some(A::Pull)),
        (POST, route::RETIRE, Operate, Some(A::Retire)),
        (POST, route::RESTORE, Operate, Some(A::Restore)),
        (POST, route::ACCEPT, Operate, Some(A::Accept)),
        (POST, route::RESOLVE, Operate, Some(A::Resolve)),
        (POST, route::RESERVE, Operate, Some(A::Reserve)),
        // Others have proved that they hold it before it goes, and it goes to the trash.
        (POST, route::DROP, Operate, Some(A::Drop)),
        (POST, route::PINS, Operate, Some(A::Pin)),
        // It reads at the rate that the configuration allows, and what it puts in place was verified.
        (POST, route::VERIFY, Operate, Some(A::Verify)),
        (GET, VERIFYING, Read, None),
        (DELETE, VERIFYING, Operate, Some(A::Verify)),
        (DELETE, JOB, Operate, Some(A::Cancel)),
        (POST, route::QUEUE, Operate, Some(A::Queue)),
        // Of this node's line only, undone by one command, and no more than pausing does.
        (POST, route::LIMITS, Operate, Some(A::Limit)),
        (DELETE, route::LIMITS, Operate, Some(A::Limit)),
        (DELETE, LIMIT, Operate, Some(A::Limit)),
        // It reads all of the catalog and all feeds.
        (POST, route::CATALOG_VERIFY, Operate, Some(A::Catalog)),
        (GET, route::CATALOG_EXPORT, Operate, Some(A::Catalog)),
        // Publishing and fetching wait meanwhile; and the catalog that is imported is the caller's.
        (POST, route::CATALOG_REBUILD, Admin, Some(A::Catalog)),
        (POST, route::CATALOG_IMPORT, Admin, Some(A::Catalog)),
        // For the whole studio. What it would change anybody may know who may work here.
        (POST, route::POLICY, Admin, Some(A::Policy)),
        // It can make a second history of this node's feed, and hides that of another's.
        (POST, route::FEEDS, Admin, Some(A::Feed)),
        // Whoever has an invite belongs to the studio.
        (GET, route::INVITES, Admin, None),
        (POST, route::INVITES, Admin, Some(A::Invite)),
        (DELETE, INVITE, Admin, Some(A::Invite)),
        // Names that a scene's errors have too, and what the policy says that everybody may read.
        (GET, route::NODES, Read, None),
        (POST, route::NODES_REVOKE, Admin, Some(A::Revoke)),
    ]
};

/// The requests of the audit itself: it has what each person did.
pub(super) const AUDIT_ROWS: [Row; 3] = [
    (Method::GET, route::AUDIT, Admin, Some(AuditAction::Audit)),
    (Method::GET, route::AUDIT_VERIFY, Admin, Some(AuditAction::Audit)),
    (Method::GET, route::AUDIT_HEADS, Admin, Some(AuditAction::Audit)),
];

/// Returns what holds for a request, by its method and the path of its route.
pub(super) fn rule_of(method: &Method, path: &str) -> Rule {
    // Whoever may get it may have its head.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let row = ROWS.iter().chain(&AUDIT_ROWS).find(|(of, at, ..)| of == method && *at == path);
    let (role, action) = row.map_or((Admin, Some(AuditAction::Call)), |(.., role, action)| (*role, *action));
    let dry_run = if path == route::POLICY { role.min(Operate) } else { role };
    let has_json = *method != Method::GET && path != route::CATALOG_IMPORT;
    Rule { role, dry_run, action, has_json }
}
