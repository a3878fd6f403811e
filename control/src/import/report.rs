//! What an import says about each line that did not become the same thing here.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The longest text of a line that is shown, in characters.
const LONGEST_TEXT: usize = 160;

/// A line of what is imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The file's name.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// What stands there, without blanks around it, cut to 160 characters.
    pub text: Arc<str>,
}

impl Place {
    /// The place of `text`, which is line `line` of `file`.
    pub fn new(file: &Arc<str>, line: usize, text: &str) -> Self {
        let text = text.trim();
        let cut: String = text.chars().take(LONGEST_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let cut = if cut.len() < text.len() { format!("{cut}...") } else { cut };
        Self { file: Arc::clone(file), line, text: cut.into() }
    }
}

/// The lines of a part, the one that it begins with first; shared by all that were made of them.
pub type Lines = Arc<[Place]>;

/// What became of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing here stands for it.
    LeftOut,
    /// Something here stands for it that is not the same.
    Changed,
}

/// One line with its reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Remark {
    /// The file.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// What stands there.
    #[serde(serialize_with = "as_text")]
    pub text: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::LeftOut => "left out",
            Outcome::Changed => "changed",
        };
        write!(f, "{}:{}: {}\n    {outcome}: {}", self.file, self.line, self.text, self.reason)
    }
}

/// Every remark of an import, and what it carried over.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Virtual services carried over.
    pub services: usize,
    /// Their real servers.
    pub real_servers: usize,
    /// The lines that were not carried over as they are, file by file in the order of reading.
    pub remarks: Vec<Remark>,
}

impl Report {
    /// A line that nothing here stands for. Said once for a line and reason, however often it was expanded.
    pub fn left(&mut self, at: &Place, reason: impl fmt::Display) {
        self.add(at, Outcome::LeftOut, reason);
    }

    /// A line whose meaning here is not quite the same.
    pub fn changed(&mut self, at: &Place, reason: impl fmt::Display) {
        self.add(at, Outcome::Changed, reason);
    }

    fn add(&mut self, at: &Place, outcome: Outcome, reason: impl fmt::Display) {
        let Place { file, line, text } = at.clone();
        self.remarks.push(Remark { file, line, text, outcome, reason: reason.to_string() });
    }

    /// Puts the remarks into the order of the lines, each once. Files stay in the order in which they were first met.
    pub fn settle(&mut self) {
        let mut files: Vec<Arc<str>> = Vec::new();
        for remark in &self.remarks {
            if !files.contains(&remark.file) {
                files.push(Arc::clone(&remark.file));
            }
        }
        let rank = |file: &Arc<str>| files.iter().position(|other| other == file);
        self.remarks.sort_by_key(|remark| (rank(&remark.file), remark.line));
        let mut seen = std::collections::HashSet::new();
        self.remarks.retain(|remark| seen.insert((Arc::clone(&remark.file), remark.line, Arc::clone(&remark.text), remark.reason.clone())));
    }

    /// How many lines have this outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        let mut lines: Vec<(&str, usize)> =
            self.remarks.iter().filter(|remark| remark.outcome == outcome).map(|remark| (&*remark.file, remark.line)).collect();
        lines.dedup();
        lines.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        let (left, changed) = (self.count(Outcome::LeftOut), self.count(Outcome::Changed));
        let (services, servers) = (self.services, self.real_servers);
        write!(f, "carried over: {services} virtual services, {servers} real servers; lines left out: {left}, changed: {changed}")
    }
}
