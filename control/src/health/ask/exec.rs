//! Programs as checks: no shell, another user, no privileges, nearly no environment, and an end.
//!
//! `setpriv` of util-linux, which every Debian has, changes the user and gives up capabilities between the director and the program:
//! without unsafe code a process cannot do that to itself after a fork.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User};
use regex::bytes::Regex;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::MOST;
use crate::health::check;
use crate::health::connect::Failure;

const SETPRIV: &str = "/usr/bin/setpriv";

/// How many programs run at once.
const AT_ONCE: usize = 16;

/// How long the rest of the output may take once the program has ended.
const REST: Duration = Duration::from_millis(50);

/// The most of a program's output that a reason shows, in characters.
const SHOWN: usize = 200;

/// Capabilities by their numbers (capabilities(7)): what changing the user and ending its processes needs.
const NEEDED: &[(u32, &str)] = &[(5, "CAP_KILL"), (6, "CAP_SETGID"), (7, "CAP_SETUID")];

/// Who programs run as, and how many at once; clones are handles of the same.
#[derive(Clone, Debug)]
pub(in crate::health) struct Programs {
    /// User and group; or why there is none.
    user: Result<(u32, u32), Arc<str>>,
    turns: Arc<Semaphore>,
}

impl Programs {
    pub(super) fn new(user: &str) -> Self {
        // Looked up once: where users come from may be slow.
        let found = self::user(user).map_err(|why| format!("the user {user} {why}").into());
        Self { user: found, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// User and group of this name; why programs cannot run as that user.
pub(crate) fn user(name: &str) -> Result<(u32, u32), String> {
    match User::from_name(name) {
        Ok(Some(user)) if user.uid.is_root() => Err("is root: checks run as a user without privileges".to_owned()),
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        Ok(None) => Err("is no user of this machine".to_owned()),
        Err(why) => Err(format!("cannot be looked up: {why}")),
    }
}

/// Why a command cannot be a check, if it cannot.
pub(crate) fn refusal(command: &[String]) -> Option<String> {
    let Some(program) = command.first() else { return Some("is empty: expected the full path of a program, and its arguments".to_owned()) };
    if !program.starts_with('/') {
        return Some(format!("begins with '{program}': expected the full path of a program"));
    }
    if command.len() > 64 || command.iter().any(|word| word.len() > 2_048 || word.contains('\0')) {
        return Some("is longer than 64 words of 2048 bytes, or has a zero byte".to_owned());
    }
    let found = match fs::metadata(program) {
        Ok(found) => found,
        Err(why) => return Some(format!("begins with {program}, which cannot be looked at: {why}")),
    };
    let mode = found.permissions().mode();
    if !found.is_file() || mode & 0o111 == 0 {
        return Some(format!("begins with {program}, which is no program"));
    }
    if found.uid() != 0 || mode & 0o022 != 0 {
        return Some(format!("begins with {program}, which others than root may write: chown root {program} && chmod go-w {program}"));
    }
    let missing = missing();
    (!missing.is_empty()).then(|| {
        format!(
            "cannot run as another user: the director lacks {}, which the drop-in exec-checks.conf gives to baton.service",
            missing.join(", ")
        )
    })
}

/// The capabilities that the director would need and does not have.
fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default();
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

/// Ends every process of a group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nothing is left of it when all went well.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// A program with what its output must be.
pub(in crate::health) struct Program {
    wanted: check::Program,
    body: Option<Regex>,
    programs: Programs,
}

impl Program {
    pub(super) fn new(wanted: check::Program, body: Option<Regex>, programs: Programs) -> Self {
        Self { wanted, body, programs }
    }

    /// Runs it for the real server at `to`.
    pub(super) async fn run(&self, to: SocketAddr, until: Instant) -> Result<(), Failure> {
        let unable = |why: String| Failure::Unable(why);
        let (uid, gid) = self.programs.user.clone().map_err(|why| unable(why.to_string()))?;
        let turn = timeout_at(until, self.programs.turns.acquire()).await;
        let _turn = turn.map_err(|_| unable(format!("{AT_ONCE} other checks' programs were running all the time")))?;
        let mut child = self.command(uid, gid, to).spawn().map_err(|why| unable(format!("{SETPRIV}: {why}")))?;
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let Some(mut out) = child.stdout.take() else { return Err(unable("no pipe".to_owned())) };
        let mut said = Vec::new();
        let ended = async {
            loop {
                tokio::select! {
                    biased;
                    more = read(&mut out, &mut said) => match more {
                        Ok(true) => {}
                        // It may go on without output.
                        Ok(false) => return child.wait().await.map_err(|why| unable(why.to_string())),
                        Err(why) => return Err(why),
                    },
                    status = child.wait() => return status.map_err(|why| unable(why.to_string())),
                }
            }
        };
        let status = match timeout_at(until, ended).await {
            Ok(status) => status?,
            Err(_) => return Err(Failure::Program(format!("{} did not end in time", self.name()))),
        };
        // What it has started ends with it, and with that the pipe.
        drop(group);
        let rest = async { while matches!(read(&mut out, &mut said).await, Ok(true)) {} };
        let _ = timeout_at(Instant::now() + REST, rest).await;
        self.judge(status, &said)
    }

    fn command(&self, uid: u32, gid: u32, to: SocketAddr) -> Command {
        let mut command = Command::new(SETPRIV);
        command
            .args([format!("--reuid={uid}"), format!("--regid={gid}")])
            .args(["--clear-groups", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--pdeathsig=KILL", "--"])
            .args(&self.wanted.command)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("BATON_SERVICE", self.wanted.service.to_string())
            .env("BATON_RIP", to.ip().to_string())
            .env("BATON_RPORT", to.port().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn judge(&self, status: ExitStatus, said: &[u8]) -> Result<(), Failure> {
        let line = said.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
        let shown: String = String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        let shown = if shown.is_empty() { shown } else { format!(": {shown}") };
        match (status.success(), &self.body) {
            (true, Some(pattern)) if !pattern.is_match(said) => {
                Err(Failure::Program(format!("{} says something that does not match{shown}", self.name())))
            }
            (true, _) => Ok(()),
            (false, _) => Err(Failure::Program(format!("{} ended with {status}{shown}", self.name()))),
        }
    }

    fn name(&self) -> &str {
        self.wanted.command.first().map_or("", String::as_str)
    }
}

/// Reads some output; whether there may be more.
async fn read(out: &mut ChildStdout, said: &mut Vec<u8>) -> Result<bool, Failure> {
    let mut piece = [0; 4_096];
    match out.read(&mut piece).await {
        Ok(0) | Err(_) => Ok(false),
        Ok(length) if said.len() + length > MOST => Err(Failure::Program("its output is longer than 64 KiB".to_owned())),
        Ok(length) => {
            said.extend_from_slice(piece.get(..length).unwrap_or_default());
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &[&str]) -> String {
        refusal(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).expect("it is refused")
    }

    #[test]
    fn command_is_a_program_of_roots_by_its_full_path() {
        assert!(refused(&[]).contains("is empty"));
        assert!(refused(&["true"]).contains("expected the full path"));
        assert!(refused(&["/nonexistent"]).contains("cannot be looked at"));
        assert!(refused(&["/etc"]).contains("is no program"));
        assert!(refused(&["/etc/passwd"]).contains("is no program"));
        assert!(refused(&["/bin/true", "a\0b"]).contains("zero byte"));
        let own = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&[own.path().to_str().unwrap()]).contains("others than root may write"));
    }

    #[test]
    fn programs_never_run_as_root() {
        assert!(user("root").unwrap_err().contains("is root"));
        assert!(user("no such user").unwrap_err().contains("no user of this machine"));
        assert!(user("nobody").is_ok_and(|(user, _)| user != 0));
    }
}
