//! keepalived.conf line by line: includes, comments, conditional lines, definitions and what is put in their place
//! (keepalived.conf(5), "Advanced configuration").

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::repeat;
use super::words::{strip_comment, words};
use crate::import::report::{Place, Report};
use crate::import::source::{LONGEST_LINE, MOST_LINES, Sources, Unreadable};

/// How deep definitions may stand in each other.
const DEEPEST: usize = 32;
/// How often something is put in the place of a name in one line.
const MOST_SUBSTITUTIONS: usize = 256;
/// The longest definition of several lines, in bytes.
const LONGEST_DEFINITION: usize = 1 << 20;

/// A line with its words, everything put in its place.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    pub(super) at: Place,
}

/// Reads files into lines.
pub(super) struct Reader<'r> {
    sources: &'r mut Sources,
    report: &'r mut Report,
    id: &'r str,
    definitions: HashMap<String, String>,
    lines: Vec<Line>,
    taken: usize,
}

impl<'r> Reader<'r> {
    /// A reader for the machine that calls itself `id` (keepalived's `--config-id`).
    pub(super) fn new(sources: &'r mut Sources, report: &'r mut Report, id: &'r str) -> Self {
        let definitions = [("_HASH", "#"), ("_BANG", "!"), ("_INSTANCE", id)];
        let definitions = definitions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { sources, report, id, definitions, lines: Vec::new(), taken: 0 }
    }

    /// What was read.
    pub(super) fn finish(self) -> Vec<Line> {
        self.lines
    }

