//! `baton import`: what other programs' files say, as baton.toml.

use std::path::{Path, PathBuf};

use clap::Args;

use super::console::Console;
use crate::codes::Code;
use crate::import::{Kind, MOST_BYTES, Order, import};

/// `baton import`.
#[derive(Args, Debug)]
pub struct Import {
    /// The file to read; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What it is written for; told from its text when not given
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub from: Option<Kind>,
    /// A baton.toml with the director's ports, which what is imported is put behind; an example of a port when not given
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// keepalived's config-id, which decides about lines that begin with @ [default: this host's name to the first dot]
    #[arg(long, value_name = "ID")]
    pub config_id: Option<String>,
    /// Write the list of what was left out and changed as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Writes the configuration to standard output, and what is not in it to standard error; 0 when everything is, 1 when something
/// is not, 2 when nothing can be read.
pub fn run(line: &Import, console: &mut Console<'_>) -> u8 {
    let standard_input = line.file == Path::new("-");
    let bytes = if standard_input { console.read_bytes(MOST_BYTES as u64 + 1).map(Some) } else { Ok(None) };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(why) => {
            console.complain(format_args!("cannot read standard input: {why} [{}]", Code::UnreadableFile));
            return 2;
        }
    };
    let id = line.config_id.clone().unwrap_or_else(host_name);
    let order = Order { file: &line.file, text: bytes.as_deref(), kind: line.from, id: &id, base: line.config.as_deref() };
    match import(&order) {
        Ok((text, report)) => {
            console.write(text);
            if line.json {
                console.complain(serde_json::to_string_pretty(&report).unwrap_or_default());
            } else {
                console.complain(&report);
            }
            u8::from(!report.remarks.is_empty())
        }
        Err(why) => {
            console.complain(format_args!("{why} [{}]", Code::NotImported));
            2
        }
    }
}

fn host_name() -> String {
    let name = nix::sys::utsname::uname().map(|names| names.nodename().to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
}
