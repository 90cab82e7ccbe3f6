//! `[[hook]]`: programs that run when something happened.

use avalon_protocol::reference::Pattern;
use toml::Spanned;

use super::{
    Checker, ConfigError,
    raw::{OneOrMore, RawHook},
};
use crate::hooks::{Arg, Hook, HookEvent, Matching, check_program};

/// Most hooks: each is asked about each event.
const MAX_HOOKS: usize = 64;

impl Checker<'_> {
    /// Reads the hooks. A program that others can change is refused.
    pub(super) fn hooks(&self, raw: Vec<RawHook>) -> Result<Vec<Hook>, ConfigError> {
        if raw.len() > MAX_HOOKS {
            return Err(self.value("hook", format!("{} hooks, at most {MAX_HOOKS} are possible", raw.len())));
        }
        raw.into_iter().map(|raw| self.hook(raw)).collect()
    }

    fn hook(&self, raw: RawHook) -> Result<Hook, ConfigError> {
        let on = raw.on.get_ref().iter().map(|word| {
            let known = HookEvent::ALL.iter().find(|(known, _)| known == word);
            let words: Vec<&str> = HookEvent::ALL.iter().map(|(word, _)| *word).collect();
            let problem = || format!("hook.on: {word:?} is no event; write {}", words.join(", "));
            known.map(|(_, event)| *event).ok_or_else(|| self.at(&raw.on, problem()))
        });
        let on = on.collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        if on.is_empty() {
            return Err(
                self.at(&raw.on, "hook.on: the list is empty, so that nothing starts the hook".into())
            );
        }
        let Some((program, args)) = raw.run.get_ref().split_first() else {
            return Err(
                self.at(&raw.run, "hook.run: the list is empty; its first entry is the program".into())
            );
        };
        let program = std::path::PathBuf::from(program);
        check_program(&program).map_err(|why| self.at(&raw.run, format!("hook.run: {why}")))?;
        let args = args.iter().map(|arg| Arg::parse(arg)).collect::<Result<_, _>>();
        let matching = raw.r#match;
        Ok(Hook {
            on,
            program,
            args: args.map_err(|why| self.at(&raw.run, format!("hook.run: {why}")))?,
            timeout: self.duration("hook.timeout", raw.timeout, "30s")?,
            matching: Matching {
                project: self.patterns(matching.project)?,
                asset: self.patterns(matching.asset)?,
                subset: self.patterns(matching.subset)?,
                representation: self.patterns(matching.representation)?,
            },
        })
    }

    fn patterns(&self, texts: Option<Spanned<OneOrMore>>) -> Result<Option<Vec<Pattern>>, ConfigError> {
        let Some(texts) = texts else { return Ok(None) };
        let list = match texts.get_ref() {
            OneOrMore::One(text) => vec![text.clone()],
            OneOrMore::More(list) => list.clone(),
        };
        let patterns = list.into_iter().map(|text| {
            Pattern::try_from(text.clone()).map_err(|_| {
                self.at(&texts, format!("hook.match: {text:?} is no pattern; write a name with * and ?"))
            })
        });
        patterns.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Says what is wrong with a value, with its line.
    fn at<T>(&self, value: &Spanned<T>, problem: String) -> ConfigError {
        let before = self.text.get(..value.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax { file: self.file.to_owned(), line, problem }
    }
}
