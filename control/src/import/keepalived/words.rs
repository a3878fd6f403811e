//! Words of a line: comments, quotes and escapes (keepalived.conf(5), "Quoted strings").

/// A line without its comment. What is quoted begins none, nor does a sign behind a backslash.
pub(super) fn strip_comment(line: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, c) {
            (_, '\\') => escaped = true,
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None, '#' | '!') => return &line[..at],
            _ => {}
        }
    }
    line
}

/// The words of a line without comment; `None` when a quote does not end. A brace stands alone, also where it hangs on a word.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    let mut end = |word: &mut Option<String>, quoted: &mut bool| {
        if let Some(done) = word.take() {
            // `virtual_server 10.0.0.1 80{` and `${UNKNOWN}` both end with a brace; the second is a word.
            let hanging = !*quoted && done.len() > 1 && done.ends_with('{') && !done.contains('$');
            if hanging {
                found.push(done[..done.len() - 1].to_owned());
                found.push("{".to_owned());
            } else {
                found.push(done);
            }
        }
        *quoted = false;
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => word.get_or_insert_default().extend(escape(&mut chars)),
            (None, '"' | '\'') => {
                quote = Some(c);
                quoted = true;
                word.get_or_insert_default();
            }
            (Some(open), _) if open == c => quote = None,
            (None, _) if c.is_whitespace() => end(&mut word, &mut quoted),
            _ => word.get_or_insert_default().push(c),
        }
    }
    end(&mut word, &mut quoted);
    quote.is_none().then_some(found)
}

/// What stands behind a backslash.
fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    let c = chars.next()?;
    Some(match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'E' => '\u{1b}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        'x' => number(chars, 16, 2, 0)?,
        '0'..='7' => number(chars, 8, 2, c.to_digit(8)?)?,
        'c' => char::from(u8::try_from(chars.next()?).ok()?.to_ascii_uppercase() & 0x1f),
        other => other,
    })
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, radix: u32, most: usize, first: u32) -> Option<char> {
    let mut value = first;
    for _ in 0..most {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
        value = value * radix + digit;
        chars.next();
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_joined_by_quotes() {
        for (line, expected) in [
            ("", vec![]),
            ("delay_loop  6", vec!["delay_loop", "6"]),
            ("abcd\" efg h jkl \"mnop", vec!["abcd efg h jkl mnop"]),
            ("abcd \"efg h jkl\" mnop", vec!["abcd", "efg h jkl", "mnop"]),
            ("script 'a \"b\"'", vec!["script", "a \"b\""]),
            (r"a\ b \x41\102 \\ \q", vec!["a b", "AB", "\\", "q"]),
            ("real_server 10.0.0.1 80{", vec!["real_server", "10.0.0.1", "80", "{"]),
            ("${UNKNOWN}", vec!["${UNKNOWN}"]),
            ("\"\"", vec![""]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        assert_eq!(words("a \"b"), None);
    }

    #[test]
    fn comments_begin_anywhere_but_in_quotes() {
        for (line, expected) in [
            ("a # b", "a "),
            ("a!b", "a"),
            ("! all", ""),
            ("a \"#b\" ! c", "a \"#b\" "),
            (r"a \# b", r"a \# b"),
            ("it's # one", "it's # one"),
        ] {
            assert_eq!(strip_comment(line), expected, "{line}");
        }
    }
}
