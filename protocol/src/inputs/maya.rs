//! Maya ASCII: the commands that name files.
//!
//! A scene is a list of commands that end with `;`. Files are named by `file -r` and `file -rdi`, whose last word is the
//! path, and by `setAttr` of attributes that hold one. Of each command only its first words and its last string are kept,
//! so that a mesh of a million points takes no memory.

use super::{
    Finds, InputScanner, ScanError, Source,
    scan::MAX_PATH_BYTES,
    text::{Bytes, Kept},
};

/// How many words of a command are looked at; what says which command and which attribute it is comes first.
const WORDS: usize = 8;

/// Attributes that hold the path of a file, by their long and short names: textures, image planes, Alembic, GPU and
/// geometry caches, USD stages, and the stand-ins of Arnold, Redshift and V-Ray.
const PATH_ATTRIBUTES: [&str; 19] = [
    "ftn",
    "fileTextureName",
    "imn",
    "imageName",
    "fn",
    "fileName",
    "fileName2",
    "filename",
    "abc_File",
    "cfn",
    "cacheFileName",
    "cacheFilename",
    "fp",
    "filePath",
    "dso",
    "tex0",
    "tex1",
    "vdbFilePath",
    "inFile",
];

/// Finds references, textures and caches of Maya ASCII scenes.
pub(super) struct MayaAscii;

impl InputScanner for MayaAscii {
    fn formats(&self) -> &'static [&'static str] {
        &["ma"]
    }

    fn scan(&self, source: &mut dyn Source, finds: &mut Finds) -> Result<(), ScanError> {
        let mut bytes = Bytes::new(source);
        let mut command = Command::default();
        while let Some(byte) = bytes.take()? {
            match byte {
                b';' => std::mem::take(&mut command).note(finds),
                b'"' => command.string(string(&mut bytes)?),
                b'/' if bytes.take_if(b'/')? => drop(bytes.skip_to(b"\n")?),
                byte if byte.is_ascii_whitespace() => {}
                first if command.wants_words() => command.word(word(&mut bytes, first)?),
                _ => {}
            }
        }
        finds.complete()
    }
}

/// What is kept of one command.
#[derive(Debug, Default)]
struct Command {
    words: Vec<Word>,
    last_string: Option<String>,
    strings: usize,
}

#[derive(Debug)]
enum Word {
    Bare(String),
    Quoted(String),
}

impl Command {
    fn wants_words(&self) -> bool {
        self.words.len() < WORDS
    }

    fn word(&mut self, word: Option<String>) {
        if self.wants_words() {
            self.words.push(Word::Bare(word.unwrap_or_default()));
        }
    }

    fn string(&mut self, text: Option<String>) {
        self.strings += 1;
        if self.wants_words() {
            self.words.push(Word::Quoted(text.clone().unwrap_or_default()));
        }
        self.last_string = text;
    }

    fn note(self, finds: &mut Finds) {
        let bare = |wanted: &[&str]| {
            self.words.iter().any(|word| matches!(word, Word::Bare(text) if wanted.contains(&text.as_str())))
        };
        let is_named = match self.words.first() {
            Some(Word::Bare(name)) if name == "file" => {
                bare(&["-r", "-rdi", "-reference", "-referenceDepthInfo"])
            }
            // The attribute, the word "string", and the path.
            Some(Word::Bare(name)) if name == "setAttr" && self.strings >= 3 => {
                let mut quoted = self.words.iter().filter_map(|word| match word {
                    Word::Quoted(text) => Some(text.as_str()),
                    Word::Bare(_) => None,
                });
                quoted.next().is_some_and(holds_path) && quoted.next() == Some("string")
            }
            _ => false,
        };
        if let Some(path) = self.last_string.filter(|_| is_named) {
            finds.path(without_copy_number(&path));
        }
    }
}

/// `.ftn`, `file1.fileTextureName` and `.tex[2].ftn` are attributes that hold a path.
fn holds_path(attribute: &str) -> bool {
    let name = attribute.rsplit('.').next().unwrap_or(attribute);
    let name = name.split('[').next().unwrap_or(name);
    PATH_ATTRIBUTES.contains(&name)
}

/// A scene that is referenced twice has `{1}` after its path.
fn without_copy_number(path: &str) -> &str {
    let stem = path.strip_suffix('}').and_then(|rest| rest.rsplit_once('{'));
    stem.filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit())).map_or(path, |(path, _)| path)
}

/// Takes a string whose first quote was taken.
fn string(bytes: &mut Bytes<'_>) -> Result<Option<String>, ScanError> {
    let mut kept = Kept::default();
    while let Some(byte) = bytes.take()? {
        match byte {
            b'"' => return Ok(kept.into_text()),
            b'\\' => match bytes.take()? {
                Some(b'n') => kept.push(b'\n', MAX_PATH_BYTES),
                Some(b't') => kept.push(b'\t', MAX_PATH_BYTES),
                Some(escaped) => kept.push(escaped, MAX_PATH_BYTES),
                None => break,
            },
            byte => kept.push(byte, MAX_PATH_BYTES),
        }
    }
    Ok(None)
}

fn word(bytes: &mut Bytes<'_>, first: u8) -> Result<Option<String>, ScanError> {
    let mut kept = Kept::default();
    kept.push(first, MAX_PATH_BYTES);
    while let Some(byte) = bytes.peek()?.filter(|byte| !byte.is_ascii_whitespace() && !b"\";".contains(byte))
    {
        kept.push(byte, MAX_PATH_BYTES);
        bytes.take()?;
    }
    Ok(kept.into_text())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::inputs::Find;

    fn scan(text: &[u8]) -> Vec<String> {
        let mut finds = Finds::default();
        MayaAscii.scan(&mut Cursor::new(text), &mut finds).unwrap();
        let found = finds.into_found().into_iter();
        found.map(|find| if let Find::Path(path) = find { path } else { panic!("{find:?}") }).collect()
    }

    #[test]
    fn references_textures_and_caches_are_found_and_other_strings_are_not() {
        let found = scan(include_bytes!("../../testdata/inputs/layout.ma"));
        assert_eq!(
            found,
            [
                "$AVALON_PROJECTS/lantern/assets/tree/publish/rigDefault/v001/rigDefault.ma",
                "../../../camera/publish/cameraMain/v002/cameraMain.ma",
                "P:/projects/lantern/assets/robot/publish/modelDefault/v002/modelDefault.ma",
                "P:\\projects\\lantern\\film\\sh010\\publish\\animRobot\\v003\\animRobot.abc",
                "sourceimages/plate \"A\".1001.jpg",
                "{root}/lantern/assets/robot/publish/textureDefault/v003/robot_diffuse.<UDIM>.exr",
            ]
        );
    }

    #[test]
    fn a_scene_that_ends_in_the_middle_gives_what_came_before() {
        let text = b"file -r -typ \"mayaAscii\" \"/a/b.ma\";\nsetAttr \".ftn\" -type \"string\" \"/a/c.ex";
        assert_eq!(scan(text), ["/a/b.ma"]);
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(text in "(file|setAttr|-r|\"|\\\\|;|//|/|\\.ftn|string| |\n|a){0,60}") {
            scan(text.as_bytes());
        }
    }
}
