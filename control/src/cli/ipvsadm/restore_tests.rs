use super::*;
use crate::model::{Method as Forward, Problem, Scheduler};

const SAVED: &str = "\
-A -t 10.10.24.88:80 -s wlc
-a -t 10.10.24.88:80 -r 10.10.24.21:80 -g -w 3
# a remark

-a -t 10.10.24.88:80 -r 10.10.24.22:80 -g -w 1
-A -u 10.10.24.88:53 -s rr -o
";

fn draft(text: &str, document: Document, start: Start) -> Result<Draft<'_>, Failure> {
    Draft::of(text, document, start, &Names::default())
}

fn saved() -> Document {
    draft(SAVED, Document::default(), Start::Empty).unwrap().document
}

#[test]
fn rules_make_services_with_their_real_servers() {
    let services = saved().services;
    assert_eq!(services.len(), 2);
    assert_eq!((services[0].scheduler, services[1].scheduler, services[1].one_packet), (Scheduler::Wlc, Scheduler::Rr, true));
    let servers: Vec<(String, u32)> = services[0].real_servers.iter().map(|server| (server.address.to_string(), server.weight)).collect();
    assert_eq!(servers, [("10.10.24.21".to_owned(), 3), ("10.10.24.22".to_owned(), 1)]);
}

#[test]
fn restoring_adds_to_what_there_is_and_ipvsadm_restore_replaces_it() {
    let rule = "-A -t 10.10.24.90:80 -s rr";
    assert_eq!(draft(rule, saved(), Start::AsItIs).unwrap().document.services.len(), 3);
    assert_eq!(draft(rule, saved(), Start::Empty).unwrap().document.services.len(), 1);
}

#[test]
fn every_command_that_changes_something_can_be_restored() {
    let lines = "\
-E -t 10.10.24.88:80 -s lc
-e -t 10.10.24.88:80 -r 10.10.24.21 -w 0
-d -t 10.10.24.88:80 -r 10.10.24.22
-D -u 10.10.24.88:53
--set 100 0 30
-A -t 10.10.24.90:80
-a -t 10.10.24.90:80 -r 10.10.24.23
";
    let document = draft(lines, saved(), Start::AsItIs).unwrap().document;
    assert_eq!(document.services.len(), 2);
    assert_eq!((document.services[0].scheduler, document.services[0].real_servers.len()), (Scheduler::Lc, 1));
    assert_eq!(document.services[0].real_servers[0].weight, 0);
    assert_eq!(document.services[1].real_servers.len(), 1);
    let settings = document.settings;
    assert_eq!((settings.timeout_tcp, settings.timeout_tcpfin, settings.timeout_udp), (100, 120, 30));
    assert!(draft("-C", saved(), Start::AsItIs).unwrap().document.services.is_empty());
}

#[test]
fn the_first_faulty_line_is_named_and_has_its_own_exit_code() {
    for (line, code, text) in [
        ("-A -t 10.10.24.88:80", 255, "Service already exists"),
        ("-E -t 10.10.24.9:80", 255, "No such service"),
        ("-D -t 10.10.24.9:80", 255, "No such service"),
        ("-a -t 10.10.24.9:80 -r 10.10.24.21", 255, "Service not defined"),
        ("-a -t 10.10.24.88:80 -r 10.10.24.21", 255, "Destination already exists"),
        ("-e -t 10.10.24.88:80 -r 10.10.24.29", 255, "No such destination"),
        ("-d -t 10.10.24.88:80 -r 10.10.24.29", 255, "No such destination"),
        ("-A -t 300.1.1.1:80", 2, "illegal virtual server address[:port] specified"),
        ("-A -t 10.10.24.9:80 --pe sip", 255, "Scheduler or persistence engine not found"),
        ("-L", 2, "only -A -E -D -C -a -e -d and --set can be restored"),
    ] {
        let rules = format!("\n{line}\n-A bogus\n");
        let failure = draft(&rules, saved(), Start::AsItIs).err().unwrap();
        assert_eq!(failure, Failure { code, text: format!("{text}\nline 2: {line}\nnothing was changed") });
    }
}

#[test]
fn a_real_server_keeps_the_mac_that_an_operator_gave_it() {
    let mut document = saved();
    document.services[0].real_servers[0].mac = Some("02:00:00:00:00:15".to_owned());
    let restored = draft(SAVED, document, Start::Empty).unwrap().document;
    assert_eq!(restored.services[0].real_servers[0].mac.as_deref(), Some("02:00:00:00:00:15"));
    assert_eq!(restored.services[0].real_servers[1].mac, None);
    assert_eq!(restored.services[0].real_servers[0].method, Forward::DirectRouting);
}

#[test]
fn a_refusal_of_the_director_is_led_back_to_its_line() {
    let draft = draft(SAVED, Document::default(), Start::Empty).unwrap();
    let refusal = |pointer: &str| {
        let fault = Fault { pointer: pointer.to_owned(), detail: "too far".to_owned() };
        let problem = Problem {
            kind: "/problems/invalid".into(),
            title: "Invalid".into(),
            status: 422,
            detail: "1 fault".into(),
            errors: vec![fault],
        };
        draft.explain(&ClientError::Refused(Box::new(problem))).text
    };
    assert!(refusal("/services/0/real_servers/1/address").contains("line 5: -a -t 10.10.24.88:80 -r 10.10.24.22:80"));
    assert!(refusal("/services/1/address").contains("line 6: -A -u 10.10.24.88:53"));
    assert_eq!(refusal("/settings/timeout_udp"), "too far");
    assert_eq!(refusal("/services/9"), "too far");
}
