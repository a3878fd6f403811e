//! `baton import`: services as ipvsadm, keepalived and ldirectord describe them, as sections of baton.toml.
//!
//! What is read becomes a [`draft::Draft`], whose parts know their lines. What the director's rules do not allow is taken out
//! of it ([`draft::Draft::fit`]), and every line that nothing in the result stands for is in the [`report::Report`].

mod draft;
mod ipvsadm;
mod keepalived;
mod ldirectord;
mod render;
pub mod report;
mod source;

use std::path::Path;
use std::sync::Arc;

use draft::Draft;
use report::{Place, Report};
use source::Sources;
pub use source::{MOST_BYTES, Unreadable};

use crate::config;

/// What a text is written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Rules that `ipvsadm -S` printed
    Ipvsadm,
    /// keepalived.conf
    Keepalived,
    /// ldirectord.cf
    Ldirectord,
}

/// What an import is made from.
#[derive(Clone, Copy, Debug)]
pub struct Order<'o> {
    /// The file; only its name, when `text` has what is in it.
    pub file: &'o Path,
    /// What was read already, from standard input.
    pub text: Option<&'o [u8]>,
    /// What it is written for; told from the text when `None`.
    pub kind: Option<Kind>,
    /// keepalived's config-id; conditional lines for others are left out.
    pub id: &'o str,
    /// A baton.toml whose ports and all else come first; an example of a port when `None`.
    pub base: Option<&'o Path>,
}

/// Reads, and writes a configuration that `baton check` finds no fault in, with the report of what is not in it.
///
/// # Errors
/// Nothing can be made of it: it cannot be read, its kind cannot be told, or the base has faults.
pub fn import(order: &Order<'_>) -> Result<(String, Report), Unreadable> {
    let mut sources = Sources::default();
    let name: Arc<str> = order.file.display().to_string().into();
    let text = match order.text {
        Some(bytes) => sources.admit(&name, bytes)?,
        None => sources.read(order.file)?,
    };
    let kind = order.kind.or_else(|| guess(&text)).ok_or_else(|| {
        Unreadable(format!("{name}: cannot tell what it is written for: say it with --from ipvsadm, keepalived or ldirectord"))
    })?;
    let mut report = Report::default();
    let mut draft = match kind {
        Kind::Ipvsadm => ipvsadm::read(&text, &name, &mut report),
        Kind::Ldirectord => ldirectord::read(&text, &name, &mut report),
        Kind::Keepalived => {
            // An error is for files that include this one: there is none yet.
            let _ = sources.enter(order.file);
            keepalived::read(&text, order.file, order.id, &mut sources, &mut report)?
        }
    };
    let base = match order.base {
        Some(path) => sources.read(path)?,
        None => render::example(&draft),
    };
    let base_name = order.base.unwrap_or(Path::new("the example of a port"));
    let with = config::parse(&base, base_name, &[]).map_err(|faults| Unreadable(faults.to_string()))?;
    if has_settings(&base) {
        for (name, seconds, at) in std::mem::take(&mut draft.settings) {
            report.left(&at, format_args!("{} has settings of its own: {name} = {seconds} belongs there", base_name.display()));
        }
    }
    draft.fit(&with.document(), &with.links(|_| [0; 6], |_| config::USUAL_MTU), &mut report)?;
    let written = format!("{}{}{}", base, if base.ends_with('\n') { "" } else { "\n" }, render::sections(&draft)?);
    config::parse(&written, Path::new("what was imported"), &[]).map_err(|faults| Unreadable(faults.to_string()))?;
    count(&draft, &mut report);
    report.settle();
    Ok((written, report))
}

fn count(draft: &Draft, report: &mut Report) {
    report.services = draft.services.len();
    report.real_servers = draft.services.iter().map(|service| service.spec.real_servers.len()).sum();
}

fn has_settings(base: &str) -> bool {
    base.parse::<toml::Table>().is_ok_and(|table| table.contains_key("settings"))
}

/// What a text is written for, by the first line that tells.
fn guess(text: &str) -> Option<Kind> {
    text.lines().find_map(|line| {
        let rule = ipvsadm::bare(line);
        let indented = line.starts_with([' ', '\t']);
        let word = line.split([' ', '\t', '=', '{']).next().unwrap_or_default();
        if ["-A ", "-a ", "-C", "--add-service ", "--add-server ", "--set ", "-E ", "-e "].iter().any(|option| rule.starts_with(option)) {
            Some(Kind::Ipvsadm)
        } else if indented || line.starts_with(['#', '!']) {
            None
        } else if keepalived::KEYWORDS.contains(&word) || word.starts_with("vrrp_") || word.starts_with(['$', '@', '~']) {
            Some(Kind::Keepalived)
        } else if ["virtual", "virtual6", "checktimeout", "checkinterval", "negotiatetimeout", "quiescent", "autoreload", "failurecount"]
            .contains(&word)
        {
            Some(Kind::Ldirectord)
        } else {
            None
        }
    })
}

/// A service by mark is carried over, but not who gives the mark.
fn needs_mark_rule(at: &Place, report: &mut Report) {
    report.changed(at, "netfilter's rules say which packets have the mark: say it here with [[mark]]");
}

#[cfg(test)]
mod tests;
