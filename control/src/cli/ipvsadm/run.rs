//! Carries out what a line asks for, over the REST API, and says what ipvsadm says.

use hyper::Method;
use serde::Serialize;
use serde_json::{Map, Value};

use super::list::{HEADER, Style, connections_title, path_of, timeouts};
use super::names::Names;
use super::request::{Columns, Failure, Listing, Request, Subject};
use super::{help, restore};
use crate::cli::client::{Client, ClientError};
use crate::cli::connections::each_page;
use crate::cli::console::Console;
use crate::model::{Service, ServiceKey, Services, Settings};

/// Entries that are asked for at a time.
const PAGE: u32 = 4096;

/// Carries out a request.
///
/// # Errors
/// What ipvsadm would end with.
pub fn run(client: &Client, request: Request, names: &Names, console: &mut Console<'_>) -> Result<(), Failure> {
    match request {
        Request::Help => {
            console.write(help::text());
            Ok(())
        }
        Request::Version => {
            console.line(help::VERSION);
            Ok(())
        }
        Request::List(listing) => list(client, &listing, names, console),
        Request::Save(numeric) => save(client, numeric, names, console),
        Request::Restore => restore::run(client, restore::Start::AsItIs, names, console),
        other => change(client, other),
    }
}

fn change(client: &Client, request: Request) -> Result<(), Failure> {
    let (service, done) = match request {
        Request::AddService(spec) => (None, client.submit(Method::POST, "services", &spec)),
        Request::EditService(key, patch) => (Some(key), client.submit(Method::PATCH, &path_of(key), &whole(&patch))),
        Request::DeleteService(key) => (Some(key), client.order(Method::DELETE, &path_of(key))),
        Request::Clear => (None, client.order(Method::DELETE, "services")),
        Request::Zero(None) => (None, client.order(Method::POST, "services/zero")),
        Request::Zero(Some(key)) => (Some(key), client.order(Method::POST, &format!("{}/zero", path_of(key)))),
        Request::Set(seconds) => (None, set(client, seconds)),
        Request::AddServer(key, spec) => {
            return client.submit(Method::POST, &format!("{}/real-servers", path_of(key)), &spec).map_err(|error| of_server(&error));
        }
        Request::EditServer(key, server, patch) => {
            return client.submit(Method::PATCH, &server_path(key, server), &whole(&patch)).map_err(|error| of_server(&error));
        }
        Request::DeleteServer(key, server) => {
            return client.order(Method::DELETE, &server_path(key, server)).map_err(|error| of_server(&error));
        }
        Request::Help | Request::Version | Request::List(_) | Request::Save(_) | Request::Restore => return Ok(()),
    };
    done.map_err(|error| match (error.code(), service) {
        (Some("service-exists"), _) => Failure::refused("Service already exists"),
        (Some("no-such-service"), _) => Failure::refused("No such service"),
        _ => Failure::refused(error),
    })
}

/// An edit of ipvsadm's as a merge patch. It names all of persistence and of a tunnel: what it leaves out is not to stay.
pub(super) fn whole(patch: &impl Serialize) -> Value {
    let mut patch = serde_json::to_value(patch).unwrap_or_default();
    for (object, fields) in [("persistence", ["prefix", "netmask"].as_slice()), ("tunnel", &["port"])] {
        if let Some(Value::Object(object)) = patch.get_mut(object) {
            for field in fields {
                object.entry(*field).or_insert(Value::Null);
            }
        }
    }
    if let Value::Object(fields) = &mut patch
        && fields.contains_key("method")
    {
        fields.entry("tunnel").or_insert(Value::Null);
    }
    patch
}

fn of_server(error: &ClientError) -> Failure {
    Failure::refused(match error.code() {
        Some("no-such-service") => "Service not defined".to_owned(),
        Some("real-server-exists") => "Destination already exists".to_owned(),
        Some("no-such-real-server") => "No such destination".to_owned(),
        _ => error.to_string(),
    })
}

fn server_path(key: ServiceKey, (address, port): (std::net::IpAddr, u16)) -> String {
    let server = std::net::SocketAddr::new(address, port).to_string();
    format!("{}/real-servers/{}", path_of(key), crate::cli::client::encode(&server))
}

fn set(client: &Client, seconds: [u32; 3]) -> Result<(), ClientError> {
    let named = ["timeout_tcp", "timeout_tcpfin", "timeout_udp"].into_iter().zip(seconds);
    let change: Map<String, Value> =
        named.filter(|&(_, seconds)| seconds > 0).map(|(name, seconds)| (name.to_owned(), seconds.into())).collect();
    client.submit(Method::PATCH, "settings", &change)
}

fn list(client: &Client, listing: &Listing, names: &Names, console: &mut Console<'_>) -> Result<(), Failure> {
    let style = Style::of(listing, names);
    match listing.subject {
        Subject::Services => {
            let found: Services = client.get("services").map_err(Failure::refused)?;
            console.write(HEADER);
            console.write(style.title());
            for service in style.order(&found.services) {
                console.write(style.service(service));
            }
        }
        Subject::Service(key) => {
            let service: Service = client.get(&path_of(key)).map_err(|error| match error.code() {
                Some("no-such-service") => Failure { code: 1, text: "No such service".to_owned() },
                _ => Failure::refused(error),
            })?;
            console.write(style.title());
            console.write(style.service(&service));
        }
        Subject::Connections => {
            console.write(connections_title(listing.columns));
            each_page(client, "", PAGE, |page| {
                for entry in &page.connections {
                    console.write(style.connection(entry));
                }
                !console.closed()
            })
            .map_err(Failure::refused)?;
        }
        Subject::Timeouts => {
            let settings: Settings = client.get("settings").map_err(Failure::refused)?;
            console.write(timeouts(&settings));
        }
        // No synchronization daemon runs, which is what an empty answer says; a director that does not answer says nothing.
        Subject::Daemon => drop(client.get::<Settings>("settings").map_err(Failure::refused)?),
    }
    Ok(())
}

fn save(client: &Client, numeric: bool, names: &Names, console: &mut Console<'_>) -> Result<(), Failure> {
    let found: Services = client.get("services").map_err(Failure::refused)?;
    let style = Style { names: (!numeric).then_some(names), columns: Columns::Plain, exact: false, sorted: true };
    for service in style.order(&found.services) {
        console.write(style.rules(service));
    }
    Ok(())
}
