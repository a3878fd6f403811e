//! `baton token`: makes a token for the API over TCP.

use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

use super::console::Console;
use crate::api::access::TokenHash;
use crate::codes::Code;

/// `baton token`.
#[derive(Args, Debug)]
pub struct NewToken {
    /// The name that logs will show
    #[arg(long, value_name = "NAME", default_value = "somebody")]
    pub name: String,
    /// What its holder may do
    #[arg(long, value_name = "ROLE", default_value = "read", value_parser = ["read", "operate", "admin"])]
    pub role: String,
}

/// Prints a new token on standard output, and on standard error what goes into baton.toml.
pub fn run(line: &NewToken, console: &mut Console<'_>) -> u8 {
    let mut random = [0; 32];
    if SystemRandom::new().fill(&mut random).is_err() {
        console.complain(format_args!("the system gives no random numbers [{}]", Code::CannotStart));
        return 1;
    }
    let token = format!("baton_{}", TokenHash(random));
    console.line(&token);
    let mut section = toml::Table::new();
    section.insert("name".to_owned(), line.name.clone().into());
    section.insert("role".to_owned(), line.role.clone().into());
    section.insert("sha256".to_owned(), TokenHash::of(&token).to_string().into());
    console.complain(format_args!("\n[[control.token]]\n{section}"));
    0
}
