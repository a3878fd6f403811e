//! `~SEQ(var, start, step, end)` and `~LST(var, value, ...)`: lines that stand for several.

/// The most values of one of them.
const MOST: usize = 65_536;

/// What a line stands for.
pub(super) struct Repeat<'l> {
    /// The variables with their values, once for each repetition.
    pub(super) values: Vec<Vec<(String, String)>>,
    /// The rest of the line.
    pub(super) rest: &'l str,
}

/// Reads the first of them that a line begins with.
pub(super) fn read(line: &str) -> Option<Repeat<'_>> {
    let (name, behind) = line.strip_prefix('~')?.split_once('(')?;
    let (inside, rest) = behind.split_once(')')?;
    let values = match name {
        "SEQ" => sequence(inside, 10)?,
        "SEQx" => sequence(inside, 16)?,
        "LST" => list(inside)?,
        _ => return None,
    };
    Some(Repeat { values, rest: rest.trim_start() })
}

fn sequence(inside: &str, radix: u32) -> Option<Vec<Vec<(String, String)>>> {
    let parts: Vec<&str> = inside.split(',').map(str::trim).collect();
    let name = *parts.first().filter(|name| !name.is_empty())?;
    let numbers: Vec<i64> = parts[1..].iter().map(|part| number(part)).collect::<Option<_>>()?;
    let (start, step, end) = match *numbers.as_slice() {
        [end] => (if end > 0 { 1 } else { -1 }, if end > 0 { 1 } else { -1 }, end),
        [start, end] => (start, if end >= start { 1 } else { -1 }, end),
        [start, step, end] => (start, step, end),
        _ => return None,
    };
    if step == 0 {
        return None;
    }
    let mut values = Vec::new();
    let mut at = start;
    while if step > 0 { at <= end } else { at >= end } {
        if values.len() == MOST {
            return None;
        }
        let text = if radix == 16 { format!("{at:x}") } else { at.to_string() };
        values.push(vec![(name.to_owned(), text)]);
        at = at.checked_add(step)?;
    }
    Some(values)
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn list(inside: &str) -> Option<Vec<Vec<(String, String)>>> {
    let parts = split_groups(inside)?;
    let names = group(parts.first()?);
    let values: Option<Vec<_>> = parts[1..]
        .iter()
        .map(|part| {
            let values = group(part);
            (values.len() == names.len()).then(|| names.iter().cloned().zip(values).collect())
        })
        .collect();
    values.filter(|values| !values.is_empty() && !names.iter().any(String::is_empty))
}

/// Splits at commas that stand outside of braces.
fn split_groups(text: &str) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let (mut inside, mut start) = (false, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' if !inside => inside = true,
            '}' if inside => inside = false,
            '{' | '}' => return None,
            ',' if !inside => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    (!inside).then_some(parts)
}

fn group(part: &str) -> Vec<String> {
    let part = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')).unwrap_or(part);
    part.split(',').map(|value| value.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        let Repeat { values, rest } = read(line)?;
        let one = |values: Vec<(String, String)>| values.iter().map(|(name, text)| format!("{name}={text}")).collect::<Vec<_>>().join(" ");
        Some(values.into_iter().map(|values| format!("{} {rest}", one(values))).collect())
    }

    #[test]
    fn sequences_and_lists_stand_for_several_lines() {
        for (line, expected) in [
            ("~SEQ(A, 0, 3) x", vec!["A=0 x", "A=1 x", "A=2 x", "A=3 x"]),
            ("~SEQ(A, 2)  x", vec!["A=1 x", "A=2 x"]),
            ("~SEQ(A, 3, -1, 1) x", vec!["A=3 x", "A=2 x", "A=1 x"]),
            ("~SEQx(A, 0x90, 0x10, 0xb0) x", vec!["A=90 x", "A=a0 x", "A=b0 x"]),
            ("~LST(A, 7, 9) x", vec!["A=7 x", "A=9 x"]),
            ("~LST({A, B}, {1,2},{3,4}) x", vec!["A=1 B=2 x", "A=3 B=4 x"]),
        ] {
            assert_eq!(texts(line).unwrap(), expected, "{line}");
        }
        for line in ["~SEQ(A, 1, 0, 3) x", "~SEQ(A, 1, 9999999) x", "~SEQ() x", "~LST(A) x", "~LST({A,B},{1}) x", "~SEQ(A, 1", "~X(A) x"] {
            assert_eq!(texts(line), None, "{line}");
        }
    }
}
