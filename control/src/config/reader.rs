//! Walks a TOML document with its spans and reports every fault instead of stopping at the first.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::faults::Collector;

/// A table of the document: keys are taken out by name, and what was never asked for is unknown.
#[derive(Debug)]
pub(super) struct Section<'d> {
    path: String,
    span: Range<usize>,
    table: &'d DeTable<'d>,
    known: Vec<&'static str>,
}

/// A value of the document with the full path of its key.
#[derive(Clone, Debug)]
pub(super) struct Item<'d> {
    pub(super) path: String,
    pub(super) span: Range<usize>,
    value: &'d DeValue<'d>,
}

impl<'d> Section<'d> {
    pub(super) const fn root(table: &'d DeTable<'d>) -> Self {
        Self { path: String::new(), span: 0..0, table, known: Vec::new() }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of `key`, if it is given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Item<'d>> {
        self.known.push(key);
        let value = self.table.get(key)?;
        Some(Item { path: self.path_of(key), span: value.span(), value: value.get_ref() })
    }

    /// The value of `key`; a fault that says `what` is needed when it is not given.
    pub(super) fn need(&mut self, key: &'static str, what: &str, faults: &mut Collector<'_>) -> Option<Item<'d>> {
        let item = self.take(key);
        if item.is_none() {
            faults.add_missing(self.span(), self.path_of(key), what);
        }
        item
    }

    /// The table under `key`, empty when it is not given.
    pub(super) fn take_section(&mut self, key: &'static str, faults: &mut Collector<'_>) -> Option<Section<'d>> {
        self.take(key)?.section(faults)
    }

    /// The tables `[[key]]`, none when there are none.
    pub(super) fn take_sections(&mut self, key: &'static str, faults: &mut Collector<'_>) -> Vec<Section<'d>> {
        let Some(item) = self.take(key) else { return Vec::new() };
        item.sections(faults)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, faults: &mut Collector<'_>) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let mut allowed = self.known.clone();
            allowed.sort_unstable();
            let guess = nearest(name, &allowed).map_or_else(String::new, |near| format!("did you mean '{near}'? "));
            faults.add(key.span(), self.path_of(name), format!("unknown key; {guess}allowed here: {}", allowed.join(", ")));
        }
    }
}

impl<'d> Item<'d> {
    /// Reports this value as not allowed.
    pub(super) fn refuse(&self, faults: &mut Collector<'_>, allowed: impl Display) {
        let given = faults.given(self.span.clone());
        faults.add(self.span.clone(), self.path.clone(), format!("{given} is not allowed: {allowed}"));
    }

    /// Reports a whole table, or several, as not allowed here.
    pub(super) fn refuse_whole(&self, faults: &mut Collector<'_>, why: impl Display) {
        faults.add(self.span.clone(), self.path.clone(), why.to_string());
    }

    fn wrong_type(&self, faults: &mut Collector<'_>, expected: impl Display) {
        let given = faults.given(self.span.clone());
        let article = if self.value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
        let detail = format!("{given} is {article} {}: expected {expected}", self.value.type_str());
        faults.add(self.span.clone(), self.path.clone(), detail);
    }

    /// Whether it is a whole number.
    pub(super) fn is_integer(&self) -> bool {
        self.value.as_integer().is_some()
    }

    pub(super) fn text(&self, faults: &mut Collector<'_>, expected: impl Display) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(faults, expected);
        }
        text
    }

    pub(super) fn boolean(&self, faults: &mut Collector<'_>) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.wrong_type(faults, "true or false");
        }
        value
    }

    /// A whole number within `allowed`, both ends included.
    pub(super) fn number<T>(&self, faults: &mut Collector<'_>, allowed: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        let range = format!("a whole number from {} to {}", allowed.start(), allowed.end());
        let Some(integer) = self.value.as_integer() else {
            self.wrong_type(faults, range);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| T::try_from(n).ok());
        let number = number.filter(|n| allowed.contains(n));
        if number.is_none() {
            self.refuse(faults, format_args!("expected {range}"));
        }
        number
    }

    /// A text that `T` can be read from; `expected` says which texts are.
    pub(super) fn parsed<T: FromStr>(&self, faults: &mut Collector<'_>, expected: impl Display) -> Option<T> {
        let value = self.text(faults, &expected)?.parse().ok();
        if value.is_none() {
            self.refuse(faults, format_args!("expected {expected}"));
        }
        value
    }

    /// One of the given texts.
    pub(super) fn choice<T: Copy>(&self, faults: &mut Collector<'_>, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let expected = format!("one of {}", names.join(", "));
        let text = self.text(faults, &expected)?;
        let value = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if value.is_none() {
            self.refuse(faults, format_args!("expected {expected}"));
        }
        value
    }

    /// The entries of a table whose keys are the user's own.
    pub(super) fn entries(&self, faults: &mut Collector<'_>) -> Vec<(String, Item<'d>)> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type(faults, "a table");
            return Vec::new();
        };
        let entry = |(key, value): (&toml::Spanned<std::borrow::Cow<'d, str>>, &'d toml::Spanned<DeValue<'d>>)| {
            let name = key.get_ref().to_string();
            (name.clone(), Item { path: format!("{}.{name}", self.path), span: value.span(), value: value.get_ref() })
        };
        table.iter().map(entry).collect()
    }

    /// The values of a list; a fault and none when it is not a list.
    pub(super) fn list(&self, faults: &mut Collector<'_>) -> Vec<Item<'d>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type(faults, "a list: [...]");
            return Vec::new();
        };
        let entry = |(at, value): (usize, &'d toml::Spanned<DeValue<'d>>)| Item {
            path: format!("{}[{at}]", self.path),
            span: value.span(),
            value: value.get_ref(),
        };
        array.iter().enumerate().map(entry).collect()
    }

    /// Whether this is a list without values.
    /// Whether it is a list, of whatever length.
    pub(super) fn is_list(&self) -> bool {
        self.value.as_array().is_some()
    }

    pub(super) fn is_empty_list(&self) -> bool {
        self.value.as_array().is_some_and(|list| list.is_empty())
    }

    /// The tables of a list of tables.
    pub(super) fn sections(&self, faults: &mut Collector<'_>) -> Vec<Section<'d>> {
        if self.value.is_array() {
            return self.list(faults).into_iter().filter_map(|entry| entry.section(faults)).collect();
        }
        self.wrong_type(faults, format_args!("tables, each under its own [[{}]]", unindexed(&self.path)));
        Vec::new()
    }

    pub(super) fn section(&self, faults: &mut Collector<'_>) -> Option<Section<'d>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.wrong_type(faults, "a table");
        }
        table.map(|table| Section { path: self.path.clone(), span: self.span.clone(), table, known: Vec::new() })
    }
}

/// A path as it stands in a header: `service[0].real_server` is `service.real_server` there.
fn unindexed(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

/// The allowed key that `given` is most likely a slip of, if one is near enough.
fn nearest<'k>(given: &str, allowed: &[&'k str]) -> Option<&'k str> {
    let scored = allowed.iter().map(|key| (distance(given, key), *key));
    scored.filter(|(edits, key)| *edits <= 1 + key.len() / 4).min_by_key(|(edits, _)| *edits).map(|(_, key)| key)
}

/// Edit distance: insertions, deletions and substitutions that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
