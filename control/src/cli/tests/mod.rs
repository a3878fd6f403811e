//! Whole commands against a director in the test's own process.

mod director;

use std::io::Write;

use clap::CommandFactory;

use super::*;
use director::Stand;

const HELP_LINE: &str = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n";

/// What a command printed, standard output first, with its exit code.
fn run_with(stand: &Stand, line: &str, input: &str) -> (String, ExitCode) {
    let endpoint = stand.endpoint.to_string();
    let mut arguments: Vec<OsString> = ["baton", "--api", &endpoint].map(OsString::from).into();
    arguments.extend(line.split(' ').map(OsString::from));
    run_as(&arguments, input)
}

fn run(stand: &Stand, line: &str) -> (String, ExitCode) {
    run_with(stand, line, "")
}

fn run_as(arguments: &[OsString], input: &str) -> (String, ExitCode) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console::new(input.as_bytes(), &mut out, &mut err);
    let code = dispatch(arguments, &mut console);
    assert!(console.finish().is_none());
    drop(console);
    out.extend(err);
    (String::from_utf8(out).unwrap(), code)
}

fn table(services: &str) -> String {
    format!(
        "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n{services}"
    )
}

/// A run of lines that was recorded with ipvsadm 1.31 on Linux 6.1: each line, its exit code, what it printed.
#[test]
fn a_run_of_errors_goes_as_with_ipvsadm() {
    let stand = Stand::start();
    let numeric =
        "TCP  10.10.24.88:80 rr\n  -> 10.10.24.21:80               Route   1      0          0         \nUDP  10.10.24.88:53 rr ops\n";
    let named = "TCP  10.10.24.88:http rr\n  -> 10.10.24.21:http             Route   1      0          0         \nUDP  10.10.24.88:domain rr ops\n";
    let one = "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  10.10.24.88:80 rr\n  -> 10.10.24.21:80               Route   1      0          0         \n";
    let saved = "-A -t 10.10.24.88:80 -s rr\n-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 1\n-a -t 10.10.24.88:80 -r 10.10.24.23:80 -g -w 1\n-A -u 10.10.24.88:53 -s rr -o\n";
    for (line, code, text) in [
        ("ipvsadm -A -t 10.10.24.88:80 -s rr", 0, String::new()),
        ("ipvsadm -A -t 10.10.24.88:80 -s rr", 255, "Service already exists\n".into()),
        ("ipvsadm -a -t 10.10.24.88:81 -r 10.10.24.21:81 -g", 255, "Service not defined\n".into()),
        ("ipvsadm -d -t 10.10.24.88:80 -r 10.10.24.21:80", 255, "No such destination\n".into()),
        ("ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21:80 -g", 0, String::new()),
        ("ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21:80 -g", 255, "Destination already exists\n".into()),
        ("ipvsadm -e -t 10.10.24.88:80 -r 10.10.24.23:80 -g", 255, "No such destination\n".into()),
        ("ipvsadm -A -t 10.10.24.88:82 -s nosuch", 255, "Scheduler or persistence engine not found\n".into()),
        ("ipvsadm -A -t 10.10.24.88 -s rr", 2, "Zero port specified for non-persistent service\n".into()),
        ("ipvsadm -A -t 300.1.1.1:80 -s rr", 2, "illegal virtual server address[:port] specified\n".into()),
        ("ipvsadm -A -t 10.10.24.88:99999 -s rr", 2, "illegal virtual server address[:port] specified\n".into()),
        ("ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -w -1", 2, "illegal weight specified\n".into()),
        ("ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -x 2 -y 5", 255, "Numerical result out of range\n".into()),
        ("ipvsadm -A -u 10.10.24.88:53 -s rr -o", 0, String::new()),
        ("ipvsadm -A -t 10.10.24.88:83 -s rr -o", 2, "One-Packet Scheduling is only for UDP virtual services\n".into()),
        ("ipvsadm -D -t 10.10.24.88:99", 255, "No such service\n".into()),
        ("ipvsadm -Z", 0, String::new()),
        ("ipvsadm -Z -t 10.10.24.88:80", 0, String::new()),
        ("ipvsadm -Z -t 10.10.24.88:81", 255, "No such service\n".into()),
        ("ipvsadm -Ln", 0, table(numeric)),
        ("ipvsadm -ln", 0, table(numeric)),
        ("ipvsadm -l", 0, table(named)),
        ("ipvsadm", 0, table(named)),
        ("ipvsadm -L -t 10.10.24.88:80 -n", 0, one.into()),
        ("ipvsadm -L -t 10.10.24.88:81 -n", 1, "No such service\n".into()),
        ("ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.23:8080 -g", 0, String::new()),
        ("ipvsadm -Sn", 0, saved.into()),
        ("ipvsadm-save -n", 0, saved.into()),
        ("ipvsadm -E -t 10.10.24.88:81 -s wlc", 255, "No such service\n".into()),
        ("ipvsadm -E -t 10.10.24.88:80 -s wlc", 0, String::new()),
        ("ipvsadm --set 100 20 30", 0, String::new()),
        ("ipvsadm -Ln --timeout", 0, "Timeout (tcp tcpfin udp): 100 20 30\n".into()),
        ("ipvsadm --set 0 0 40", 0, String::new()),
        ("ipvsadm -L --timeout", 0, "Timeout (tcp tcpfin udp): 100 20 40\n".into()),
        ("ipvsadm -L --daemon", 0, String::new()),
        ("ipvsadm -C -t 1.1.1.1:1", 2, "Illegal 'service-address' option with the 'flush' command\n".into()),
        ("ipvsadm -x", 255, HELP_LINE.into()),
        ("ipvsadm -v", 0, "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n".into()),
        ("ipvsadm -d -t 10.10.24.88:80 -r 10.10.24.21", 0, String::new()),
        ("ipvsadm -D -t 10.10.24.88:80", 0, String::new()),
        ("ipvsadm -C", 0, String::new()),
        ("ipvsadm -Ln", 0, table("")),
    ] {
        assert_eq!(run(&stand, line), (text, ExitCode::from(code)), "{line}");
    }
}

