//! What text may not do to the place where it is shown.

use std::{
    fmt::{self, Write as _},
    io,
};

use tracing_subscriber::fmt::MakeWriter;

/// How much of one value is shown; a name is shorter, and a megabyte of it would hide the rest of the log.
const MAX_VALUE_BYTES: usize = 4096;

/// Shows a value on one line: no control characters, no characters that change the direction of writing or are not seen.
pub(super) struct Escaped<'a>(pub(super) &'a dyn fmt::Debug);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Escaping { inner: f, left_bytes: MAX_VALUE_BYTES, cut_bytes: 0 };
        write!(out, "{:?}", self.0)?;
        let cut_bytes = out.cut_bytes;
        if cut_bytes > 0 { write!(f, "... ({cut_bytes} bytes more)") } else { Ok(()) }
    }
}

struct Escaping<'a, 'b> {
    inner: &'a mut fmt::Formatter<'b>,
    left_bytes: usize,
    cut_bytes: usize,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let bytes = char.len_utf8();
            if self.cut_bytes > 0 || bytes > self.left_bytes {
                self.cut_bytes += bytes;
                continue;
            }
            self.left_bytes -= bytes;
            if is_hostile(char) {
                write!(self.inner, "{}", char.escape_default())?;
            } else {
                self.inner.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// Says whether a character does something else than being seen: C0, DEL and C1 controls, marks and overrides of the
/// direction, line and paragraph separators, and what is invisible.
fn is_hostile(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Writes JSON on with the characters escaped that JSON allows and a terminal does not.
///
/// In JSON they stand in strings only, so that `\u` means the same. The formatter hands over whole lines, and a line's
/// own end stays.
pub(super) struct JsonEscape<W>(pub(super) W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for JsonEscape<W> {
    type Writer = JsonEscapeWriter<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        JsonEscapeWriter(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        JsonEscapeWriter(self.0.make_writer_for(meta))
    }
}

/// What [`JsonEscape`] makes.
pub(super) struct JsonEscapeWriter<W>(W);

impl<W: io::Write> io::Write for JsonEscapeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes);
        let mut out = String::with_capacity(line.len());
        for char in line.chars() {
            if char != '\n' && is_hostile(char) {
                // All of them are in the basic plane, so that one unit is enough.
                write!(out, "\\u{:04x}", u32::from(char)).map_err(io::Error::other)?;
            } else {
                out.push(char);
            }
        }
        self.0.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
