//! What stands in the certificates that are made here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avalon_protocol::{
    access::Role,
    id::{NodeId, StudioName},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd, string::Ia5String,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{AUTHORITY_VALIDITY, AuthorityError, BACKDATE};
use crate::certificate::{self, node_uri, role_uri, studio_uri};

/// The first second that no certificate reaches: the year 9999 minus all that may be added. X.509 ends with 9999.
pub(super) const LAST_TIME_SECONDS: u64 = 253_000_000_000;

/// From when to when a certificate is valid, to the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period {
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
}

impl Period {
    /// From [`BACKDATE`] before `now`.
    pub(crate) fn backdated(now: SystemTime, to: SystemTime) -> Self {
        Self { from: now.checked_sub(BACKDATE).unwrap_or(UNIX_EPOCH), to }
    }
}

/// Writes what a node's certificate says.
pub(crate) fn node_params(
    studio: &StudioName,
    node: &NodeId,
    role: Role,
    period: Period,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&node.to_string(), studio, period)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![
        SanType::URI(ia5(node_uri(studio, node))?),
        SanType::URI(ia5(role_uri(role))?),
        SanType::DnsName(ia5(certificate::dns_name(node))?),
    ];
    Ok(params)
}

/// Writes what the certificate says by which a node issues. It has no usage for connections and no name for TLS.
pub(crate) fn issuing_params(
    studio: &StudioName,
    node: &NodeId,
    period: Period,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&format!("{node} issuing"), studio, period)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(ia5(node_uri(studio, node))?)];
    Ok(params)
}

pub(super) fn authority_params(
    studio: &StudioName,
    now: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let to = now.checked_add(AUTHORITY_VALIDITY).ok_or(AuthorityError::Clock)?;
    let mut params = base_params(&format!("{studio} studio CA"), studio, Period::backdated(now, to))?;
    // One below it: a node that issues, which can let nobody else issue.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![SanType::URI(ia5(studio_uri(studio))?)];
    Ok(params)
}

fn base_params(
    common_name: &str,
    studio: &StudioName,
    period: Period,
) -> Result<CertificateParams, AuthorityError> {
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since_epoch(period.from)?;
    params.not_after = epoch + since_epoch(period.to)?;
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = DistinguishedName::new();
    // A common name holds 64 characters; nothing reads it but people.
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    params.distinguished_name.push(DnType::OrganizationName, studio.as_str());
    Ok(params)
}

/// Returns how long after 1970 a time is, within what X.509 can say.
pub(crate) fn since_epoch(time: SystemTime) -> Result<Duration, AuthorityError> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) if since.as_secs() < LAST_TIME_SECONDS => Ok(since),
        _ => Err(AuthorityError::Clock),
    }
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