#[test]
fn lines_from_runbooks_work_pasted() {
    let stand = Stand::start();
    for line in [
        "ipvsadm -A -t 10.10.24.88:80 -s rr",
        "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -g",
        "ipvsadm -A -t 192.168.11.100:80 -s wrr",
        "ipvsadm -a -t 192.168.11.100:80 -r 192.168.11.12 -g -w 2",
        "ipvsadm -A -t [fd00:10::88]:80 -s lc",
        "ipvsadm -a -t [fd00:10::88]:80 -r [fd00:10::21]:80 -g",
        "ipvsadm -e -t [fd00:10::88]:80 -r [fd00:10::21]:80 -w 0",
    ] {
        assert_eq!(run(&stand, line), (String::new(), ExitCode::SUCCESS), "{line}");
    }
    let services = "\
TCP  192.168.11.100:80 wrr
  -> 192.168.11.12:80             Route   2      0          0         
TCP  10.10.24.88:80 rr
  -> 10.10.24.21:80               Route   1      0          0         
TCP  [fd00:10::88]:80 lc
  -> [fd00:10::21]:80             Route   0      0          0         
";
    assert_eq!(run(&stand, "ipvsadm -ln").0, table(services));
}

#[test]
fn the_directors_own_refusal_is_passed_on() {
    let stand = Stand::start();
    run(&stand, "ipvsadm -A -t 10.10.24.88:80");
    let (text, code) = run(&stand, "ipvsadm -a -t 10.10.24.88:80 -r 192.0.2.9 -g");
    assert_eq!((text.as_str(), code), ("192.0.2.9 is on no connected network: a tunnel or masquerading would reach it\n", 255.into()));
}

