//! USD: text layers (`.usda`), and `.usd`, which is either.
//!
//! In a text layer every asset path stands between `@` and `@`, or `@@@` and `@@@`, outside of comments and strings:
//! sublayers, references, payloads, clips and attributes alike. That is all that has to be told apart to find them.

use super::{
    Finds, InputScanner, ScanError, Source,
    scan::{MAX_PATH_BYTES, go_to},
    text::{Bytes, Kept},
    usdc,
};

/// Finds the asset paths of USD layers.
pub(super) struct Usd;

impl InputScanner for Usd {
    fn formats(&self) -> &'static [&'static str] {
        &["usda", "usdc", "usd"]
    }

    fn scan(&self, source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
        let mut head = [0; 8];
        let mut filled = 0;
        while let Some(room) = head.get_mut(filled..).filter(|room| !room.is_empty()) {
            match source.read(room).map_err(ScanError::Read)? {
                0 => break,
                read => filled += read,
            }
        }
        go_to(source, 0)?;
        if head == *usdc::MAGIC {
            usdc::scan(source, finds)
        } else if head.starts_with(b"#usda ") {
            scan_text(source, finds)
        } else {
            Err(ScanError::Malformed { what: "neither a text layer nor a crate file" })
        }
    }
}

fn scan_text(source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
    let mut bytes = Bytes::new(source);
    while let Some(byte) = bytes.skip_to(b"#\"'@")? {
        match byte {
            b'#' => drop(bytes.skip_to(b"\n")?),
            b'@' => {
                if let Some(path) = asset_path(&mut bytes)? {
                    note(finds, &path);
                }
            }
            quote => skip_string(&mut bytes, quote)?,
        }
    }
    finds.complete()
}

/// Notes an asset path without the arguments of the layer and without the place in a package.
pub(super) fn note(finds: &mut Finds, path: &str) {
    let path = path.split(":SDF_FORMAT_ARGS:").next().unwrap_or(path);
    let packaged = path.find(".usdz[").and_then(|at| path.get(..at + ".usdz".len()));
    if !path.starts_with("anon:") {
        finds.path(packaged.unwrap_or(path));
    }
}

/// Takes a string whose first quote was taken: one line, or any number of them between three quotes.
fn skip_string(bytes: &mut Bytes<'_>, quote: u8) -> Result<(), ScanError> {
    if !bytes.take_if(quote)? {
        while let Some(byte) = bytes.skip_to(&[b'\\', b'\n', quote])? {
            match byte {
                b'\\' => drop(bytes.take()?),
                _ => return Ok(()),
            }
        }
        return Ok(());
    }
    if !bytes.take_if(quote)? {
        return Ok(());
    }
    let mut quotes = 0;
    while let Some(byte) = bytes.take()? {
        match byte {
            b'\\' => {
                bytes.take()?;
                quotes = 0;
            }
            byte if byte == quote => quotes += 1,
            _ => quotes = 0,
        }
        if quotes == 3 {
            break;
        }
    }
    Ok(())
}

/// Takes an asset path whose first `@` was taken. `None` for an empty one, and for one that is none.
fn asset_path(bytes: &mut Bytes<'_>) -> Result<Option<String>, ScanError> {
    let mut kept = Kept::default();
    if !bytes.take_if(b'@')? {
        while let Some(byte) = bytes.take()? {
            match byte {
                b'@' => return Ok(kept.into_text()),
                b'\n' => return Ok(None),
                byte => kept.push(byte, MAX_PATH_BYTES),
            }
        }
        return Ok(None);
    }
    if !bytes.take_if(b'@')? {
        return Ok(None);
    }
    let mut run = 0;
    while let Some(byte) = bytes.take()? {
        match byte {
            b'@' => run += 1,
            b'\n' => return Ok(None),
            byte => {
                (0..run).for_each(|_| kept.push(b'@', MAX_PATH_BYTES));
                run = 0;
                kept.push(byte, MAX_PATH_BYTES);
            }
        }
        if run == 3 {
            return Ok(kept.into_text().map(|text| text.replace("\\@@@", "@@@")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::inputs::Find;

    fn scan(text: &[u8]) -> Vec<String> {
        let mut finds = Finds::default();
        Usd.scan(&mut Cursor::new(text), &mut finds).unwrap();
        let found = finds.into_found().into_iter();
        found.map(|find| if let Find::Path(path) = find { path } else { panic!("{find:?}") }).collect()
    }

    #[test]
    fn a_layer_that_usd_wrote_gives_all_its_asset_paths_and_nothing_of_its_strings() {
        let found = scan(include_bytes!("../../testdata/inputs/layout.usda"));
        assert_eq!(found, usdc::tests::LAYOUT);
    }

    #[test]
    fn strings_comments_and_odd_paths_are_told_apart() {
        let text = b"#usda 1.0\n# @comment@\n(doc = \"\"\"mail \"a\"@b.c\n@x@\"\"\" s = 'it\\'s @no@' e = \"\" f = @a.usda@)\n\
            @@@with@one.usda@@@ @@ @torn\n @pack.usdz[tex/a.png]@ @b.usda:SDF_FORMAT_ARGS:a=1@ @anon:0x1:l@ @c.usda@";
        assert_eq!(scan(text), ["a.usda", "b.usda", "c.usda", "pack.usdz", "with@one.usda"]);
    }

    #[test]
    fn what_is_neither_text_nor_crate_is_refused() {
        for bytes in [b"".as_slice(), b"PXR", b"ISO-10303;"] {
            let scanned = Usd.scan(&mut Cursor::new(bytes), &mut Finds::default());
            assert!(matches!(scanned, Err(ScanError::Malformed { .. })), "{scanned:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(text in "[@\"'#\\\\\na-c.]{0,200}") {
            scan(format!("#usda 1.0\n{text}").as_bytes());
        }
    }
}
