//! The sidecar: a text file in the version directory in which a pipeline writes what the version was made from.

use crate::limits::MAX_TEXT_BYTES;

/// The sidecar's name in the version directory. It is never a published file itself.
pub const SIDECAR: &str = ".avalon-inputs";

/// The longest sidecar that is read: thousands of inputs. What comes later is left out, and that is said.
pub const MAX_SIDECAR_BYTES: u64 = 1 << 20;

/// Returns the inputs of a sidecar: one on each line, a reference or a path. Empty lines, and those that begin with `#`,
/// say nothing. A line that is not UTF-8, holds a control character or is longer than a text in a manifest is `Err`
/// with its number, counted from 1.
pub fn read_sidecar(bytes: &[u8]) -> impl Iterator<Item = Result<&str, usize>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let read = lines.map(|(index, line)| {
        let text = std::str::from_utf8(line).map(str::trim).map_err(|_| index + 1)?;
        let fits = text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control);
        if fits { Ok(text) } else { Err(index + 1) }
    });
    read.filter(|line| !matches!(line, Ok(text) if text.is_empty() || text.starts_with('#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_input_and_a_bad_line_costs_only_itself() {
        let text = b"\xef\xbb\xbf# made by the exporter\r\nrobot/look@v002\r\n\n  /mnt/wood.exr  \nbad \xff line\na\tb\nsh010/cam";
        let lines: Vec<_> = read_sidecar(text).collect();
        assert_eq!(lines, [Ok("robot/look@v002"), Ok("/mnt/wood.exr"), Err(5), Err(6), Ok("sh010/cam")]);
        assert_eq!(read_sidecar(b"").count(), 0);
    }
}