#[test]
fn what_save_prints_restore_takes_and_a_faulty_line_changes_nothing() {
    let stand = Stand::start();
    run(&stand, "ipvsadm -A -t 10.10.24.88:80 -s wlc");
    run(&stand, "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -w 3");
    let (saved, _) = run(&stand, "ipvsadm -Sn");
    run(&stand, "ipvsadm -C");
    run(&stand, "ipvsadm -A -u 10.10.24.88:53 -o");
    assert_eq!(run_with(&stand, "ipvsadm -R", &saved), (String::new(), ExitCode::SUCCESS));
    assert_eq!(stand.document.lock().services.len(), 2);
    assert_eq!(run_with(&stand, "ipvsadm-restore", &format!("# saved\n{saved}")), (String::new(), ExitCode::SUCCESS));
    assert_eq!(run(&stand, "ipvsadm-save -n").0, saved);

    let before = stand.document.lock().clone();
    let rules = "-A -t 10.10.24.90:80\n-a -t 10.10.24.91:80 -r 10.10.24.21\n";
    let text = "Service not defined\nline 2: -a -t 10.10.24.91:80 -r 10.10.24.21\nnothing was changed\n";
    assert_eq!(run_with(&stand, "ipvsadm-restore", rules), (text.to_owned(), 255.into()));
    let rules = "-A -t 10.10.24.90:80\n-a -t 10.10.24.90:80 -r 192.0.2.9\n";
    let text = "on no connected network\nline 2: -a -t 10.10.24.90:80 -r 192.0.2.9\nnothing was changed\n";
    assert_eq!(run_with(&stand, "ipvsadm-restore", rules), (text.to_owned(), 255.into()));
    assert_eq!(*stand.document.lock(), before);
}

#[test]
fn listing_entries_goes_through_every_page() {
    let stand = Stand::start();
    let text = "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:59  ESTABLISHED 198.51.100.1:10000 10.10.24.88:80     10.10.24.21:80
TCP 14:59  ESTABLISHED 198.51.100.2:10001 10.10.24.88:80     10.10.24.21:80
";
    assert_eq!(run(&stand, "ipvsadm -Lnc"), (text.to_owned(), ExitCode::SUCCESS));
}

#[test]
fn tables_show_services_entries_workers_ports_and_neighbours() {
    let stand = Stand::start();
    run(&stand, "ipvsadm -A -u [fd00:10::88]:53 -s rr -o");
    run(&stand, "ipvsadm -A -t 10.10.24.88:80");
    run(&stand, "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.21 -w 10");
    run(&stand, "ipvsadm -a -t 10.10.24.88:80 -r 10.10.24.29");
    for (line, expected) in [
        ("get services", include_str!("services.txt")),
        ("get connections", include_str!("connections.txt")),
        ("get workers", include_str!("workers.txt")),
        ("get ports", include_str!("ports.txt")),
        ("get neighbours", include_str!("neighbours.txt")),
    ] {
        assert_eq!(run(&stand, line), (expected.to_owned(), ExitCode::SUCCESS), "{line}");
    }
}

#[test]
fn json_is_the_apis_own() {
    let stand = Stand::start();
    run(&stand, "ipvsadm -A -t 10.10.24.88:80");
    for (line, pointer, value) in [
        ("get services -o json", "/services/0/id", serde_json::json!("tcp:10.10.24.88:80")),
        ("get -o json services", "/services/0/scheduler", serde_json::json!("wlc")),
        ("get connections -o json --client 198.51.100.7", "/connections/0/state", serde_json::json!("198.51.100.7")),
        ("get connections -o json --limit 1", "/next", serde_json::json!("0.17")),
        ("get workers -o json", "/0/verdicts/no-service", serde_json::json!(2)),
        ("get ports -o json", "/0/name", serde_json::json!("lan")),
        ("get neighbours -o json", "/0/state", serde_json::json!("probing")),
        ("settings get -o json sloppy_tcp", "", serde_json::json!({"sloppy_tcp": 0})),
    ] {
        let (text, code) = run(&stand, line);
        assert_eq!(code, ExitCode::SUCCESS, "{line}: {text}");
        let (document, _) = text.split_once("shown:").unwrap_or((&text, ""));
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        assert_eq!(document.pointer(pointer), Some(&value), "{line}");
    }
}

