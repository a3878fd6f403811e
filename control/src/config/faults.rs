//! Every fault of a configuration file, with its place in the text.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::codes::Code;

/// What is wrong with a configuration file: every fault at once, in the order of the text.
///
/// Its `Display` is what `baton check` and `baton run` print: for each fault `FILE:LINE:COLUMN: key: what is wrong`, and the
/// line with the place marked.
#[derive(Debug)]
pub struct ConfigFaults {
    file: PathBuf,
    code: Code,
    faults: Vec<ConfigFault>,
}

/// One fault of a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFault {
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// The key's full path, such as `port[0].addresses[1]`; empty for faults of syntax.
    pub key: String,
    /// The value that was given and what is allowed.
    pub detail: String,
    excerpt: Option<Excerpt>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Excerpt {
    line: String,
    marked: usize,
}

impl ConfigFaults {
    /// The file cannot be read at all.
    pub(super) fn unreadable(file: &Path, why: &std::io::Error) -> Self {
        let detail = format!("cannot read it: {why}");
        let fault = ConfigFault { line: 0, column: 0, key: String::new(), detail, excerpt: None };
        Self { file: file.to_owned(), code: Code::UnreadableFile, faults: vec![fault] }
    }

    /// The stable name: `unreadable-file` when nothing of it could be read, else `faulty-configuration`.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The faults, in the order of the text; at least one.
    pub fn faults(&self) -> &[ConfigFault] {
        &self.faults
    }
}

impl std::error::Error for ConfigFaults {}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.faults.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if fault.line > 0 {
                write!(f, "{}:{}:", fault.line, fault.column)?;
            }
            if !fault.key.is_empty() {
                write!(f, " {}:", fault.key)?;
            }
            write!(f, " {}", fault.detail)?;
            if let Some(excerpt) = &fault.excerpt {
                let margin = fault.line.to_string();
                let blank = " ".repeat(margin.len());
                // Tabs are kept, so that the mark stands under its text however wide the terminal shows them.
                let lead: String = excerpt.line.chars().take(fault.column - 1).map(|c| if c == '\t' { c } else { ' ' }).collect();
                write!(f, "\n {margin} | {}\n {blank} | {lead}{}", excerpt.line, "^".repeat(excerpt.marked))?;
            }
        }
        Ok(())
    }
}

/// Faults while they are being collected, with the places that later checks refer to by JSON pointer.
#[derive(Debug)]
pub(super) struct Collector<'t> {
    text: &'t str,
    syntax: Vec<(Range<usize>, String, String)>,
    found: Vec<(Range<usize>, String, String)>,
    places: Vec<(String, String, Range<usize>)>,
}

impl<'t> Collector<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, syntax: Vec::new(), found: Vec::new(), places: Vec::new() }
    }

    /// Adds a fault of syntax: the parser went on behind it with a guess.
    pub(super) fn add_syntax(&mut self, span: Range<usize>, message: &str) {
        self.syntax.push((span, String::new(), message.trim_end().replace('\n', "; ")));
    }

    pub(super) fn add(&mut self, span: Range<usize>, key: impl Into<String>, detail: impl Into<String>) {
        self.found.push((span, key.into(), detail.into()));
    }

    /// Adds that something is not there, unless a fault of syntax may have swallowed it.
    pub(super) fn add_missing(&mut self, span: Range<usize>, key: impl Into<String>, what: &str) {
        if self.syntax.is_empty() {
            self.add(span, key, format!("missing: {what}"));
        }
    }

    /// Whether the text was TOML.
    pub(super) const fn is_toml(&self) -> bool {
        self.syntax.is_empty()
    }

    /// The text of a value as it was written, cut where it would not fit a message.
    pub(super) fn given(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        let short: String = first.chars().take(60).collect();
        if short.len() < text.len() { format!("{short}...") } else { short }
    }

    /// Remembers where in the text the value at `pointer` (RFC 6901) of the resulting document was given.
    pub(super) fn place(&mut self, pointer: String, key: String, span: Range<usize>) {
        self.places.push((pointer, key, span));
    }

    /// Adds a fault of the resulting document: it is shown at the value, or at the nearest thing around it that the text has.
    pub(super) fn add_at_pointer(&mut self, pointer: &str, detail: &str) {
        let around = |place: &str| pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let nearest = self.places.iter().filter(|(place, ..)| around(place)).max_by_key(|(place, ..)| place.len());
        let (key, span) = match nearest {
            Some((place, key, span)) => {
                let missing = pointer.get(place.len() + 1..).filter(|rest| !rest.is_empty());
                (missing.map_or_else(|| key.clone(), |rest| format!("{key}.{}", rest.replace('/', "."))), span.clone())
            }
            None => (pointer.trim_start_matches('/').replace('/', "."), 0..0),
        };
        self.add(span, key, detail);
    }

    /// All faults by their place in the text; `None` when there are none.
    pub(super) fn finish(mut self, file: &Path) -> Option<ConfigFaults> {
        let text = self.text;
        let line = |span: &Range<usize>| text[..floor_char(text, span.start)].matches('\n').count();
        self.syntax.sort_by_key(|(span, ..)| span.start);
        // A value that the parser guessed at a fault of syntax is not the user's: what is wrong with it is an echo.
        let mut broken: Vec<usize> = self.syntax.iter().map(|(span, ..)| line(span)).collect();
        self.found.retain(|(span, ..)| !broken.contains(&line(span)));
        // The parser looks for the end of an open array through all that follows: one fault, not one for each word.
        broken.dedup();
        let mut last_shown = None;
        self.syntax.retain(|(span, _, message)| {
            let at = line(span);
            let in_array = message.starts_with("missing comma between array elements") && at > 0 && broken.contains(&(at - 1));
            let shown = last_shown != Some(at) && !in_array;
            last_shown = Some(at);
            shown
        });
        self.found.append(&mut self.syntax);
        if self.found.is_empty() {
            return None;
        }
        self.found.sort_by_key(|(span, ..)| span.start);
        self.found.dedup();
        let faults = self.found.iter().map(|(span, key, detail)| locate(self.text, span, key, detail)).collect();
        Some(ConfigFaults { file: file.to_owned(), code: Code::FaultyFile, faults })
    }
}

fn locate(text: &str, span: &Range<usize>, key: &str, detail: &str) -> ConfigFault {
    let start = floor_char(text, span.start);
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line_text = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..start].chars().count() + 1;
    let end = floor_char(text, span.end).max(start).min(line_start + line_text.len()).max(start);
    let marked = text[start..end].chars().count().max(1);
    ConfigFault {
        line: before.matches('\n').count() + 1,
        column,
        key: key.to_owned(),
        detail: detail.to_owned(),
        excerpt: Some(Excerpt { line: line_text.to_owned(), marked }),
    }
}

/// The nearest character boundary at or before `at`.
fn floor_char(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}
