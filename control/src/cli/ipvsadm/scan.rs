//! Splits a command line into options and values the way popt does: bundled short options (`-Lnc`, `-t10.0.0.1:80`),
//! long ones by their whole name with `=` or a space, and other arguments anywhere between.

use super::options::{OPTIONS, Opt, Takes};

/// An option that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Which one.
    pub option: Opt,
    /// Its value, for those that take one and got one.
    pub value: Option<String>,
    /// The argument that it stood in, for messages.
    pub argument: String,
}

/// Why the scanner stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{argument}: {what}")]
pub struct ScanError {
    argument: String,
    what: &'static str,
}

/// Walks over the arguments (without the program's name); what is no option is left in [`Scanner::rest`].
pub struct Scanner<'a> {
    arguments: std::slice::Iter<'a, String>,
    bundle: Option<(&'a str, &'a str)>,
    /// Arguments that belong to no option, in order.
    pub rest: Vec<&'a str>,
}

impl<'a> Scanner<'a> {
    /// A scanner at the first argument.
    pub fn new(arguments: &'a [String]) -> Self {
        Self { arguments: arguments.iter(), bundle: None, rest: Vec::new() }
    }

    fn long(&mut self, argument: &'a str, long: &'a str) -> Result<Found, ScanError> {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let known = OPTIONS.iter().find(|option| option.0 == name);
        let &(_, _, option, takes) = known.ok_or_else(|| unknown(argument))?;
        if takes == Takes::Nothing && value.is_some() {
            return Err(ScanError { argument: argument.to_owned(), what: "option does not take an argument" });
        }
        self.found(option, takes, value, argument)
    }

    fn short(&mut self, argument: &'a str, letters: &'a str) -> Result<Found, ScanError> {
        let mut rest = letters.chars();
        let letter = rest.next();
        let known = OPTIONS.iter().find(|option| letter.is_some() && option.1 == letter);
        let &(_, _, option, takes) = known.ok_or_else(|| unknown(argument))?;
        let rest = rest.as_str();
        if takes == Takes::Nothing {
            self.bundle = (!rest.is_empty()).then_some((argument, rest));
            return self.found(option, takes, None, argument);
        }
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest));
        self.found(option, takes, value, argument)
    }

    fn found(&mut self, option: Opt, takes: Takes, value: Option<&'a str>, argument: &'a str) -> Result<Found, ScanError> {
        let value = match (takes, value) {
            (Takes::Nothing, _) => None,
            (_, Some(value)) => Some(value),
            (Takes::Value, None) => {
                let missing = || ScanError { argument: argument.to_owned(), what: "missing argument" };
                Some(self.arguments.next().ok_or_else(missing)?.as_str())
            }
            (Takes::MaybeValue, None) => match self.arguments.as_slice().first() {
                Some(next) if !next.starts_with('-') => self.arguments.next().map(String::as_str),
                _ => None,
            },
        };
        Ok(Found { option, value: value.map(str::to_owned), argument: argument.to_owned() })
    }
}

impl Iterator for Scanner<'_> {
    type Item = Result<Found, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((argument, letters)) = self.bundle.take() {
                return Some(self.short(argument, letters));
            }
            let argument = self.arguments.next()?.as_str();
            if argument == "--" {
                self.rest.extend(self.arguments.by_ref().map(String::as_str));
            } else if let Some(long) = argument.strip_prefix("--") {
                return Some(self.long(argument, long));
            } else if let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                self.bundle = Some((argument, letters));
            } else {
                self.rest.push(argument);
            }
        }
    }
}

fn unknown(argument: &str) -> ScanError {
    ScanError { argument: argument.to_owned(), what: "unknown option" }
}