#[test]
fn flushing_everything_wants_a_yes() {
    let stand = Stand::start();
    let (text, code) = run(&stand, "connections flush");
    assert_eq!(code, 2.into());
    assert!(text.contains("--yes"), "{text}");
    assert_eq!(run(&stand, "connections flush --yes").0, "7 connection entries ended\n");
    assert_eq!(run(&stand, "connections flush --service tcp:[fd00:10::88]:80").0, "1 connection entries ended\n");
}

#[test]
fn settings_are_set_shown_and_reset() {
    let stand = Stand::start();
    assert_eq!(run(&stand, "settings set sloppy_tcp=1 timeout_udp=30"), (String::new(), ExitCode::SUCCESS));
    assert_eq!(run(&stand, "settings get sloppy_tcp timeout_udp").0, "SETTING      VALUE\nsloppy_tcp       1\ntimeout_udp     30\n");
    assert_eq!(run(&stand, "settings set sloppy_tcp=on").1, 2.into());
    assert_eq!(run(&stand, "settings set sloppy=1").1, 2.into());
    assert_eq!(run(&stand, "settings get sloppy").1, 2.into());
    assert_eq!(run(&stand, "settings set sloppy_tcp=300").1, 1.into());
    assert_eq!(run(&stand, "settings reset").1, ExitCode::SUCCESS);
    assert_eq!(stand.document.lock().settings, crate::model::Settings::default());
}

#[test]
fn a_director_that_is_not_there_is_named() {
    let line = |api: &str, rest: &str| {
        let words = format!("baton --api {api} {rest}");
        run_as(&words.split(' ').map(OsString::from).collect::<Vec<_>>(), "")
    };
    let (text, code) = line("unix:/nonexistent/baton.sock", "get services");
    assert!(text.starts_with("cannot reach the director at unix:/nonexistent/baton.sock: there is no such socket"), "{text}");
    assert_eq!(code, 1.into());
    assert_eq!(line("unix:/nonexistent/baton.sock", "ipvsadm -Ln").1, 255.into());
    let (text, code) = line("ftp://x", "get services");
    assert!(text.contains("'ftp://x' is no address of an API: expected unix:PATH, https://HOST:PORT or http://HOST:PORT"), "{text}");
    assert_eq!(code, 2.into());
}

#[test]
fn the_programs_name_chooses_the_command() {
    let run = |words: &[&str]| run_as(&words.iter().map(OsString::from).collect::<Vec<_>>(), "");
    assert_eq!(run(&["/usr/sbin/ipvsadm", "-v"]).0, "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n");
    assert_eq!(run(&["ipvsadm", "-A", "-t", "300.1.1.1:80"]).1, 2.into());
    assert_eq!(run(&["/opt/ipvsadm-save", "-x"]).1, 1.into());
    assert!(run(&["ipvsadm-restore", "-h"]).0.contains("Example: ipvsadm-restore <"));
    assert!(run(&["/usr/bin/baton", "ipvsadm", "--help"]).0.contains("ipvsadm -A -t 10.10.24.88:80 -s rr"));
}

#[test]
fn every_commands_help_shows_an_example() {
    fn walk(command: &clap::Command, path: &str) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example:\n  baton "), "{path}");
        for child in command.get_subcommands() {
            walk(child, &format!("{path} {}", child.get_name()));
        }
    }
    walk(&Cli::command(), "baton");
    Cli::command().debug_assert();
}

#[test]
fn completions_know_the_commands() {
    let (text, code) = run_as(&["baton", "completions", "bash"].map(OsString::from), "");
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.contains("realserver") && text.contains("complete -F"), "{text}");
}

#[test]
fn a_reader_who_left_ends_a_listing_quietly() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let stand = Stand::start();
    let words = format!("baton --api {} ipvsadm -Lnc", stand.endpoint);
    let arguments: Vec<OsString> = words.split(' ').map(OsString::from).collect();
    let mut err = Vec::new();
    let mut console = Console::new(std::io::empty(), Gone, &mut err);
    assert_eq!(dispatch(&arguments, &mut console), ExitCode::SUCCESS);
    assert!(console.finish().is_none());
    drop(console);
    assert!(err.is_empty());
}
