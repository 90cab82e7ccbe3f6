//! From the text of a template to its components, with every reason to refuse it.

use std::str::FromStr;

use super::{
    component::{Component, Hero, Key, Piece, Template},
    error::{TemplateError, TemplateProblem},
};
use crate::rel_path::RelPath;

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateError`] when it is malformed, or when a path made by it could not be read back.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parse(text).map_err(|Refused { position, problem }| TemplateError {
            template: text.chars().take(RelPath::MAX_BYTES).collect(),
            position,
            problem,
        })
    }
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

struct Refused {
    position: Option<usize>,
    problem: TemplateProblem,
}

/// Says that something is wrong at a character, counted from 1.
fn at<T>(position: usize, problem: TemplateProblem) -> Result<T, Refused> {
    Err(Refused { position: Some(position), problem })
}

fn missing<T>(problem: TemplateProblem) -> Result<T, Refused> {
    Err(Refused { position: None, problem })
}

fn parse(text: &str) -> Result<Template, Refused> {
    if text.len() > RelPath::MAX_BYTES || text.matches('/').count() >= RelPath::MAX_PARTS {
        return missing(TemplateProblem::TooLong);
    }
    let mut components = split_components(tokens(text)?)?;
    below_project(&mut components)?;
    components.iter().try_for_each(check_component)?;
    resolve_ext(&mut components);
    let inside = split_off_inside(&mut components)?;
    check_keys(&components, &inside)?;
    let directory: Vec<Component> = components.into_iter().map(|located| located.component).collect();
    let inside = inside.into_iter().map(|located| located.component).collect();
    let hero = hero(&directory);
    Ok(Template { text: text.to_owned(), directory, inside, hero })
}

enum Token {
    Literal(String),
    Field { key: String, format: String },
    Open,
    Close,
    Slash,
}

/// Splits the text into tokens, each with the position of its first character.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Refused> {
    let mut tokens: Vec<(usize, Token)> = Vec::new();
    let mut chars = text.chars().zip(1..).peekable();
    while let Some((c, position)) = chars.next() {
        let doubled = matches!(c, '{' | '}') && chars.next_if(|(next, _)| *next == c).is_some();
        let token = match c {
            '{' if !doubled => field(position, &mut chars)?,
            '}' if !doubled => return at(position, TemplateProblem::UnbalancedBrace),
            '<' => Token::Open,
            '>' => Token::Close,
            '/' => Token::Slash,
            _ => {
                if let Some((_, Token::Literal(literal))) = tokens.last_mut() {
                    literal.push(c);
                    continue;
                }
                Token::Literal(c.to_string())
            }
        };
        tokens.push((position, token));
    }
    Ok(tokens)
}

fn field(position: usize, chars: &mut impl Iterator<Item = (char, usize)>) -> Result<Token, Refused> {
    let mut content = String::new();
    for (c, _) in chars {
        match c {
            '}' => {
                let (key, format) = content.split_once(':').unwrap_or((&content, ""));
                return Ok(Token::Field { key: key.to_owned(), format: format.to_owned() });
            }
            '{' => break,
            _ => content.push(c),
        }
    }
    at(position, TemplateProblem::UnbalancedBrace)
}

/// A component and the position of its first character.
struct Located {
    component: Component,
    position: usize,
}

impl Located {
    fn empty(position: usize) -> Self {
        Self { component: Component { pieces: Vec::new() }, position }
    }
}

fn split_components(tokens: Vec<(usize, Token)>) -> Result<Vec<Located>, Refused> {
    let mut components = Vec::new();
    let mut open = Located::empty(1);
    let mut tokens = tokens.into_iter();
    while let Some((position, token)) = tokens.next() {
        let piece = match token {
            Token::Slash => {
                components.push(std::mem::replace(&mut open, Located::empty(position + 1)));
                continue;
            }
            Token::Open => optional(position, &mut tokens)?,
            Token::Close => return at(position, TemplateProblem::BadOptional),
            Token::Literal(text) => Piece::Literal(text),
            Token::Field { key, format } => field_piece(position, &key, &format)?,
        };
        push(&mut open.component.pieces, piece);
    }
    components.push(open);
    Ok(components)
}

fn optional(opened: usize, tokens: &mut impl Iterator<Item = (usize, Token)>) -> Result<Piece, Refused> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (position, token) in tokens {
        let piece = match token {
            Token::Close if pieces.iter().any(|piece| piece.key().is_some()) => {
                return Ok(Piece::Optional(pieces));
            }
            Token::Close | Token::Open | Token::Slash => break,
            Token::Literal(text) => Piece::Literal(text),
            Token::Field { key, format } => field_piece(position, &key, &format)?,
        };
        push(&mut pieces, piece);
    }
    at(opened, TemplateProblem::BadOptional)
}

/// Appends a piece; a version takes the `v` before it along when that begins a word.
fn push(pieces: &mut Vec<Piece>, mut piece: Piece) {
    let is_first = pieces.len() == 1;
    if let (Piece::Version { v, .. }, Some(Piece::Literal(text))) = (&mut piece, pieces.last_mut()) {
        let before = text.strip_suffix(['v', 'V']).map(str::len);
        let begins_word = |length: &usize| match text.get(..*length).and_then(|t| t.chars().next_back()) {
            Some(c) => !c.is_alphanumeric(),
            None => is_first,
        };
        if let Some(length) = before.filter(begins_word) {
            *v = text.split_off(length);
            if text.is_empty() {
                pieces.pop();
            }
        }
    }
    pieces.push(piece);
}

fn field_piece(position: usize, text: &str, format: &str) -> Result<Piece, Refused> {
    let Some(key) = Key::parse(text) else {
        return at(position, TemplateProblem::UnknownKey { key: text.to_owned() });
    };
    let is_number = matches!(key, Key::Version | Key::Number(_));
    let width = if is_number { width(format) } else { format.is_empty().then_some(0) };
    let Some(width) = width else {
        let (key, format) = (text.to_owned(), format.to_owned());
        return at(position, TemplateProblem::BadFormat { key, format });
    };
    Ok(if key == Key::Version {
        Piece::Version { v: String::new(), width }
    } else {
        Piece::Field { key, width }
    })
}

/// Reads `0>3`, `03`, `03d`, `d` and nothing; more than nine digits are no frame number.
fn width(format: &str) -> Option<usize> {
    let format = format.strip_suffix('d').unwrap_or(format);
    if format.is_empty() {
        return Some(0);
    }
    let digits = format.strip_prefix("0>").or_else(|| format.strip_prefix('0'))?;
    match digits.as_bytes() {
        [digit @ b'1'..=b'9'] => Some(usize::from(digit - b'0')),
        _ => None,
    }
}

/// Checks and removes `{root}/{project}`.
fn below_project(components: &mut Vec<Located>) -> Result<(), Refused> {
    let is_alone = |index: usize, wanted: &Key| {
        let located: Option<&Located> = components.get(index);
        located.is_some_and(|located| {
            matches!(located.component.pieces.as_slice(), [Piece::Field { key, .. }] if key == wanted)
        })
    };
    if !is_alone(0, &Key::Root) || !is_alone(1, &Key::Project) {
        return at(1, TemplateProblem::NotInProject);
    }
    components.drain(..2);
    match components.iter().find(|located| located.component.keys().any(|key| *key == Key::Root)) {
        Some(located) => at(located.position, TemplateProblem::NotInProject),
        None => Ok(()),
    }
}

/// Checks what concerns one component alone.
fn check_component(located: &Located) -> Result<(), Refused> {
    let Located { component, position } = located;
    let is_optional = |piece: &Piece| matches!(piece, Piece::Optional(_));
    if component.pieces.iter().all(is_optional) {
        return at(*position, TemplateProblem::EmptyComponent);
    }
    if component.keys().any(|key| *key == Key::Hierarchy) && !component.is_hierarchy() {
        return at(*position, TemplateProblem::Hierarchy);
    }
    check_literals(&component.pieces).or_else(|problem| at(*position, problem))?;
    match adjacent(&component.pieces, false) {
        Ok(_) => Ok(()),
        Err(second) => at(*position, TemplateProblem::Adjacent { second }),
    }
}

fn check_literals(pieces: &[Piece]) -> Result<(), TemplateProblem> {
    for piece in pieces {
        let (text, as_part) = match piece {
            Piece::Optional(pieces) => {
                check_literals(pieces)?;
                continue;
            }
            Piece::Literal(text) if pieces.len() == 1 => (text, text.clone()),
            Piece::Literal(text) => (text, format!("x{text}x")),
            Piece::Version { .. } | Piece::Field { .. } => continue,
        };
        if as_part.parse::<RelPath>().is_err() {
            return Err(TemplateProblem::BadText { text: text.clone() });
        }
    }
    Ok(())
}

/// Looks for two names without text between them; returns the key of the second as the error.
///
/// `after_name` says whether a name may stand directly before, with optional parts there or not; so does the result.
fn adjacent(pieces: &[Piece], mut after_name: bool) -> Result<bool, String> {
    for piece in pieces {
        after_name = match piece {
            Piece::Literal(_) => false,
            Piece::Optional(pieces) => after_name | adjacent(pieces, after_name)?,
            Piece::Version { v, .. } if after_name && v.is_empty() => return Err("version".to_owned()),
            Piece::Field { key, .. } if after_name => return Err(key.name().to_owned()),
            Piece::Version { .. } | Piece::Field { .. } => true,
        };
    }
    Ok(after_name)
}

/// Lets `{ext}` mean `{representation}` where the template has no other.
fn resolve_ext(components: &mut [Located]) {
    let has_representation =
        components.iter().flat_map(|located| located.component.keys()).any(|key| *key == Key::Representation);
    if !has_representation {
        components.iter_mut().for_each(|located| resolve_ext_in(&mut located.component.pieces));
    }
}

fn resolve_ext_in(pieces: &mut [Piece]) {
    for piece in pieces {
        match piece {
            Piece::Field { key, .. } if key.name() == "ext" => *key = Key::Representation,
            Piece::Optional(pieces) => resolve_ext_in(pieces),
            _ => {}
        }
    }
}

/// Splits behind the version directory.
fn split_off_inside(components: &mut Vec<Located>) -> Result<Vec<Located>, Refused> {
    let folders = components.split_last().map_or(&[][..], |(_file, folders)| folders);
    match folders.iter().rposition(|located| located.component.holds_version()) {
        Some(version) => Ok(components.split_off(version + 1)),
        None => lacks(&Key::Version, "version", components.iter()),
    }
}

fn check_keys(directory: &[Located], inside: &[Located]) -> Result<(), Refused> {
    for (key, name) in [(Key::Asset, "asset"), (Key::Subset, "subset")] {
        let is_there = |located: &Located| located.component.required_keys().any(|found| *found == key);
        if !directory.iter().any(is_there) {
            return lacks(&key, name, directory.iter().chain(inside));
        }
    }
    let has_representation =
        |located: &&Located| located.component.keys().any(|key| *key == Key::Representation);
    if let Some(located) = directory.iter().find(has_representation) {
        return at(located.position, TemplateProblem::RepresentationInDirectory);
    }
    let first = directory.iter().position(|located| located.component.is_hierarchy());
    let all = directory.iter().chain(inside).enumerate();
    match all.filter(|(_, located)| located.component.is_hierarchy()).find(|(index, _)| Some(*index) != first)
    {
        Some((_, located)) => at(located.position, TemplateProblem::Hierarchy),
        None => Ok(()),
    }
}

/// Refuses a template without a key, or with it in a place where it does not count.
fn lacks<'a, T>(
    key: &Key,
    name: &'static str,
    mut components: impl Iterator<Item = &'a Located>,
) -> Result<T, Refused> {
    match components.find(|located| located.component.keys().any(|found| found == key)) {
        Some(located) => at(located.position, TemplateProblem::NotInDirectory { key: name }),
        None => missing(TemplateProblem::Missing { key: name }),
    }
}

/// A folder `hero` says nothing else, so every other key must stand in a folder without the version.
fn hero(directory: &[Component]) -> Hero {
    let (versioned, other): (Vec<_>, Vec<_>) =
        directory.iter().partition(|component| component.holds_version());
    let is_kept =
        |key: &Key| *key == Key::Version || other.iter().any(|component| component.keys().any(|k| k == key));
    if versioned.iter().flat_map(|component| component.keys()).all(is_kept) {
        Hero::Possible
    } else {
        Hero::LosesNames
    }
}
