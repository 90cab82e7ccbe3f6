//! The studio's certificate authority: a directory with a key and a certificate, used by hand and kept offline.
//!
//! It issues to nodes directly, with no authorities between. Signing a node's own request, revocation lists and a
//! passphrase are not here yet. They have their places: `Authority::certify` takes any public key, the
//! authority's certificate may sign lists, and [`crate::key_file`] reads the key.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use avalon_protocol::id::{NodeId, StudioName};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    certificate::{self, AuthorityCertificate, CertificateError, utc},
    identity::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE},
    key_file::{
        Access, CertificateFile, Existing, KeyFileError, PrivateKey, WriteError, create_private_directory,
        write_durably,
    },
};

/// How long a node's certificate is valid unless asked otherwise: long enough that a machine survives a holiday, short
/// enough that a stolen key ends by itself within a quarter.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * DAY_SECONDS);

/// How long an authority is valid: longer than any production, because replacing it means visiting each machine.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3652 * DAY_SECONDS);

/// How far certificates are dated back, for machines whose clocks are behind that of the authority.
pub const BACKDATE: Duration = Duration::from_secs(3600);

const DAY_SECONDS: u64 = 24 * 3600;

/// The first second that no certificate reaches: the year 9999 minus all that may be added. X.509 ends with 9999.
const LAST_TIME_SECONDS: u64 = 253_000_000_000;

const CA_KEY_FILE: &str = "ca.key";
const CA_CERTIFICATE_FILE: &str = "ca.pem";

/// Why an authority could not be made, opened or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The directory holds an authority; overwriting it would orphan every node that it issued to.
    #[error("{} exists already; keep it, or choose another directory for a new studio CA", path.display())]
    AlreadyExists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The authority's files could not be read.
    #[error("could not open the studio CA in {}; create one with `avalonctl ca init`, or check the directory", dir.display())]
    Open {
        /// The authority's directory.
        dir: PathBuf,
        /// Which file, and why.
        #[source]
        source: KeyFileError,
    },
    /// The certificate is not that of a studio's authority.
    #[error("{} is not the certificate of a studio CA", path.display())]
    NotAuthority {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// Key and certificate are of two authorities.
    #[error("the key and the certificate in {} do not belong together; restore both from the same backup", dir.display())]
    KeyMismatch {
        /// The authority's directory.
        dir: PathBuf,
    },
    /// The authority has ended.
    #[error("the CA of studio {studio} expired on {}; create a new one with `avalonctl ca init`", utc(*expired_at))]
    Expired {
        /// The studio.
        studio: StudioName,
        /// When it ended.
        expired_at: SystemTime,
    },
    /// Asked for a validity of nothing, or beyond that of an authority.
    #[error("a certificate cannot be valid for {} seconds; ask for 1 second to {} days", validity.as_secs(), AUTHORITY_VALIDITY.as_secs() / DAY_SECONDS)]
    Validity {
        /// What was asked for.
        validity: Duration,
    },
    /// The time is before 1970 or near the end of the calendar of X.509.
    #[error("this machine's clock cannot be right; set it before issuing certificates")]
    Clock,
    /// The system has no randomness to give.
    #[error("the system's random number generator failed")]
    Random,
    /// A key or a certificate could not be made.
    #[error("could not make the {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// What was made does not pass our own check; a defect of this program.
    #[error("the certificate just made for {node} is not valid; please report this")]
    SelfCheck {
        /// Whom it was for.
        node: NodeId,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The directory holds another node's identity.
    #[error("{} holds the identity of {found} of studio {studio}; move it away or choose another directory", dir.display())]
    OtherIdentity {
        /// The identity's directory.
        dir: PathBuf,
        /// Whose identity it holds.
        found: NodeId,
        /// Of which studio.
        studio: StudioName,
    },
    /// The directory holds a key, and nothing says whose.
    #[error("{} holds an identity whose owner cannot be read; move it away or choose another directory", dir.display())]
    UnknownIdentity {
        /// The identity's directory.
        dir: PathBuf,
    },
    /// A file could not be written.
    #[error("could not save {what}")]
    Write {
        /// What was to be saved.
        what: &'static str,
        /// Which file, and why.
        #[source]
        source: WriteError,
    },
}

/// What a node asks of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The node that the certificate will name.
    pub node: NodeId,
    /// How long it is valid, [`NODE_VALIDITY`] by default; never longer than the authority itself.
    pub validity: Duration,
}

/// A key and the certificate for it, not yet on any disk.
#[derive(Debug)]
pub struct IssuedIdentity {
    node: NodeId,
    key: PrivateKey,
    certificate: rcgen::Certificate,
    expires_at: SystemTime,
}

impl IssuedIdentity {
    /// Returns the node that it names.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns when it ends; earlier than asked for when the authority ends first.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// Returns the certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }
}

