//! What the director begins with: the state file, or the configuration.

use std::path::Path;

use super::error::StartError;
use crate::codes::Code;
use crate::config::Config;
use crate::director::{self, Store, Version};

/// The state file's version if there is one, otherwise the configuration's, with the store for later changes.
///
/// # Errors
/// The state file cannot be read, is not whole, or holds services that do not fit the configured ports.
pub(super) fn version(file: &Path, config: &Config) -> Result<(Store, Version), StartError> {
    let path = config.control.state.display();
    let mend = "make its folder writable, or give another control.state";
    let store = Store::open(&config.control.state).map_err(|why| unusable(format!("state file {path}: {why}"), mend))?;
    let stored = store.load().map_err(|why| {
        unusable(
            format!("state file: {why}"),
            format!("put an earlier version back (the last one of {}), or move it away to begin anew", store.history().display()),
        )
    })?;
    let Some(mut version) = stored else {
        let services = counted(config.services.len());
        tracing::info!("{services} from {}; {path} will keep changes", file.display());
        let mut version = Version::beginning(config.document(), &format!("{services} to begin with"));
        begin(&store, &mut version)?;
        return Ok((store, version));
    };
    // The devices' MACs and MTUs are not known yet, and no rule about services needs them.
    let faults = director::validate(&version.document, &config.links(|_| [0; 6], |_| u16::MAX));
    if !faults.is_empty() {
        let list: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect();
        return Err(unusable(
            format!("state file {path} does not fit the ports of {}: {}", file.display(), list.join("; ")),
            "change the ports' addresses back, correct the state file, or move it away to begin with the configuration's services",
        ));
    }
    let file_now = config.document();
    if *version.file.get_or_insert_with(|| file_now.clone()) != file_now {
        tracing::warn!(
            "{} has other services, marks or settings than when it was last applied: `baton reload` applies them",
            file.display()
        );
    }
    begin(&store, &mut version)?;
    let unused = if config.services.is_empty() { "" } else { "; it wins over the [[service]] of the configuration" };
    tracing::info!("{} from {path}{unused}", counted(version.document.services.len()));
    Ok((store, version))
}

fn begin(store: &Store, version: &mut Version) -> Result<(), StartError> {
    store
        .begin_with(version)
        .map_err(|why| unusable(format!("history of the state file: {why}"), format!("make {} writable", store.history().display())))
}

fn unusable(what: String, mend: impl Into<String>) -> StartError {
    StartError::new(what, mend).coded(Code::StateUnusable)
}

fn counted(services: usize) -> String {
    if services == 1 { "1 service".to_owned() } else { format!("{services} services") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Document;

    /// A configuration with one service, 10.10.24.88:80, and its state file in `folder`.
    fn config(folder: &Path) -> Config {
        let text = format!(
            "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\"]\n[control]\nstate = \"{}/state.json\"\n\
             [[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 80\n",
            folder.display()
        );
        crate::config::parse(&text, Path::new("baton.toml"), &[0, 1]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn begin(folder: &Path) -> Result<Document, StartError> {
        version(Path::new("baton.toml"), &config(folder)).map(|(_, version)| version.document)
    }

    fn state(real_server: &str) -> String {
        format!(
            r#"{{"revision": 7, "services": [{{"protocol": "udp", "address": "10.10.24.89", "port": 53,
               "real_servers": [{{"address": "{real_server}"}}]}}]}}"#
        )
    }

    #[test]
    fn configuration_counts_as_long_as_there_is_no_state_file() {
        let folder = tempfile::tempdir().unwrap();
        let document = begin(folder.path()).unwrap();
        assert_eq!((document.revision, document.services[0].key().to_string().as_str()), (0, "tcp:10.10.24.88:80"));
    }

    #[test]
    fn state_file_wins_over_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.json"), state("10.10.24.21")).unwrap();
        let document = begin(folder.path()).unwrap();
        assert_eq!((document.revision, document.services.len()), (7, 1));
        assert_eq!(document.services[0].key().to_string(), "udp:10.10.24.89:53");
    }

    #[test]
    fn state_file_that_does_not_fit_the_ports_is_refused_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.json"), state("10.99.0.1")).unwrap();
        let refused = begin(folder.path()).unwrap_err();
        assert!(refused.what.contains("does not fit the ports of baton.toml: /services/0/real_servers/0/address: 10.99.0.1"), "{refused}");
    }

    #[test]
    fn torn_state_file_is_refused_with_where_earlier_versions_are() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("state.json"), &state("10.10.24.21")[..40]).unwrap();
        let refused = begin(folder.path()).unwrap_err();
        assert!(refused.mend.contains("the last one of") && refused.mend.contains("state.json.history"), "{refused}");
    }
}
