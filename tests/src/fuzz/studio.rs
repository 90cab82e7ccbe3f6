//! A studio whose certificates are kept with the corpus, so that what was signed stays the same: only what is public, no key.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_certs::{
    Authority, CertificateRequest, Identity, IssueRequest, IssuingAuthority, NODE_VALIDITY, NodeKey,
    authority::{ListNumber, ToRevoke},
};
use avalon_protocol::access::Role;
use serde::{Deserialize, Serialize};

use super::corpus;

/// What a studio's machines show to each other, in hex.
#[derive(Debug, Serialize, Deserialize)]
pub struct Studio {
    /// The CA's certificate.
    pub authority: String,
    /// The chain of `ws12@london`, as it stands in feeds.
    pub leaf: String,
    /// The chain of `ws13@london`, which `srv@london` issued.
    pub delegated: String,
    /// The certificate by which `srv@london` issues.
    pub issuing: String,
    /// A request for a certificate.
    pub request: String,
    /// What the CA revoked.
    pub list: String,
    /// What `srv@london` revoked.
    pub delegated_list: String,
    /// A certificate of another studio of the same name.
    pub foreign: String,
}

fn path() -> PathBuf {
    corpus::directory().join("studio.json")
}

/// Returns the studio that is kept.
pub fn studio() -> &'static Studio {
    static STUDIO: OnceLock<Studio> = OnceLock::new();
    STUDIO.get_or_init(|| {
        let text = fs::read_to_string(path()).expect("tests/data/fuzz/studio.json is there");
        serde_json::from_str(&text).expect("it is as it was written")
    })
}

/// Makes another studio and keeps it instead. What is in the corpus of certificates is then of an unknown studio.
///
/// # Errors
/// When something cannot be made or written.
pub fn renew() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let studio = make(&dir.path().join("a"))?;
    let foreign = make(&dir.path().join("b"))?.leaf;
    let text = serde_json::to_string_pretty(&Studio { foreign, ..studio })?;
    fs::write(path(), text + "\n").map_err(io::Error::into)
}

fn make(dir: &Path) -> Result<Studio, Box<dyn std::error::Error>> {
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let node = |name: &str| name.parse();
    let authority = Authority::create(&"northlight".parse()?, &dir.join("ca"), now)?;
    let what = IssueRequest { node: node("ws12@london")?, role: Role::Workstation, validity: NODE_VALIDITY };
    authority.issue_into(&what, &dir.join("leaf"), now)?;
    let leaf = Identity::load(&dir.join("leaf"), now)?;
    authority.delegate_into(&node("srv@london")?, 4 * NODE_VALIDITY, &dir.join("issuing"), now)?;
    let issuer = IssuingAuthority::open(&dir.join("issuing"))?.ok_or("it may issue")?;
    let request = NodeKey::generate()?.request(&node("ws13@london")?)?;
    let asked = CertificateRequest::parse(request.der())?;
    let what = IssueRequest { node: node("ws13@london")?, ..what };
    let issued = issuer.sign(&asked, &what, now)?;
    let revoked = [ToRevoke { serial: issued.facts.serial.clone(), since: now }];
    let number = ListNumber { number: 3, next_at: now + Duration::from_secs(86_400) };
    let hex = corpus::to_hex;
    Ok(Studio {
        authority: hex(authority.certificate().der()),
        leaf: hex(leaf.certificate_chain().first().ok_or("a certificate")?),
        delegated: hex(&issued.chain.to_bytes()),
        issuing: hex(issuer.certificate_der()),
        request: hex(request.der()),
        list: hex(&authority.revocation_list(&revoked, number, now)?),
        delegated_list: hex(&issuer.revocation_list(&revoked, number, now)?),
        foreign: String::new(),
    })
}
