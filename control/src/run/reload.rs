//! baton.toml read again: over the API, and when a SIGHUP comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::time::{ClockId, clock_gettime};
use tokio::signal::unix::Signal;

use super::signals::tell_systemd;
use crate::api::{Reread, RereadError};
use crate::config::{self, Config};
use crate::director::{Actor, Director, Terms};
use crate::model::{Difference, Document};

/// How many differences a reload names in the log.
const NAMED: usize = 20;

/// How `file`, which the director was started with as `config`, is read again; `renew` does what else a reload is for.
pub(super) fn reread(file: &Path, config: &Config, cpus: &[u32], renew: Arc<dyn Fn() + Send + Sync>) -> Reread {
    let (file, config, cpus): (PathBuf, Config, Vec<u32>) = (file.to_owned(), config.clone(), cpus.to_vec());
    // As far as it can still be read, it says by which keys a later one differs.
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    Reread { file: Arc::new(move || again(&file, &config, &text, &cpus)), renew }
}

fn again(file: &Path, running: &Config, running_text: &str, cpus: &[u32]) -> Result<Document, RereadError> {
    let text = std::fs::read_to_string(file).map_err(|why| RereadError::Faulty(format!("{}: cannot read it: {why}", file.display())))?;
    let new = config::parse(&text, file, cpus).map_err(|faults| RereadError::Faulty(faults.to_string()))?;
    let fixed = config::needs_restart((running, running_text), (&new, &text));
    if fixed.is_empty() { Ok(new.document()) } else { Err(RereadError::NeedsRestart(fixed)) }
}

/// Reads the file again at every SIGHUP, and says in the log what that changed.
pub(super) async fn upon(mut hang_up: Signal, director: Director, reread: Reread) {
    let director = director.under(Terms { actor: Actor::named("SIGHUP"), ..Terms::default() });
    while hang_up.recv().await.is_some() {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000);
        tell_systemd(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
        match once(&director, &reread).await {
            Ok(difference) => log(&difference),
            Err(why) => tracing::error!("SIGHUP: {why}"),
        }
        tell_systemd("READY=1");
    }
}

async fn once(director: &Director, reread: &Reread) -> Result<Difference, String> {
    let Reread { file, renew } = reread.clone();
    // Whoever rotates logs and renews certificates sends the signal, whatever stands in the file.
    let read = move || {
        renew();
        file()
    };
    let file = tokio::task::spawn_blocking(read).await.map_err(|why| why.to_string())?;
    director.reload(&file.map_err(|why| why.to_string())?).await.map_err(|why| why.to_string())
}

fn log(difference: &Difference) {
    let Difference { revision, added, removed, changed } = difference;
    let all: Vec<String> = added
        .iter()
        .map(|piece| format!("{} added", piece.pointer))
        .chain(removed.iter().map(|piece| format!("{} removed", piece.pointer)))
        .chain(changed.iter().map(|edit| format!("{} changed", edit.pointer)))
        .collect();
    tracing::info!(revision, "SIGHUP: the configuration was read again: {} differences", all.len());
    for one in all.iter().take(NAMED) {
        tracing::info!("{one}");
    }
    if all.len() > NAMED {
        tracing::info!("and {} more", all.len() - NAMED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"10.10.24.10/24\"]\n[limits]\nconnections = 4096\n";

    fn read_again(text: &str) -> Result<Document, RereadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baton.toml");
        std::fs::write(&path, FILE).unwrap();
        let running = config::parse(FILE, &path, &[0, 1]).unwrap();
        let reread = reread(&path, &running, &[0, 1], Arc::new(|| {}));
        std::fs::write(&path, text).unwrap();
        (reread.file)()
    }

    #[test]
    fn services_and_settings_are_taken_from_the_file_as_it_is_now() {
        let more = format!("{FILE}[settings]\nsloppy_tcp = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"10.10.24.88\"\nport = 80\n");
        let document = read_again(&more).unwrap();
        assert_eq!((document.settings.sloppy_tcp, document.services.len()), (1, 1));
        assert_eq!(read_again(FILE).unwrap(), Document::default());
    }

    #[test]
    fn keys_that_need_a_restart_are_all_named() {
        let other = FILE.replace("4096", "8192").replace("10.10.24.10/24", "10.10.24.11/24") + "exception_rate = 5\n";
        let refused = read_again(&other).unwrap_err();
        let names = ["limits.connections", "limits.exception_rate", "port[0].addresses"];
        assert_eq!(refused, RereadError::NeedsRestart(names.map(str::to_owned).to_vec()));
        // A default that is written down is no difference.
        assert!(read_again(&format!("{FILE}icmp_error_rate = 1000\n")).is_ok());
    }

    #[test]
    fn faulty_file_is_refused_with_every_fault() {
        let refused = read_again(&format!("{FILE}colour = 1\n[settings]\nsloppy_tcp = 7\n")).unwrap_err().to_string();
        assert!(refused.contains("limits.colour: unknown key") && refused.contains("settings.sloppy_tcp"), "{refused}");
    }
}
