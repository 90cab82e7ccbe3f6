//! The local API on TCP, where that is configured: loopback only, with a token, and never for a page of the web.
//!
//! A browser on this machine can reach a loopback port from any page. So a request must name this very address in `Host`
//! (a name that was rebound to 127.0.0.1 does not), come from no other origin, and carry the token, which no page has.

use std::{fmt, net::SocketAddr};

use avalon_store::fs::{Dir, IoError, WriteMode};
use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, HOST, HeaderName, ORIGIN},
};
use rustix::{
    fs::{Mode, fchmod, fstat},
    rand::{GetRandomFlags, getrandom},
};
use thiserror::Error;

use super::roles::ApiRole;

/// Where the token lies in the state directory.
pub const TOKEN_FILE: &str = "api.token";
/// What a token begins with, so that a search for leaked secrets finds it.
const PREFIX: &str = "avalonapi1-";
const RANDOM_BYTES: usize = 32;
/// No token is longer.
const MAX_TOKEN_BYTES: u64 = 256;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The token of the local API on TCP.
pub struct Token {
    /// Of the token; comparing hashes of this type takes the same time whatever differs.
    hash: blake3::Hash,
    role: ApiRole,
    /// The port that a request must name.
    port: u16,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("role", &self.role).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("the token of the local API cannot be used")]
    File(#[source] IoError),
    /// Others may read it.
    #[error(
        "{file} may be read by others (mode {mode:o}): remove it, and the next start makes another token"
    )]
    Open {
        /// The file.
        file: String,
        /// Its mode.
        mode: u32,
    },
    /// It is no token.
    #[error("{file} holds no token: remove it, and the next start makes one")]
    NoToken {
        /// The file.
        file: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a token")]
    Random(#[source] std::io::Error),
}

impl Token {
    /// Reads the token from the state directory, or makes one that only the daemon's user may read. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(dir: &Dir, role: ApiRole, address: SocketAddr) -> Result<Self, TokenError> {
        let name = avalon_protocol::rel_path::RelPath::try_from(TOKEN_FILE.to_owned());
        let Ok(name) = name else { return Err(TokenError::NoToken { file: TOKEN_FILE.into() }) };
        let shown = dir.path().join(TOKEN_FILE).display().to_string();
        let file = match dir.open_file(&name) {
            Err(error) if error.is_not_found() => {
                make(dir, &name)?;
                dir.open_file(&name)
            }
            opened => opened,
        };
        let file = file.map_err(TokenError::File)?;
        let failed = |error: rustix::io::Errno| TokenError::File(IoError::new("stat", &shown, error));
        let mode = fstat(&file).map_err(failed)?.st_mode & 0o777;
        if mode & 0o077 != 0 {
            return Err(TokenError::Open { file: shown, mode });
        }
        let mut text = String::new();
        let read = std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN_BYTES), &mut text);
        read.map_err(|error| TokenError::File(IoError::new("read", &shown, error)))?;
        let token = text.trim_end();
        if !token.starts_with(PREFIX) || token.len() < PREFIX.len() + 2 * RANDOM_BYTES {
            return Err(TokenError::NoToken { file: shown });
        }
        Ok(Self { hash: blake3::hash(token.as_bytes()), role, port: address.port() })
    }

    /// Says what a request may, by its headers.
    ///
    /// # Errors
    /// Why it may nothing. Which of several reasons it is says nothing about the token.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<ApiRole, &'static str> {
        if !one(headers, &HOST).is_some_and(|host| self.is_here(host)) {
            return Err("the request names another host than the address that this API listens on");
        }
        if headers.contains_key(ORIGIN)
            && !one(headers, &ORIGIN)
                .and_then(|origin| origin.strip_prefix("http://"))
                .is_some_and(|origin| self.is_here(origin))
        {
            return Err("the request comes from a page of another origin");
        }
        if headers.contains_key(&SITE) && !matches!(one(headers, &SITE), Some("same-origin" | "none")) {
            return Err("the request comes from a page of another site");
        }
        let token = one(headers, &AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        match token.is_some_and(|token| blake3::hash(token.as_bytes()) == self.hash) {
            true => Ok(self.role),
            false => Err("the request has no token, or not the one of this daemon"),
        }
    }

    /// Says whether a host with its port is this one, as somebody on this machine writes it.
    fn is_here(&self, text: &str) -> bool {
        let Some((host, port)) = text.rsplit_once(':') else { return false };
        port.parse() == Ok(self.port)
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && (host == "127.0.0.1" || host == "[::1]" || host.eq_ignore_ascii_case("localhost"))
    }
}

/// Returns a header that is there exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

