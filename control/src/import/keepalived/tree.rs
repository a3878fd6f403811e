//! keepalived.conf as statements and the blocks that belong to them.

use super::lines::Line;
use crate::import::report::{Lines, Place, Report};

/// How deep blocks may stand in each other.
const DEEPEST: usize = 16;

/// A statement, with the block in braces behind it if there is one.
#[derive(Debug)]
pub(super) struct Statement {
    /// Its words; at least one.
    pub(super) words: Vec<String>,
    pub(super) at: Place,
    pub(super) block: Option<Vec<Statement>>,
}

impl Statement {
    /// Its first word.
    pub(super) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The words behind it.
    pub(super) fn rest(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// What stands in its block.
    pub(super) fn inside(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Its line and those of its block.
    pub(super) fn lines(&self) -> Lines {
        let mut all = Vec::new();
        self.add_lines(&mut all);
        all.into()
    }

    fn add_lines(&self, all: &mut Vec<Place>) {
        all.push(self.at.clone());
        for statement in self.inside() {
            statement.add_lines(all);
        }
    }

    /// Says of the statement and of every line in its block that it is left out.
    pub(super) fn leave_out(&self, reason: &str, report: &mut Report) {
        report.left(&self.at, reason);
        for statement in self.inside() {
            statement.leave_out(reason, report);
        }
    }
}

/// Makes statements of lines. A brace that closes nothing, a block too deep and one that does not end are said.
pub(super) fn read(lines: Vec<Line>, report: &mut Report) -> Vec<Statement> {
    // The open blocks, the outermost first; each with the statements read so far.
    let mut open: Vec<Vec<Statement>> = vec![Vec::new()];
    let mut too_deep = 0_usize;
    for Line { words, at } in lines {
        let mut statement: Vec<String> = Vec::new();
        for word in words {
            match word.as_str() {
                "{" if too_deep > 0 || open.len() > DEEPEST => {
                    report.left(&at, format_args!("blocks stand in each other more than {DEEPEST} deep"));
                    too_deep += 1;
                    statement.clear();
                }
                "{" => {
                    let Some(level) = open.last_mut() else { continue };
                    if !statement.is_empty() {
                        level.push(Statement { words: std::mem::take(&mut statement), at: at.clone(), block: None });
                    }
                    // On a line of its own it belongs to what stands before it.
                    if let Some(last) = level.last_mut().filter(|last| last.block.is_none()) {
                        last.block = Some(Vec::new());
                    } else {
                        report.left(&at, "a block that belongs to nothing");
                        level.push(Statement { words: vec!["{".to_owned()], at: at.clone(), block: Some(Vec::new()) });
                    }
                    open.push(Vec::new());
                }
                "}" => {
                    finish(&mut statement, &at, too_deep, &mut open, report);
                    if too_deep > 0 {
                        too_deep -= 1;
                    } else if open.len() > 1 {
                        close(&mut open);
                    } else {
                        report.left(&at, "a brace that closes nothing");
                    }
                }
                _ => statement.push(word),
            }
        }
        finish(&mut statement, &at, too_deep, &mut open, report);
    }
    while open.len() > 1 {
        if let Some(outer) = open.get(open.len() - 2).and_then(|level| level.last()) {
            report.changed(&outer.at, "its block does not end: all that follows was taken for a part of it");
        }
        close(&mut open);
    }
    open.pop().unwrap_or_default()
}

fn finish(statement: &mut Vec<String>, at: &Place, too_deep: usize, open: &mut [Vec<Statement>], report: &mut Report) {
    if statement.is_empty() {
        return;
    }
    let words = std::mem::take(statement);
    if too_deep > 0 {
        report.left(at, format_args!("blocks stand in each other more than {DEEPEST} deep"));
    } else if let Some(level) = open.last_mut() {
        level.push(Statement { words, at: at.clone(), block: None });
    }
}

fn close(open: &mut Vec<Vec<Statement>>) {
    let inner = open.pop();
    if let Some(owner) = open.last_mut().and_then(|level| level.last_mut()) {
        owner.block = inner;
    }
}
