//! Where a command reads from and writes to: the process's own streams, or buffers in tests.

use std::fmt;
use std::io::{self, IsTerminal, Read, Write};

/// Standard input, output and error of one command.
///
/// Writes never fail loudly: when the reader of the output goes away (`baton get connections | head`), the rest is
/// dropped and [`Console::closed`] turns true so that long listings stop. Any other failure is kept for
/// [`Console::finish`].
pub struct Console<'a> {
    input: Box<dyn Read + 'a>,
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    interactive: bool,
    screen: Screen,
    closed: bool,
    failure: Option<io::Error>,
}

/// What standard output is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Screen {
    /// No terminal.
    None,
    /// A terminal whose user wants no colours (`NO_COLOR`).
    Plain,
    /// A terminal.
    Coloured,
}

impl Console<'static> {
    /// The process's own streams, output buffered by line blocks.
    pub fn standard() -> Self {
        let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
        let mut console = Self::new(io::stdin(), io::BufWriter::new(io::stdout()), io::stderr());
        console.interactive = interactive;
        console.screen = match (io::stdout().is_terminal(), std::env::var_os("NO_COLOR")) {
            (false, _) => Screen::None,
            (true, Some(value)) if !value.is_empty() => Screen::Plain,
            (true, _) => Screen::Coloured,
        };
        console
    }
}

impl<'a> Console<'a> {
    /// A console over the given streams; nobody is there to answer questions.
    pub fn new(input: impl Read + 'a, out: impl Write + 'a, err: impl Write + 'a) -> Self {
        Self {
            input: Box::new(input),
            out: Box::new(out),
            err: Box::new(err),
            interactive: false,
            screen: Screen::None,
            closed: false,
            failure: None,
        }
    }

    /// Writes a piece of output as it is.
    pub fn write(&mut self, text: impl fmt::Display) {
        if self.closed {
            return;
        }
        if let Err(error) = write!(self.out, "{text}") {
            self.give_up(error);
        }
    }

    /// Writes a line of output.
    pub fn line(&mut self, text: impl fmt::Display) {
        self.write(format_args!("{text}\n"));
    }

    /// Puts text in the place of the last line that was put so, on a terminal; elsewhere nothing is written. Whether it was.
    pub fn renew(&mut self, text: impl fmt::Display) -> bool {
        let shown = self.screen != Screen::None;
        if shown {
            // Back to the line's beginning, and the rest of it away (ECMA-48: CR, EL).
            self.write(format_args!("\r{text}\x1b[K"));
            self.flush();
        }
        shown
    }

    /// Takes away the line that [`Self::renew`] put.
    pub fn renewed(&mut self) {
        self.renew("");
    }

    /// Writes a line of output in a colour (a number of ECMA-48's SGR), where a terminal shows it and nobody set `NO_COLOR`.
    pub fn coloured(&mut self, colour: &str, text: impl fmt::Display) {
        if self.screen == Screen::Coloured {
            self.write(format_args!("\u{1b}[{colour}m{text}\u{1b}[0m\n"));
        } else {
            self.line(text);
        }
    }

    /// Writes a line to standard error, after everything that was written before it.
    pub fn complain(&mut self, text: impl fmt::Display) {
        self.flush();
        // Nowhere is left to report a standard error that cannot be written.
        let _ = writeln!(self.err, "{text}");
    }

    /// Whether nobody reads the output any more.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// All of standard input as text; bytes that are not UTF-8 become U+FFFD.
    pub fn read_all(&mut self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read_bytes(u64::MAX)?).into_owned())
    }

    /// Standard input as it is, up to `most` bytes.
    pub fn read_bytes(&mut self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        (&mut self.input).take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Asks a question; `None` when nobody is there to answer.
    pub fn confirm(&mut self, question: &str) -> Option<bool> {
        if !self.interactive {
            return None;
        }
        self.flush();
        let _ = write!(self.err, "{question} [y/N] ");
        let _ = self.err.flush();
        let mut answer = Vec::new();
        let mut byte = [0u8; 1];
        while matches!(self.input.read(&mut byte), Ok(1)) && byte[0] != b'\n' {
            answer.push(byte[0]);
        }
        Some(matches!(answer.first(), Some(b'y' | b'Y')))
    }

    /// Writes out what is buffered; the first write that failed for another reason than a reader who left.
    pub fn finish(&mut self) -> Option<io::Error> {
        self.flush();
        self.failure.take()
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) {
        if self.closed {
            return;
        }
        if let Err(error) = self.out.flush() {
            self.give_up(error);
        }
    }

    fn give_up(&mut self, error: io::Error) {
        self.closed = true;
        if error.kind() != io::ErrorKind::BrokenPipe {
            self.failure = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone(io::ErrorKind);

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_left_is_no_failure() {
        let mut console = Console::new(io::empty(), Gone(io::ErrorKind::BrokenPipe), io::sink());
        console.line("one");
        assert!(console.closed());
        assert!(console.finish().is_none());
    }

    #[test]
    fn a_full_disk_is_a_failure() {
        let mut console = Console::new(io::empty(), Gone(io::ErrorKind::StorageFull), io::sink());
        console.line("one");
        assert_eq!(console.finish().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
