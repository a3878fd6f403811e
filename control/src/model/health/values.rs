//! Values that stand as texts in documents: times and sets of statuses.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A span of time, written as `2s`, `250ms` or `1m`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "2s")]
pub struct Span(pub Duration);

impl Span {
    /// How a span is written.
    pub const EXPECTED: &'static str = "a time such as \"2s\", \"250ms\" or \"1m\"";
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            _ => 0,
        };
        let number: Option<u64> = text[..text.len() - unit.len()].parse().ok();
        let span = number.and_then(|number| number.checked_mul(milliseconds)).filter(|_| milliseconds != 0);
        span.map(|span| Self(Duration::from_millis(span))).ok_or_else(|| format!("'{text}' is no time: expected {}", Self::EXPECTED))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match milliseconds {
            m if m != 0 && m.is_multiple_of(60_000) => write!(f, "{}m", m / 60_000),
            s if s.is_multiple_of(1_000) => write!(f, "{}s", s / 1_000),
            _ => write!(f, "{milliseconds}ms"),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

/// HTTP statuses that count as healthy, written as `200,204,300-399`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "200-299,304")]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// How a set is written.
    pub const EXPECTED: &'static str = "statuses from 100 to 599 such as \"200\" or \"200-299,304\"";

    /// 200 to 399: what counts where none is given. Redirects are not followed, but answer for the server.
    pub fn usual() -> Self {
        Self(vec![(200, 399)])
    }

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first >= 100 && first <= last && last <= 599).then_some((first, last))
        };
        let ranges: Option<Vec<(u16, u16)>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| format!("'{text}' is no set of statuses: expected {}", Self::EXPECTED))
    }
}

impl TryFrom<String> for StatusSet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

impl From<StatusSet> for String {
    fn from(set: StatusSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_they_are_read() {
        for text in ["2s", "250ms", "1m", "90s", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("1500ms".parse(), Ok(Span(Duration::from_millis(1_500))));
        for text in ["", "2", "s", "-1s", "1.5s", "2h", "99999999999999999999ms", "18446744073709551615m"] {
            assert!(text.parse::<Span>().unwrap_err().contains(Span::EXPECTED), "{text}");
        }
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let set: StatusSet = "200-299, 304".parse().unwrap();
        assert_eq!(set.to_string(), "200-299,304");
        assert!(set.contains(200) && set.contains(299) && set.contains(304) && !set.contains(303) && !set.contains(199));
        for text in ["", "99", "600", "300-200", "200,,201", "ok"] {
            assert!(text.parse::<StatusSet>().is_err(), "{text}");
        }
    }
}
