//! What `UDP_CHECK`, `DNS_CHECK` and `MISC_CHECK` ask beside what all checkers have.

use std::fmt::Write as _;

use super::tree::Statement;
use super::values::{only, timer};
use super::words::words;
use crate::import::report::Report;
use crate::model::{CheckType, HealthSpec};

/// Takes a statement that is of a checker of this kind alone; whether it was.
pub(super) fn take(statement: &Statement, kind: CheckType, check: &mut HealthSpec, report: &mut Report) -> bool {
    match (kind, statement.name()) {
        (CheckType::Udp, "payload") => match nibbles(statement.rest()) {
            Some(bytes) if bytes.iter().all(|(high, low)| high.is_some() && low.is_some()) => {
                let digit = |nibble: Option<u32>| nibble.and_then(|nibble| char::from_digit(nibble, 16));
                check.send_hex = Some(bytes.iter().flat_map(|(high, low)| [digit(*high), digit(*low)]).flatten().collect());
            }
            _ => report.left(&statement.at, "expected hexadecimal digits"),
        },
        (CheckType::Udp, "require_reply") => {
            check.answer = Some(true);
            match nibbles(statement.rest()) {
                Some(bytes) if bytes.is_empty() => {}
                Some(bytes) => check.body = Some(pattern(&bytes)),
                None => report.left(&statement.at, "expected hexadecimal digits, or x where any digit will do"),
            }
        }
        (CheckType::Udp, "min_reply_length" | "max_reply_length") => {
            report.left(&statement.at, "answers are judged by what they hold, not by their length");
        }
        (CheckType::Dns, "type") => check.record = only(statement, report).map(str::to_owned),
        (CheckType::Dns, "name") => check.name = only(statement, report).map(str::to_owned),
        (CheckType::Exec, "misc_path") => {
            let line = statement.rest().join(" ");
            match words(&line).filter(|words| !words.is_empty()) {
                Some(words) => check.command = Some(words),
                None => report.left(&statement.at, "expected a program with its arguments"),
            }
        }
        (CheckType::Exec, "misc_timeout") => check.timeout = timer(statement, report),
        (CheckType::Exec, "misc_dynamic") => {
            report.left(&statement.at, "weights are not what a program says: exit code 0 is healthy, all else is not");
        }
        (CheckType::Exec, "user") => report.left(&statement.at, "all programs run as the user of [health]"),
        _ => return false,
    }
    true
}

/// What keepalived takes for granted.
pub(super) fn finish(block: &Statement, kind: CheckType, check: &mut HealthSpec, report: &mut Report) {
    match kind {
        CheckType::Udp => {
            check.answer = check.answer.or(Some(false));
            if check.send_hex.is_none() {
                report.changed(&block.at, "an empty datagram is sent, not a random one");
            }
        }
        CheckType::Dns => {
            check.record.get_or_insert_with(|| "SOA".to_owned());
            check.name.get_or_insert_with(|| ".".to_owned());
        }
        _ => {}
    }
}

/// Half a byte; nothing where any will do.
type Nibble = Option<u32>;

/// `Ab12f 3` is AB 12 0F 03: two digits a byte, and one that is left over at the end of a word is a byte of its own.
fn nibbles(texts: &[String]) -> Option<Vec<(Nibble, Nibble)>> {
    let digit = |c: char| if c.eq_ignore_ascii_case(&'x') { Some(None) } else { c.to_digit(16).map(Some) };
    let mut bytes = Vec::new();
    for text in texts.iter().flat_map(|text| text.split_whitespace()) {
        let digits: Vec<Nibble> = text.chars().map(digit).collect::<Option<_>>()?;
        bytes.extend(digits.chunks(2).map(|pair| match *pair {
            [high, low] => (high, low),
            [low, ..] => (Some(0), low),
            [] => (None, None),
        }));
    }
    Some(bytes)
}

/// The regular expression of what an answer begins with.
fn pattern(bytes: &[(Nibble, Nibble)]) -> String {
    let mut text = "(?s-u)^".to_owned();
    for (high, low) in bytes {
        // A String takes all that is written to it.
        let _ = match (high, low) {
            (Some(high), Some(low)) => write!(text, "\\x{high:X}{low:X}"),
            (Some(high), None) => write!(text, "[\\x{high:X}0-\\x{high:X}F]"),
            (None, Some(low)) => {
                text.push('[');
                let _ = (0..16).try_for_each(|high| write!(text, "\\x{high:X}{low:X}"));
                write!(text, "]")
            }
            (None, None) => write!(text, "."),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_come_in_keepaliveds_free_form() {
        let shown = |text: &str| nibbles(&[text.to_owned()]).map(|bytes| pattern(&bytes));
        assert_eq!(shown("Ab12f 3"), Some(r"(?s-u)^\xAB\x12\x0F\x03".to_owned()));
        assert_eq!(shown("Ax xx"), Some(r"(?s-u)^[\xA0-\xAF].".to_owned()));
        assert!(shown("x7").unwrap().starts_with(r"(?s-u)^[\x07\x17"));
        assert_eq!(shown("12 zz"), None);
    }
}
