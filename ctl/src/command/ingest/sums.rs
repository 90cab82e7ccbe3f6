//! Checksums that came with material, as `sha256sum`, `md5sum`, `b3sum` and their BSD relatives write them.

use std::collections::BTreeMap;

use crate::copying::Sums;

/// How content is named in a file of checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Md5,
    Sha256,
    Blake3,
}

impl Kind {
    fn of(self, sums: &Sums) -> String {
        match self {
            Self::Md5 => sums.md5.clone(),
            Self::Sha256 => sums.sha256.clone(),
            Self::Blake3 => sums.blake3.to_string(),
        }
    }
}

/// Says whether a file has checksums in it, by its name, and which: `SHA256SUMS`, `MD5SUMS.txt`, `plates.md5`.
pub(super) fn kind_of(name: &str) -> Option<Kind> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(".txt").unwrap_or(&name);
    let is = |whole: &[&str], ending: &str| whole.contains(&name) || name.ends_with(ending);
    if is(&["blake3sums", "b3sums"], ".b3") || name.ends_with(".blake3") {
        Some(Kind::Blake3)
    } else if is(&["sha256sums", "sha256sum", "checksums.sha256"], ".sha256") {
        Some(Kind::Sha256)
    } else if is(&["md5sums", "md5sum"], ".md5") {
        Some(Kind::Md5)
    } else {
        None
    }
}

/// What checksums say, by path relative to their directory.
#[derive(Debug, Default)]
pub(super) struct Expected(BTreeMap<String, Vec<(Kind, String)>>);

impl Expected {
    /// Reads a file of checksums.
    ///
    /// # Errors
    /// The line that cannot be read: what cannot be checked is not taken for checked.
    pub(super) fn add(&mut self, kind: Kind, text: &str) -> Result<(), String> {
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.trim().is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let (sum, path) =
                parse(kind, line).ok_or_else(|| format!("line {} has no checksum", number + 1))?;
            self.0.entry(path).or_default().push((kind, sum));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the paths that have a checksum.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Says whether a file is what its checksums say; `None` when it has none.
    pub(super) fn holds(&self, path: &str, sums: &Sums) -> Option<bool> {
        let expected = self.0.get(path)?;
        Some(expected.iter().all(|(kind, sum)| kind.of(sums) == *sum))
    }
}

/// Reads `HASH  PATH`, `HASH *PATH` or `SHA256 (PATH) = HASH`.
fn parse(kind: Kind, line: &str) -> Option<(String, String)> {
    let line = line.trim_end();
    let digits = if kind == Kind::Md5 { 32 } else { 64 };
    let is_sum = |text: &str| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (sum, path) = match line.split_once(" = ") {
        Some((head, sum)) if is_sum(sum) => (sum, head.split_once('(')?.1.strip_suffix(')')?),
        _ => {
            // A backslash in front says that the name is escaped; such a name cannot be published.
            let (sum, path) = line.split_once([' ', '\t'])?;
            (sum, path.trim_start_matches([' ', '\t', '*']))
        }
    };
    // Windows writes its own separators.
    let path = path.replace('\\', "/");
    let path = path.trim_start_matches("./");
    (is_sum(sum) && !path.is_empty()).then(|| (sum.to_ascii_lowercase(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::hash::ObjectHash;

    use super::*;

    const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";

    #[test]
    fn checksums_are_read_as_tools_write_them() {
        for (kind, line) in [
            (Kind::Sha256, format!("{SHA}  tex/a b.exr")),
            (Kind::Sha256, format!("{} *./tex\\a b.exr", SHA.to_uppercase())),
            (Kind::Sha256, format!("SHA256 (tex/a b.exr) = {SHA}")),
            (Kind::Md5, format!("{MD5}  tex/a b.exr\r")),
        ] {
            let (sum, path) = parse(kind, &line).unwrap();
            assert!(path == "tex/a b.exr" && (sum == SHA || sum == MD5), "{line}");
        }
        for line in ["", "abc  a.exr", SHA, &format!("{MD5}  a.exr")] {
            assert_eq!(parse(Kind::Sha256, line), None, "{line}");
        }
        let mut expected = Expected::default();
        assert!(expected.add(Kind::Md5, "# by hand\n\nnonsense\n").unwrap_err().contains("line 3"));
    }

    #[test]
    fn a_file_has_to_be_what_all_its_checksums_say() {
        let mut expected = Expected::default();
        expected.add(Kind::Sha256, &format!("{SHA}  a.exr\n")).unwrap();
        expected.add(Kind::Md5, &format!("{MD5}  a.exr\n")).unwrap();
        let sums = Sums { bytes: 3, blake3: ObjectHash::of(b"abc"), sha256: SHA.into(), md5: MD5.into() };
        assert_eq!((expected.holds("a.exr", &sums), expected.holds("b.exr", &sums)), (Some(true), None));
        assert_eq!(expected.holds("a.exr", &Sums { md5: SHA.into(), ..sums }), Some(false));
    }

    #[test]
    fn files_of_checksums_are_known_by_their_names() {
        let kinds = ["MD5SUMS", "plates.MD5", "SHA256SUMS.txt", "BLAKE3SUMS", "a.b3"].map(kind_of);
        let expected = [Kind::Md5, Kind::Md5, Kind::Sha256, Kind::Blake3, Kind::Blake3].map(Some);
        assert_eq!(kinds, expected);
        assert_eq!(kind_of("a.exr"), None);
    }
}
