//! The manual page baton(8), made of what the command line knows about itself.

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::Cli;
use crate::codes::Code;

/// What the command line does not know: heading, then (tag, text) each.
const MORE: &[(&str, &[(&str, &str)])] = &[
    (
        "ENVIRONMENT",
        &[
            ("BATON_API", "Where the director's API is, where --api does not say it; for ipvsadm's names too."),
            (
                "BATON_LOG",
                "What \"baton run\" logs: error, warn, info (the default), debug or trace, also by part of the program, such as \
                 info,control::kernel=debug.",
            ),
            (
                "BATON_LOG_FORMAT",
                "How: text, json (an object a line), or journal, the default under systemd: entries with PRIORITY and each field as BATON_FIELD.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/baton/baton.toml", "The configuration that the service starts with; see baton.toml(5)."),
            ("/var/lib/baton/state.json", "Services and settings as they were changed last."),
            ("/var/lib/baton/state.json.history", "The last 50 versions of it, by revision; see \"baton history\" and \"baton rollback\"."),
            ("/run/baton/baton.sock", "The API. Whoever may open it may change everything: root, and members of the group baton."),
            ("/usr/libexec/baton", "ipvsadm, ipvsadm-save and ipvsadm-restore as links to this program, which then is them."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It was done; the director ended on SIGTERM or SIGINT; \"baton diff\" found no difference."),
            ("1", "It failed, and standard error says why; \"baton diff\" found a difference."),
            ("2", "The command line is wrong; \"baton diff\" failed."),
            ("255", "As ipvsadm ends when it fails."),
        ],
    ),
];

/// The whole page, in roff.
///
/// # Errors
/// None that writing to memory can have.
pub(super) fn page() -> std::io::Result<String> {
    let mut command = Cli::command().about("a Linux Virtual Server director on DPDK").disable_help_subcommand(true);
    command.build();
    let mut out = Vec::new();
    let man = Man::new(command.clone()).section("8").manual("Baton");
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_options_section(&mut out)?;
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    roff.to_writer(&mut out)?;
    for sub in command.get_subcommands() {
        describe(sub, &mut out)?;
    }
    let mut roff = Roff::new();
    for (heading, entries) in MORE {
        roff.control("SH", [*heading]);
        for (tag, text) in *entries {
            roff.control("TP", []);
            roff.text([bold(*tag)]);
            roff.text([roman(*text)]);
        }
    }
    roff.control("SH", ["ERRORS"]);
    roff.text([roman(
        "Each error has a name that stays: in \"type\" of the API's answers, in brackets behind the messages of commands, and as \"code\" in the log \
        when the director does not start. As ipvsadm, this program says to the byte what ipvsadm says, without them.",
    )]);
    for code in Code::ALL {
        roff.control("TP", []);
        let status = if code.status() == 0 { String::new() } else { format!(" ({})", code.status()) };
        roff.text([bold(code.as_str()), roman(status)]);
        roff.text([roman(code.meaning())]);
    }
    roff.control("SH", ["SIGNALS"]);
    roff.control("TP", []);
    roff.text([bold("SIGHUP")]);
    roff.text([roman("As \"baton reload\"; the log says what it changed, or why it was refused.")]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("baton.toml"), roman("(5), "), bold("ipvsadm"), roman("(8), "), bold("systemctl"), roman("(1)")]);
    roff.to_writer(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// One command with its options and its example; of one that has commands of its own, each of those.
fn describe(command: &Command, out: &mut Vec<u8>) -> std::io::Result<()> {
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|sub| describe(sub, out));
    }
    let mut roff = Roff::new();
    // The usage line begins with a heading of its own.
    let usage = command.clone().render_usage().to_string();
    roff.control("SS", [usage.trim_start_matches("Usage: ")]);
    if let Some(about) = command.get_about() {
        roff.text([roman(format!("{}.", about.to_string().trim_end_matches('.')))]);
    }
    roff.to_writer(out)?;
    // What all commands have stands once, above.
    let own = command.clone().mut_args(|argument| {
        let everywhere = matches!(argument.get_id().as_str(), "api" | "help" | "version");
        argument.hide(everywhere)
    });
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    out.extend_from_slice(String::from_utf8_lossy(&options).replacen(".SH OPTIONS\n", "", 1).as_bytes());
    let mut roff = Roff::new();
    if let Some(example) = command.get_after_help() {
        roff.control("PP", []);
        roff.control("EX", []);
        for line in example.to_string().lines() {
            roff.text([roman(line)]);
        }
        roff.control("EE", []);
    }
    roff.to_writer(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_every_command_with_its_options_and_example() {
        let page = page().unwrap();
        assert!(page.contains(".TH baton 8"), "{page}");
        for text in ["baton run", "baton realserver undo", "\\-\\-config", "baton get services \\-o json", "BATON_LOG"] {
            assert!(page.contains(text), "{text} is missing:\n{page}");
        }
        assert_eq!(page.matches("\n\\fB\\-\\-api").count(), 1, "options of all commands stand once:\n{page}");
    }

    #[test]
    fn page_has_every_error() {
        let page = page().unwrap().replace("\\-", "-");
        for code in Code::ALL {
            assert!(page.contains(code.as_str()), "{code} is missing:\n{page}");
        }
    }

    #[test]
    fn page_of_the_file_has_every_key_of_the_example() {
        let page = include_str!("../../../configs/baton.toml.5").replace("\\-", "-");
        for line in include_str!("../../../configs/baton.toml").lines() {
            let line = line.trim_start_matches("# ").trim_start();
            let Some((key, _)) = line.split_once(" = ") else { continue };
            if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                assert!(page.contains(&format!("\\fB{key}")) || page.contains(&format!(", {key}")), "baton.toml(5) says nothing of {key}");
            }
        }
    }
}
