//! `baton connections` and the paging through connection entries that listings share.

use hyper::Method;

use super::client::{Client, ClientError, encode};
use super::console::Console;
use crate::codes::Code;
use crate::model::{Connections, Flushed};

/// Which connection entries are meant; nothing given means all.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Filter {
    /// Only those of this virtual service, such as tcp:10.10.24.88:80 or mark:7
    #[arg(long, value_name = "ID")]
    pub service: Option<String>,
    /// Only those from this client
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<String>,
    /// Only those at this real server, by its RIP
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<String>,
}

impl Filter {
    /// `service=...&client=...`, empty for all.
    pub fn query(&self) -> String {
        let given = [("service", &self.service), ("client", &self.client), ("server", &self.server)];
        let pairs: Vec<String> =
            given.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encode(value)))).collect();
        pairs.join("&")
    }
}

/// Asks for page after page until there is none left or `take` says that it has enough.
pub fn each_page(client: &Client, query: &str, limit: u32, mut take: impl FnMut(&Connections) -> bool) -> Result<(), ClientError> {
    let mut cursor = String::new();
    loop {
        let page: Connections =
            client.get(&format!("connections?limit={limit}{}{query}{cursor}", if query.is_empty() { "" } else { "&" }))?;
        let more = take(&page);
        match page.next {
            Some(next) if more => cursor = format!("&cursor={}", encode(&next)),
            _ => return Ok(()),
        }
    }
}

/// Ends connection entries. All of them only when that was confirmed; the exit code.
pub fn flush(client: &Client, filter: &Filter, yes: bool, console: &mut Console<'_>) -> Result<u8, ClientError> {
    let query = filter.query();
    if query.is_empty() && !yes {
        match console.confirm("End every connection entry of the director?") {
            Some(true) => {}
            Some(false) => return Ok(1),
            None => {
                console.complain(format_args!(
                    "every connection entry would end: say --yes, or which ones with --service, --client or --server [{}]",
                    Code::Usage
                ));
                return Ok(2);
            }
        }
    }
    let path = if query.is_empty() { "connections".to_owned() } else { format!("connections?{query}") };
    let flushed: Flushed = client.ask(Method::DELETE, &path)?;
    console.line(format_args!("{} connection entries ended", flushed.removed));
    Ok(0)
}
