//! Names that stand for many files: frames and UDIM tiles as scenes write them.

/// Replaces what stands for a frame or a tile in a path by a number, so that the path is that of one of the files.
///
/// Known are `<UDIM>`, `<udim>`, `<uvtile>`, `<f>`, `<frame>` and the like, `%04d`, `%(UDIM)d`, `####`, `@@@@`, `$F4` and `$F`.
pub(super) fn with_number(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        match token_len(rest) {
            Some(length) => {
                plain.push_str("1001");
                rest = rest.get(length..).unwrap_or_default();
            }
            None => {
                plain.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    plain
}

/// Returns how long the token is that the text begins with.
fn token_len(text: &str) -> Option<usize> {
    let (first, rest) = (text.chars().next()?, text.get(1..)?);
    match first {
        '<' => {
            let end = rest.find('>').filter(|end| *end <= 16)?;
            let name = rest.get(..end)?;
            name.chars().all(|c| c.is_ascii_alphanumeric()).then_some(end + 2)
        }
        '%' => {
            let (inside, closed) = match rest.strip_prefix('(') {
                Some(inside) => (inside, inside.find(")d").filter(|end| *end <= 16)?),
                None => (rest, rest.find('d').filter(|end| *end <= 3)?),
            };
            let inside = inside.get(..closed)?;
            match rest.starts_with('(') {
                true => inside.chars().all(|c| c.is_ascii_alphabetic()).then_some(closed + 4),
                false => inside.chars().all(|c| c.is_ascii_digit()).then_some(closed + 2),
            }
        }
        '#' | '@' => {
            let run = text.chars().take_while(|c| *c == first).count();
            (first == '#' || run > 1).then_some(run)
        }
        '$' => {
            let digits = rest.strip_prefix('F')?.chars().take_while(char::is_ascii_digit).count();
            let after = rest.get(1 + digits..)?.chars().next();
            (!after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(2 + digits)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_frame_or_a_tile_becomes_a_number() {
        for name in [
            "a.<UDIM>.exr",
            "a.<udim>.exr",
            "a.<f>.exr",
            "a.<frame0>.exr",
            "a.%04d.exr",
            "a.%d.exr",
            "a.%(UDIM)d.exr",
            "a.####.exr",
            "a.@@@@.exr",
            "a.$F4.exr",
            "a.$F.exr",
        ] {
            assert_eq!(with_number(name), "a.1001.exr", "{name}");
        }
        for name in ["a.1001.exr", "100%.exr", "$FOO/a", "a<b", "é%", "a@b", "<über>", "%(", "$F"] {
            let plain = with_number(name);
            assert_eq!(plain, name.replace("$F", if name == "$F" { "1001" } else { "$F" }), "{name}");
        }
    }
}