/// A studio's authority, able to issue.
pub struct Authority {
    certificate: AuthorityCertificate,
    /// The certificate as nodes get it.
    pem: String,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("studio", self.studio()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a studio's authority in `dir`: `ca.key` for its owner alone, `ca.pem` for everybody.
    ///
    /// Both are durable when this returns.
    ///
    /// # Errors
    /// [`AuthorityError::AlreadyExists`] when `dir` holds an authority, which is then untouched; otherwise why it could
    /// not be made or written.
    pub fn create(studio: &StudioName, dir: &Path, now: SystemTime) -> Result<Self, AuthorityError> {
        let (key_path, certificate_path) = (dir.join(CA_KEY_FILE), dir.join(CA_CERTIFICATE_FILE));
        if let Some(path) =
            [&key_path, &certificate_path].into_iter().find(|path| path.symlink_metadata().is_ok())
        {
            return Err(AuthorityError::AlreadyExists { path: path.clone() });
        }
        let key = PrivateKey::generate()
            .map_err(|source| AuthorityError::Make { what: "studio CA's key", source })?;
        let certificate = authority_params(studio, now)?
            .self_signed(key.pair())
            .map_err(|source| AuthorityError::Make { what: "studio CA's certificate", source })?;

        let write = |path: &Path, content: &str, access| {
            write_durably(path, content.as_bytes(), access, Existing::Keep).map_err(|error| {
                match error.source.kind() {
                    io::ErrorKind::AlreadyExists => AuthorityError::AlreadyExists { path: path.to_owned() },
                    _ => AuthorityError::Write { what: "the studio CA", source: error },
                }
            })
        };
        create_private_directory(dir)
            .map_err(|source| AuthorityError::Write { what: "the studio CA", source })?;
        write(&key_path, &key.to_pem(), Access::Private)?;
        if let Err(error) = write(&certificate_path, &certificate.pem(), Access::Public) {
            // A key without its certificate is of no use and would only stand in the way of the next attempt.
            std::fs::remove_file(&key_path).ok();
            return Err(error);
        }
        let certificate = CertificateFile { pem: certificate.pem(), der: certificate.into() };
        Self::from_parts(key, certificate, dir)
    }

    /// Opens the authority in `dir`.
    ///
    /// # Errors
    /// [`AuthorityError::Open`] when a file is missing, damaged or open to other users; [`AuthorityError::KeyMismatch`]
    /// and [`AuthorityError::NotAuthority`] when the files are not those of one authority.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let failed = |source| AuthorityError::Open { dir: dir.to_owned(), source };
        let key = PrivateKey::read(&dir.join(CA_KEY_FILE)).map_err(failed)?;
        let certificate = CertificateFile::read(&dir.join(CA_CERTIFICATE_FILE)).map_err(failed)?;
        Self::from_parts(key, certificate, dir)
    }

