//! The names in certificates: who it is, as a URI and for TLS, and as what, also a URI.
//!
//! A role is a name, `avalon-role:workstation`, and no extension of our own: both libraries read and write URIs strictly,
//! and every tool shows them.

use avalon_protocol::{
    access::Role,
    id::{InvalidId, NodeId, StudioName},
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::{CertificateError, form::unreadable};

/// The scheme of the name in a certificate.
const SCHEME: &str = "avalon://";
/// The scheme of a role.
const ROLE_SCHEME: &str = "avalon-role:";
/// What every scheme of ours starts with.
const OURS: &str = "avalon";

/// What follows node and site in the DNS name; `.internal` is reserved for private use.
pub(crate) const DNS_SUFFIX: &str = ".avalon.internal";

/// Returns the name that stands in a node's certificate, `avalon://<studio>/<site>/<node>`.
pub(crate) fn node_uri(studio: &StudioName, node: &NodeId) -> String {
    format!("{SCHEME}{studio}/{}/{}", node.site, node.node)
}

/// Returns the name that stands in the authority's certificate, `avalon://<studio>`.
pub(crate) fn studio_uri(studio: &StudioName) -> String {
    format!("{SCHEME}{studio}")
}

/// Returns the name of a role, `avalon-role:<role>`.
pub(crate) fn role_uri(role: Role) -> String {
    format!("{ROLE_SCHEME}{role}")
}

/// The alternative names that matter here.
pub(crate) struct Names<'a> {
    avalon: Vec<&'a str>,
    roles: Vec<&'a str>,
    pub(crate) dns: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn of(certificate: &'a X509Certificate<'_>) -> Result<Self, CertificateError> {
        let mut names = Self { avalon: Vec::new(), roles: Vec::new(), dns: Vec::new() };
        let Some(extension) = certificate.subject_alternative_name().map_err(unreadable)? else {
            return Ok(names);
        };
        for name in &extension.value.general_names {
            match name {
                // Counted in any case of letters, accepted in one: `AVALON://` must not hide a second name.
                GeneralName::URI(uri) if starts_with(uri, SCHEME) => names.avalon.push(uri),
                GeneralName::URI(uri) if starts_with(uri, ROLE_SCHEME) => names.roles.push(uri),
                GeneralName::URI(uri) if starts_with(uri, OURS) => {
                    return Err(CertificateError::Form { rule: "its avalon names are known here" });
                }
                GeneralName::DNSName(dns) => names.dns.push(dns),
                GeneralName::Invalid(..) => {
                    return Err(CertificateError::Form { rule: "its names can be read" });
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Says whether none of the names is one of ours.
    pub(crate) fn claims_nothing(&self) -> bool {
        self.avalon.is_empty() && self.roles.is_empty()
    }

    /// Reads the one `avalon://STUDIO`.
    pub(super) fn studio(&self) -> Result<StudioName, CertificateError> {
        let uri = self.avalon_uri()?;
        let studio = uri.strip_prefix(SCHEME).unwrap_or(uri).parse();
        studio.map_err(|source| CertificateError::InvalidName { uri: uri.chars().take(80).collect(), source })
    }

    /// Reads the one `avalon://STUDIO/SITE/NODE`.
    pub(super) fn node(&self) -> Result<(StudioName, NodeId), CertificateError> {
        let uri = self.avalon_uri()?;
        parse_node_uri(uri)
            .map_err(|source| CertificateError::InvalidName { uri: uri.chars().take(80).collect(), source })
    }

    /// Reads the one role, or what a certificate without one counts as.
    pub(super) fn role(&self) -> Result<Role, CertificateError> {
        match self.roles.as_slice() {
            [] => Ok(Role::OF_OLD),
            [uri] => uri
                .strip_prefix(ROLE_SCHEME)
                .and_then(|role| role.parse().ok())
                .ok_or(CertificateError::InvalidRole { rule: "it is one that is known here" }),
            _ => Err(CertificateError::InvalidRole { rule: "there is one at most" }),
        }
    }

    pub(super) fn has_role(&self) -> bool {
        !self.roles.is_empty()
    }

    fn avalon_uri(&self) -> Result<&'a str, CertificateError> {
        match self.avalon.as_slice() {
            [] => Err(CertificateError::NoName),
            [uri] => Ok(uri),
            more => Err(CertificateError::AmbiguousName { found: more.len() }),
        }
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|found| found.eq_ignore_ascii_case(start))
}

fn parse_node_uri(uri: &str) -> Result<(StudioName, NodeId), InvalidId> {
    let parts: Vec<&str> = uri.strip_prefix(SCHEME).unwrap_or_default().split('/').collect();
    let [studio, site, node] = parts.as_slice() else {
        return Err(InvalidId {
            what: "certificate name",
            text: uri.chars().take(80).collect(),
            rule: "written as avalon://studio/site/node",
        });
    };
    Ok((studio.parse()?, NodeId::new(node.parse()?, site.parse()?)))
}