fn make(dir: &Dir, name: &avalon_protocol::rel_path::RelPath) -> Result<(), TokenError> {
    let mut random = [0; RANDOM_BYTES];
    getrandom(&mut random, GetRandomFlags::empty()).map_err(|error| TokenError::Random(error.into()))?;
    let digits = hex::encode(random);
    dir.write_streamed(name, WriteMode::CreateNew, |mut file: &std::fs::File| {
        let failed = |error| IoError::new("write", dir.path().join(TOKEN_FILE), error);
        // Before there is anything in it.
        fchmod(file, Mode::from_raw_mode(0o600)).map_err(|error| failed(error.into()))?;
        std::io::Write::write_all(&mut file, format!("{PREFIX}{digits}\n").as_bytes()).map_err(failed)
    })
    .map_err(TokenError::File)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use axum::http::HeaderValue;

    use super::*;

    fn token() -> (tempfile::TempDir, Token, String) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let address = "127.0.0.1:4780".parse().unwrap();
        let token = Token::open(&dir, ApiRole::Read, address).unwrap();
        let text = std::fs::read_to_string(temp.path().join(TOKEN_FILE)).unwrap();
        (temp, token, text.trim_end().to_owned())
    }

    fn check(token: &Token, headers: &[(&'static str, &str)]) -> Result<ApiRole, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        token.check(&map)
    }

    #[test]
    fn only_this_host_no_other_origin_and_the_right_token_are_let_in() {
        let (_temp, token, text) = token();
        let bearer = format!("Bearer {text}");
        let bearer = bearer.as_str();
        let here = ("host", "127.0.0.1:4780");
        let right = ("authorization", bearer);
        for good in [
            &[here, right][..],
            &[("host", "localhost:4780"), right],
            &[("host", "LOCALHOST:4780"), right],
            &[("host", "[::1]:4780"), right],
            &[here, right, ("origin", "http://127.0.0.1:4780")],
            &[here, right, ("origin", "http://localhost:4780"), ("sec-fetch-site", "same-origin")],
            &[here, right, ("sec-fetch-site", "none")],
        ] {
            assert_eq!(check(&token, good), Ok(ApiRole::Read), "{good:?}");
        }
        let short = bearer.strip_suffix(|_: char| true).unwrap();
        let longer = format!("{bearer}0");
        let lower = format!("bearer {text}");
        for (bad, why) in [
            (&[right][..], "another host"),
            (&[("host", "127.0.0.1"), right], "another host"),
            (&[("host", "127.0.0.1:80"), right], "another host"),
            (&[("host", "127.0.0.1:+4780"), right], "another host"),
            (&[("host", "rebound.example.net:4780"), right], "another host"),
            (&[("host", "127.0.0.1.example.net:4780"), right], "another host"),
            (&[("host", "localhost.example.net:4780"), right], "another host"),
            (&[("host", "evil@localhost:4780"), right], "another host"),
            (&[("host", "127.0.0.2:4780"), right], "another host"),
            (&[("host", "0.0.0.0:4780"), right], "another host"),
            (&[here, here, right], "another host"),
            (&[here, right, ("origin", "null")], "another origin"),
            (&[here, right, ("origin", "")], "another origin"),
            (&[here, right, ("origin", "https://127.0.0.1:4780")], "another origin"),
            (&[here, right, ("origin", "http://127.0.0.1:4781")], "another origin"),
            (&[here, right, ("origin", "http://example.net")], "another origin"),
            (&[here, right, ("origin", "http://example.net:4780")], "another origin"),
            (&[here, right, ("origin", "file://")], "another origin"),
            (&[here, right, ("sec-fetch-site", "cross-site")], "another site"),
            (&[here, right, ("sec-fetch-site", "same-site")], "another site"),
            (&[here], "no token"),
            (&[here, ("authorization", "Bearer ")], "no token"),
            (&[here, ("authorization", &text)], "no token"),
            (&[here, ("authorization", short)], "no token"),
            (&[here, ("authorization", &longer)], "no token"),
            (&[here, ("authorization", &lower)], "no token"),
            (&[here, right, right], "no token"),
            (&[here, ("cookie", bearer)], "no token"),
        ] {
            let refused = check(&token, bad).unwrap_err();
            assert!(refused.contains(why), "{bad:?}: {refused}");
        }
    }

    #[test]
    fn the_token_is_made_once_for_the_daemons_user_alone_and_refused_when_others_may_read_it() {
        let (temp, _, text) = token();
        let dir = Dir::open(temp.path()).unwrap();
        let file = temp.path().join(TOKEN_FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 64, "{text}");
        let address = "127.0.0.1:4780".parse().unwrap();
        let again = Token::open(&dir, ApiRole::Read, address).unwrap();
        assert_eq!(again.hash, blake3::hash(text.as_bytes()));
        assert!(!format!("{again:?}").contains(&text[PREFIX.len()..]));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Token::open(&dir, ApiRole::Read, address).unwrap_err();
        assert!(matches!(refused, TokenError::Open { mode: 0o640, .. }), "{refused}");
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(matches!(Token::open(&dir, ApiRole::Read, address), Err(TokenError::File(_))));
    }
}