    fn from_parts(key: PrivateKey, file: CertificateFile, dir: &Path) -> Result<Self, AuthorityError> {
        let certificate = AuthorityCertificate::parse(file.der)
            .map_err(|source| AuthorityError::NotAuthority { path: dir.join(CA_CERTIFICATE_FILE), source })?;
        if *certificate.public_key() != key.public_key() {
            return Err(AuthorityError::KeyMismatch { dir: dir.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key.into_pair())
            .map_err(|source| AuthorityError::Make { what: "issuer from the studio CA", source })?;
        Ok(Self { certificate, pem: file.pem, issuer })
    }

    /// Returns the studio that it speaks for.
    pub fn studio(&self) -> &StudioName {
        self.certificate.studio()
    }

    /// Returns the authority's certificate.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// Returns the SHA-256 of the authority's certificate, to be compared by people: 32 pairs of hex digits with colons.
    pub fn fingerprint(&self) -> String {
        self.certificate.fingerprint()
    }

    /// Makes a key for a node and certifies it.
    ///
    /// # Errors
    /// [`AuthorityError::Validity`], [`AuthorityError::Expired`] and [`AuthorityError::Clock`] when the times do not
    /// fit; otherwise why it could not be made.
    pub fn issue(&self, request: &IssueRequest, now: SystemTime) -> Result<IssuedIdentity, AuthorityError> {
        let key =
            PrivateKey::generate().map_err(|source| AuthorityError::Make { what: "node's key", source })?;
        let certificate = self.certify(request, key.pair(), now)?;
        // What every peer will check is checked once here, where somebody is looking.
        let facts = self
            .certificate
            .issued(certificate.der())
            .map_err(|source| AuthorityError::SelfCheck { node: request.node.clone(), source })?;
        Ok(IssuedIdentity { node: facts.node, key, certificate, expires_at: facts.expires_at })
    }

    /// Issues to a node and saves `node.key`, `node.pem` and `ca.pem` durably in `out`, the `identity` directory of its
    /// state.
    ///
    /// An identity of the same node is renewed with a new key. A crash during a renewal can leave the key of one and the
    /// certificate of the other; loading says so, and issuing again repairs it.
    ///
    /// # Errors
    /// As [`Authority::issue`]; [`AuthorityError::OtherIdentity`] and [`AuthorityError::UnknownIdentity`] when `out`
    /// holds what must not be overwritten; [`AuthorityError::Write`].
    pub fn issue_into(
        &self,
        node: &NodeId,
        validity: Duration,
        out: &Path,
        now: SystemTime,
    ) -> Result<IssuedIdentity, AuthorityError> {
        self.check_replaceable(node, out)?;
        let issued = self.issue(&IssueRequest { node: node.clone(), validity }, now)?;
        let failed = |source| AuthorityError::Write { what: "the node's identity", source };
        let save = |name: &str, content: &str, access| {
            write_durably(&out.join(name), content.as_bytes(), access, Existing::Replace).map_err(failed)
        };
        create_private_directory(out).map_err(failed)?;
        // The key last: a directory with a key always says whose it is.
        save(AUTHORITY_FILE, &self.pem, Access::Public)?;
        save(CERTIFICATE_FILE, &issued.certificate.pem(), Access::Public)?;
        save(KEY_FILE, &issued.key.to_pem(), Access::Private)?;
        Ok(issued)
    }

    fn check_replaceable(&self, node: &NodeId, out: &Path) -> Result<(), AuthorityError> {
        let unknown = || AuthorityError::UnknownIdentity { dir: out.to_owned() };
        let certificate = match CertificateFile::read(&out.join(CERTIFICATE_FILE)) {
            Ok(file) => file.der,
            Err(KeyFileError::Missing { .. }) if out.join(KEY_FILE).symlink_metadata().is_err() => {
                return Ok(());
            }
            Err(_) => return Err(unknown()),
        };
        let (studio, found) = certificate::node_of_certificate(&certificate).map_err(|_| unknown())?;
        if studio == *self.studio() && found == *node {
            Ok(())
        } else {
            Err(AuthorityError::OtherIdentity { dir: out.to_owned(), found, studio })
        }
    }

    /// Certifies a public key for a node.
    fn certify(
        &self,
        request: &IssueRequest,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<rcgen::Certificate, AuthorityError> {
        let ends = self.certificate.expires_at();
        if now >= ends {
            return Err(AuthorityError::Expired { studio: self.studio().clone(), expired_at: ends });
        }
        if request.validity < Duration::from_secs(1) || request.validity > AUTHORITY_VALIDITY {
            return Err(AuthorityError::Validity { validity: request.validity });
        }
        // TLS libraries ignore when a trust anchor ends, so nothing that it issues may outlive it.
        let not_after = (now + request.validity).min(ends);
        let params = node_params(self.studio(), &request.node, now, not_after)?;
        params
            .signed_by(key, &self.issuer)
            .map_err(|source| AuthorityError::Make { what: "node's certificate", source })
    }
}

/// Writes what a node's certificate says.
pub(crate) fn node_params(
    studio: &StudioName,
    node: &NodeId,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&node.to_string(), studio, now, not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![
        SanType::URI(ia5(certificate::node_uri(studio, node))?),
        SanType::DnsName(ia5(certificate::dns_name(node))?),
    ];
    Ok(params)
}

fn authority_params(studio: &StudioName, now: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let not_after = now.checked_add(AUTHORITY_VALIDITY).ok_or(AuthorityError::Clock)?;
    let mut params = base_params(&format!("{studio} studio CA"), studio, now, not_after)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(ia5(certificate::studio_uri(studio))?)];
    Ok(params)
}

fn base_params(
    common_name: &str,
    studio: &StudioName,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let since_epoch = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() < LAST_TIME_SECONDS => Ok(since),
        _ => Err(AuthorityError::Clock),
    };
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch(now)?.saturating_sub(BACKDATE);
    params.not_after = epoch + since_epoch(not_after)?;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = DistinguishedName::new();
    // A common name holds 64 characters; nothing reads it but people.
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name.push(DnType::OrganizationName, studio.as_str());
    Ok(params)
}

fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    let [first, rest @ ..] = bytes;
    // Positive, and never with a leading zero byte.
    let mut serial = vec![(first & 0x7f) | 0x40];
    serial.extend(rest);
    Ok(SerialNumber::from(serial))
}

fn ia5(text: String) -> Result<Ia5String, AuthorityError> {
    Ia5String::try_from(text).map_err(|source| AuthorityError::Make { what: "certificate's name", source })
}

#[cfg(test)]
mod tests;
