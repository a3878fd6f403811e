//! ipvsadm, ipvsadm-save and ipvsadm-restore: the commands of ipvsadm 1.31 over the REST API.

pub mod address;
pub mod help;
pub mod list;
pub mod names;
pub mod options;
mod order;
pub mod parse;
pub mod request;
pub mod restore;
pub mod run;
pub mod scan;
pub mod unbuilt;

use super::client::Client;
use super::console::Console;
pub use list::scheduling;
use names::Names;
use request::{Failure, Request};

/// The three programs that this one can be called as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `ipvsadm`
    Ipvsadm,
    /// `ipvsadm-save`
    Save,
    /// `ipvsadm-restore`
    Restore,
}

impl Program {
    /// The program of that file name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ipvsadm" => Some(Self::Ipvsadm),
            "ipvsadm-save" => Some(Self::Save),
            "ipvsadm-restore" => Some(Self::Restore),
            _ => None,
        }
    }

    /// Runs it with `arguments` (without its name); the exit code.
    pub fn run(self, client: &Client, arguments: &[String], console: &mut Console<'_>) -> u8 {
        let names = Names::system();
        let done = match self {
            Self::Ipvsadm if arguments.is_empty() => parse::parse(&["-L".to_owned()], &names),
            Self::Ipvsadm => parse::parse(arguments, &names),
            Self::Save => save_arguments(arguments),
            Self::Restore => {
                return end(
                    restore_arguments(arguments).and_then(|()| restore::run(client, restore::Start::Empty, &names, console)),
                    console,
                );
            }
        };
        end(done.and_then(|request| run::run(client, request, &names, console)), console)
    }
}

fn end(done: Result<(), Failure>, console: &mut Console<'_>) -> u8 {
    match done {
        Ok(()) => 0,
        Err(failure) => {
            console.complain(failure.text);
            failure.code
        }
    }
}

fn save_arguments(arguments: &[String]) -> Result<Request, Failure> {
    let usage = "ipvsadm-save: prints the rules to standard output; with -n, addresses and ports as numbers.\nExample: ipvsadm-save -n > /etc/ipvsadm.rules";
    if arguments.iter().any(|argument| argument.starts_with('-') && argument != "-n") {
        return Err(Failure { code: 1, text: usage.to_owned() });
    }
    Ok(Request::Save(arguments.iter().any(|argument| argument == "-n")))
}

fn restore_arguments(arguments: &[String]) -> Result<(), Failure> {
    let usage =
        "ipvsadm-restore: replaces all rules by those on standard input, all or none.\nExample: ipvsadm-restore < /etc/ipvsadm.rules";
    if arguments.iter().any(|argument| argument == "-h" || argument == "--help") {
        return Err(Failure { code: 1, text: usage.to_owned() });
    }
    Ok(())
}