    /// Reads a text that is the file `path`; relative names in it are relative to the file's folder.
    pub(super) fn read(&mut self, text: &str, path: &Path) -> Result<(), Unreadable> {
        let file: Arc<str> = path.display().to_string().into();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let outer = self.definitions.insert("_PWD".to_owned(), folder.display().to_string());
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let at = Place::new(&file, index + 1, line);
            let mut line = strip_comment(line).trim().to_owned();
            if is_definition(&line) {
                // All but the last line of a definition end with a backslash.
                while line.ends_with('\\') {
                    line.pop();
                    let Some((_, next)) = lines.next() else { break };
                    line.push('\n');
                    line.push_str(strip_comment(next).trim());
                    if line.len() > LONGEST_DEFINITION {
                        return Err(Unreadable(format!("{file}:{}: a definition of more than {} KiB", at.line, LONGEST_DEFINITION >> 10)));
                    }
                }
            }
            match include(&line) {
                Some(names) => self.include(names, &folder, &at)?,
                None => self.take(&line, &at, 0)?,
            }
        }
        if let Some(outer) = outer {
            self.definitions.insert("_PWD".to_owned(), outer);
        }
        Ok(())
    }

    fn include(&mut self, pattern: &str, folder: &Path, at: &Place) -> Result<(), Unreadable> {
        if pattern.contains('{') {
            self.report.left(at, "alternatives in braces are not read here: name each file, or use * and ?");
            return Ok(());
        }
        let full: PathBuf = folder.join(pattern);
        let found = match glob::glob(&full.to_string_lossy()) {
            Ok(found) => found,
            Err(why) => {
                self.report.left(at, format_args!("is no pattern of file names: {why}"));
                return Ok(());
            }
        };
        let mut any = false;
        for path in found {
            any = true;
            let path = match path {
                Ok(path) if path.is_file() => path,
                Ok(path) => {
                    self.report.left(at, format_args!("{} is no file", path.display()));
                    continue;
                }
                Err(why) => {
                    self.report.left(at, format_args!("cannot look into {}: {}", why.path().display(), why.error()));
                    continue;
                }
            };
            if let Err(why) = self.sources.enter(&path) {
                self.report.left(at, why);
                continue;
            }
            match self.sources.read(&path) {
                Ok(text) => self.read(&text, &path)?,
                Err(why) => self.report.left(at, why),
            }
            self.sources.leave();
        }
        if !any {
            self.report.left(at, "there is no such file");
        }
        Ok(())
    }

    /// One line: whether it counts, what it defines, what it stands for.
    fn take(&mut self, line: &str, at: &Place, depth: usize) -> Result<(), Unreadable> {
        self.taken += 1;
        if self.taken > MOST_LINES {
            return Err(Unreadable(format!("{}:{}: comes to more than {MOST_LINES} lines", at.file, at.line)));
        }
        if depth > DEEPEST {
            self.report.left(at, format_args!("definitions stand in each other more than {DEEPEST} deep"));
            return Ok(());
        }
        let mut line = line.trim().to_owned();
        for _ in 0..MOST_SUBSTITUTIONS {
            if let Some(condition) = line.strip_prefix('@') {
                let (id, rest) = condition.split_once(char::is_whitespace).unwrap_or((condition, ""));
                let counts = id.strip_prefix('^').map_or(id == self.id, |other| other != self.id);
                if !counts {
                    self.report.left(at, format_args!("is not for the config-id '{}' (--config-id says which)", self.id));
                    return Ok(());
                }
                line = rest.trim().to_owned();
            } else if is_definition(&line) {
                let (name, value) = line[1..].split_once('=').unwrap_or_default();
                self.definitions.insert(name.to_owned(), value.trim_matches([' ', '\t']).to_owned());
                return Ok(());
            } else if line.starts_with('~') {
                return self.repeat(&line, at, depth);
            } else {
                match self.substitute(&line) {
                    None => {
                        self.keep(&line, at);
                        return Ok(());
                    }
                    Some(done) if done.contains('\n') => return done.lines().try_for_each(|line| self.take(line, at, depth + 1)),
                    Some(done) => done.trim().clone_into(&mut line),
                }
            }
            if line.len() > LONGEST_LINE {
                break;
            }
        }
        self.report.left(at, "its definitions stand for each other, or for too much");
        Ok(())
    }

    fn keep(&mut self, line: &str, at: &Place) {
        match words(line) {
            Some(words) if words.is_empty() => {}
            // What a definition stands for is shown as it came out.
            Some(words) => self.lines.push(Line { words, at: Place::new(&at.file, at.line, line) }),
            None => self.report.left(at, "a quoted string does not end"),
        }
    }

    /// `~SEQ(...)` and `~LST(...)`: the rest of the line once for each value.
    fn repeat(&mut self, line: &str, at: &Place, depth: usize) -> Result<(), Unreadable> {
        let Some(repeat::Repeat { values, rest }) = repeat::read(line) else {
            self.report.left(at, "is no ~SEQ or ~LST that can be read");
            return Ok(());
        };
        for value in values {
            for (name, text) in value {
                self.definitions.insert(name, text);
            }
            self.take(rest, at, depth + 1)?;
        }
        Ok(())
    }

    /// Puts the value in the place of the first name that has one; `None` when there is none.
    fn substitute(&self, line: &str) -> Option<String> {
        for (start, _) in line.match_indices('$') {
            let behind = &line[start + 1..];
            let (name, after) = if let Some(braced) = behind.strip_prefix('{') {
                braced.split_once('}')?
            } else {
                behind.split_at(behind.find(char::is_whitespace).unwrap_or(behind.len()))
            };
            if let Some(value) = self.definitions.get(name) {
                return Some(format!("{}{value}{after}", &line[..start]));
            }
        }
        None
    }
}

/// The names behind `include` and its variants, which differ only in what keepalived complains of.
fn include(line: &str) -> Option<&str> {
    let (word, rest) = line.split_once(char::is_whitespace)?;
    matches!(word, "include" | "includer" | "includem" | "includew" | "includeb" | "includea").then(|| rest.trim().trim_matches('"'))
}

/// `$NAME=...`
fn is_definition(line: &str) -> bool {
    // Behind a condition a definition may stand as well; it is looked at again when the condition holds.
    let line = match line.strip_prefix('@') {
        Some(condition) => condition.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start()),
        None => line,
    };
    let Some((name, _)) = line.strip_prefix('$').and_then(|rest| rest.split_once('=')) else { return false };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit())
}
