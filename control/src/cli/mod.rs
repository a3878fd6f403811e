//! The command line.

pub mod client;
pub mod console;
pub mod ipvsadm;

pub mod args;
pub mod changes;
pub mod connections;
pub mod doctor;
pub mod drain;
pub mod events;
pub mod get;
mod import;
mod man;
pub mod marks;
mod plan;
pub mod realserver;
pub mod settings;
mod token;
pub mod vips;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, ConnectionsAction, MarksAction, SettingsAction, VipsAction, What};
use client::reach::Reach;
use client::{Client, ClientError};
use console::Console;
use ipvsadm::Program;

use crate::codes::Code;

/// Runs the program with the process's own arguments: `baton`, or one of ipvsadm's programs when called by that name.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut console = Console::standard();
    let code = dispatch(&arguments, &mut console);
    match console.finish() {
        None => code,
        Some(error) => {
            console.complain(format_args!("cannot write: {error} [{}]", Code::CannotWrite));
            if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
        }
    }
}

/// Runs the program with `arguments`, the first of which is its name; the exit code.
pub fn dispatch(arguments: &[OsString], console: &mut Console<'_>) -> ExitCode {
    let name = arguments.first().map(Path::new).and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    if let Some(program) = name.as_deref().and_then(Program::named) {
        let rest: Vec<String> = arguments[1..].iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        return match Reach::of_environment() {
            Ok(reach) => foreign(program, &reach, &rest, console).into(),
            Err(error) => {
                console.complain(error);
                255.into()
            }
        };
    }
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Run(file), .. }) => crate::run::run(&file.config),
        Ok(Cli { command: Command::Check(file), .. }) => crate::config::check(&file.config),
        Ok(cli) => carry_out(cli, console).into(),
        Err(error) if error.use_stderr() => {
            console.complain(format_args!("{} [{}]", error.to_string().trim_end(), Code::Usage));
            2.into()
        }
        Err(error) => {
            console.write(error);
            ExitCode::SUCCESS
        }
    }
}

fn carry_out(cli: Cli, console: &mut Console<'_>) -> u8 {
    let api = &cli.reach;
    match cli.command {
        Command::Run(_) | Command::Check(_) => 0,
        Command::Import(line) => import::run(&line, console),
        Command::Ipvsadm(line) => foreign(Program::Ipvsadm, api, &line.arguments, console),
        Command::IpvsadmSave(line) => foreign(Program::Save, api, &line.arguments, console),
        Command::IpvsadmRestore(line) => foreign(Program::Restore, api, &line.arguments, console),
        Command::Get(get) => with(api, console, |client, console| {
            let output = get.output;
            match &get.what {
                What::Services => get::services(client, output, console),
                What::Connections { filter, limit } => get::connections(client, filter, *limit, output, console),
                What::Marks => marks::get(client, output, console),
                What::Workers => get::workers(client, output, console),
                What::Ports => get::ports(client, output, console),
                What::Neighbours => get::neighbours(client, output, console),
                What::Vips => vips::get(client, output, console),
            }
            .map(|()| 0)
        }),
        Command::Events(line) => with(api, console, |client, console| {
            let show = if line.watch { events::watch } else { events::list };
            show(client, &line.chosen, line.output, console)
        }),
        Command::Connections(line) => with(api, console, |client, console| match &line.action {
            ConnectionsAction::Flush { filter, yes } => connections::flush(client, filter, *yes, console),
        }),
        Command::Marks(line) => with(api, console, |client, _| match &line.action {
            MarksAction::Add(rule) => marks::add(client, rule),
            MarksAction::Clear => marks::clear(client),
        }),
        Command::Settings(line) => with(api, console, |client, console| match &line.action {
            SettingsAction::Get { names, output } => settings::get(client, names, *output, console),
            SettingsAction::Set { changes } => settings::set(client, changes, console),
            SettingsAction::Reset => settings::reset(client, console),
        }),
        Command::Doctor(line) => with(api, console, |client, console| Ok(doctor::run(client, &line, console))),
        Command::Plan(line) => plan::run(&line, console),
        Command::Drain(line) => with(api, console, |client, console| drain::run(client, &line, console)),
        Command::Apply { source, dry_run } => with(api, console, |client, console| Ok(changes::apply(client, &source, dry_run, console))),
        Command::Diff(source) => with(api, console, |client, console| Ok(changes::diff(client, &source, console))),
        Command::Rollback { revision, manner } => {
            with(api, console, |client, console| changes::rollback(client, revision, &manner, console))
        }
        Command::Reload(manner) => with(api, console, |client, console| changes::reload(client, &manner, console)),
        Command::History { revision, output } => with(api, console, |client, console| changes::history(client, revision, output, console)),
        Command::Errors { output } => {
            changes::errors(output, console);
            0
        }
        Command::Vips(line) => with(api, console, |client, _| match &line.action {
            VipsAction::Take { vip } => vips::take(client, *vip),
        }),
        Command::Release { service, server } => with(api, console, |client, _| vips::release(client, &service, &server)),
        Command::RealServer(line) => realserver::run(&line.action, console),
        Command::Token(line) => token::run(&line, console),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "baton", &mut text);
            console.write(String::from_utf8_lossy(&text));
            0
        }
        Command::Man => match man::page() {
            Ok(text) => {
                console.write(text);
                0
            }
            Err(why) => {
                console.complain(format_args!("cannot write the manual page: {why} [{}]", Code::CannotWrite));
                1
            }
        },
    }
}

fn foreign(program: Program, reach: &Reach, arguments: &[String], console: &mut Console<'_>) -> u8 {
    match Client::new(reach) {
        Ok(client) => program.run(&client, arguments, console),
        Err(error) => {
            console.complain(format_args!("cannot start: {error}"));
            255
        }
    }
}

fn with(reach: &Reach, console: &mut Console<'_>, run: impl FnOnce(&Client, &mut Console<'_>) -> Result<u8, ClientError>) -> u8 {
    let client = match Client::new(reach) {
        Ok(client) => client,
        Err(error) => {
            console.complain(format_args!("cannot start: {error} [{}]", Code::CannotStart));
            return 1;
        }
    };
    run(&client, console).unwrap_or_else(|error| {
        console.complain(error.with_code());
        1
    })
}
